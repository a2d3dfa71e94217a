"""Loading of checkpoints under ``weights_only``: mmengine's own pass, everything else does not."""
from __future__ import annotations

import argparse
import io
import os
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from mmsnnet import compat
from mmsnnet.compat import safe_load

NEEDS_CHECKS = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6),
    reason='torch checks pickles by default since 2.6')

compat.install()


def saved(content, **options):
    """A checkpoint file in memory, ready to be read."""
    file = io.BytesIO()
    torch.save(content, file, **options)
    file.seek(0)
    return file


class Call:
    """Pickles as the call of a function: what a hostile checkpoint consists of."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def no_safe_globals():
    former = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(former)


def a_buffer():
    buffer = HistoryBuffer()
    for value, count in ((2.5, 1), (1.5, 2), (4.0, 1)):
        buffer.update(value, count)
    return buffer


def test_a_history_buffer_comes_back_with_its_values_and_statistics():
    loaded = torch.load(saved({'loss': a_buffer()}))['loss']
    assert type(loaded) is HistoryBuffer
    np.testing.assert_array_equal(loaded.data[0], [2.5, 1.5, 4.0])
    np.testing.assert_array_equal(loaded.data[1], [1, 2, 1])
    assert [loaded.statistics(name) for name in safe_load.STATISTICS] == [1.5, 4.0, 4.0, 2.0]


def test_arguments_of_a_command_line_come_back():
    args = argparse.Namespace(model='deit_small_patch16_LS', anchor_drop_path=[0.05, 0.4])
    assert torch.load(saved(dict(args=args)))['args'] == args


@NEEDS_CHECKS
def test_without_the_allow_list_torch_refuses_the_same_file(no_safe_globals):
    with pytest.raises(pickle.UnpicklingError):
        torch.load(saved({'loss': a_buffer()}))


@pytest.mark.parametrize('written', ['core', '_core'])
def test_files_of_either_numpy_generation_load(written):
    raw = saved(a_buffer(), _use_new_zipfile_serialization=False).getvalue()
    for name in (b'_core', b'core'):
        raw = raw.replace(b'cnumpy.' + name + b'.multiarray', b'cnumpy.HERE.multiarray')
    assert b'HERE' in raw
    loaded = torch.load(io.BytesIO(raw.replace(b'HERE', written.encode())))
    np.testing.assert_array_equal(loaded.data[0], [2.5, 1.5, 4.0])


@pytest.mark.parametrize('code', safe_load.NUMBER_TYPES)
def test_numpy_numbers_and_arrays_of_every_type_keep_value_and_type(code):
    array = np.array([1, 0, 1]).astype(code)
    scalar, loaded = torch.load(saved([array[0], array]))
    assert scalar.dtype == loaded.dtype == array.dtype
    assert scalar == array[0]
    np.testing.assert_array_equal(loaded, array)


def test_generator_states_come_back_and_go_on_with_the_same_numbers():
    rng, numpy_rng = random.Random(5), np.random.RandomState(5)
    numpy_rng.normal()
    state = dict(python=rng.getstate(), numpy=numpy_rng.get_state(), torch=torch.get_rng_state())
    loaded = torch.load(saved(state))
    expected = rng.random(), numpy_rng.normal(), numpy_rng.randint(1 << 30)
    rng.setstate(loaded['python'])
    numpy_rng.set_state(loaded['numpy'])
    assert (rng.random(), numpy_rng.normal(), numpy_rng.randint(1 << 30)) == expected
    assert torch.equal(loaded['torch'], state['torch'])


HOSTILE = {
    'system': lambda: Call(os.getenv, 'PATH'),
    'getattr on a module function': lambda: Call(getattr, os.path.join, '__globals__'),
    'getattr on an allowed class': lambda: Call(getattr, np.ndarray, 'tofile'),
    'dunder of HistoryBuffer': lambda: Call(getattr, HistoryBuffer, '__init__'),
    'subclasses of HistoryBuffer': lambda: Call(getattr, HistoryBuffer, '__subclasses__'),
    'globals of a statistic': lambda: Call(
        getattr, Call(getattr, HistoryBuffer, 'min'), '__globals__'),
    'dotted name': lambda: Call(getattr, HistoryBuffer, 'min.__globals__'),
    'other methods': lambda: Call(getattr, HistoryBuffer, 'register_statistics'),
    'an instance': lambda: Call(getattr, Call(HistoryBuffer), 'min'),
    'a default': lambda: Call(getattr, HistoryBuffer, 'nothing', Call(getattr, int, 'real')),
    'dunder of OneCycle': lambda: Call(getattr, OneCycleParamScheduler, '__init__'),
    'other functions of OneCycle': lambda: Call(getattr, OneCycleParamScheduler, 'step'),
    'globals of an annealing': lambda: Call(
        getattr, Call(getattr, OneCycleParamScheduler, '_annealing_cos'), '__globals__'),
    'the servant by its own name': lambda: Call(
        safe_load.allowed_attribute, HistoryBuffer, '__init__'),
}


REFUSALS = 'asks for the attribute|(?i:unsupported global)'


@NEEDS_CHECKS
@pytest.mark.parametrize('name', HOSTILE)
def test_a_hostile_checkpoint_is_refused(name):
    with pytest.raises(pickle.UnpicklingError, match=REFUSALS):
        torch.load(saved({'state_dict': HOSTILE[name]()}))


@NEEDS_CHECKS
def test_a_served_statistic_cannot_be_called_by_the_checkpoint():
    buffer = pickle.dumps(a_buffer(), protocol=2)[2:-1]  # without protocol mark and stop
    call = (b'\x80\x02c__builtin__\ngetattr\n(cmmengine.logging.history_buffer\nHistoryBuffer\n'
            b'X\x07\x00\x00\x00currenttR(' + buffer + b'tR.')
    assert pickle.loads(call) == 4.0  # it works where nothing checks
    empty = saved({}, _use_new_zipfile_serialization=False).getvalue()
    assert empty.count(b'\x80\x02}q\x00.') == 1
    with pytest.raises(pickle.UnpicklingError, match='reduce for unrecognized function'):
        torch.load(io.BytesIO(empty.replace(b'\x80\x02}q\x00.', call)))


@pytest.mark.parametrize('name', ['globals of a statistic', 'dunder of HistoryBuffer',
                                  'other methods', 'subclasses of HistoryBuffer'])
def test_the_same_attacks_succeed_without_the_check(name):
    loaded = torch.load(saved({'state_dict': HOSTILE[name]()}), weights_only=False)
    assert loaded['state_dict'] is not None


@pytest.mark.parametrize('name', safe_load.ANNEALING)
def test_the_annealing_functions_of_one_cycle_come_back(name):
    function = getattr(OneCycleParamScheduler, name)
    assert torch.load(saved({'anneal_func': function}))['anneal_func'] is function


@NEEDS_CHECKS
def test_a_checkpoint_cannot_make_a_scheduler():
    with pytest.raises((pickle.UnpicklingError, TypeError)):
        torch.load(saved({'state_dict': Call(OneCycleParamScheduler, 1, 'lr')}))


def test_the_servant_gives_the_four_statistics_alone():
    assert [safe_load.allowed_attribute(HistoryBuffer, name) for name in safe_load.STATISTICS] == [
        HistoryBuffer.min, HistoryBuffer.max, HistoryBuffer.current, HistoryBuffer.mean]


@NEEDS_CHECKS
def test_the_builtin_getattr_itself_is_not_allowed():
    assert getattr not in safe_load.safe_globals()
    assert all(entry[0] is not getattr for entry in safe_load.safe_globals()
               if isinstance(entry, tuple))


@NEEDS_CHECKS
def test_allowing_twice_changes_nothing():
    before = len(torch.serialization.get_safe_globals())
    compat.install()
    assert len(torch.serialization.get_safe_globals()) == before


def test_older_torch_is_left_alone(monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.5.1+cu121')
    monkeypatch.delattr(torch.serialization, 'add_safe_globals', raising=False)
    assert safe_load.allow_mmengine_checkpoints() is False
