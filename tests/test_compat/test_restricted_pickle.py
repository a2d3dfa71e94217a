"""The reader for torch before 2.6; it is tested under every torch."""
from __future__ import annotations

import pickle
from argparse import Namespace
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from torch import nn

from mmsnnet.compat import safe_load
from mmsnnet.compat.restricted_pickle import load_restricted
from tests.test_compat.test_safe_load import HOSTILE, a_buffer


@pytest.fixture
def reread(tmp_path):
    """Returns what the reader gives back of a content that torch.save wrote."""
    def write_and_read(content, mmap=False, **options):
        path = tmp_path / 'file.pth'
        torch.save(content, path, **options)
        return load_restricted(str(path), safe_load.safe_globals(), mmap)
    return write_and_read


class Builds:
    """Pickles as an object whose state the checkpoint sets, whatever object that is."""

    def __init__(self, call, state):
        self.call, self.state = call, state

    def __reduce__(self):
        return (*self.call, self.state)


@pytest.mark.parametrize('options', [
    {}, dict(mmap=True), dict(_use_new_zipfile_serialization=False)], ids=repr)
def test_weights_come_back_bit_by_bit(reread, options):
    state = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).half().state_dict()
    loaded = reread(dict(state_dict=state, meta=dict(epoch=3, classes=('a', 'b'))), **options)
    assert loaded['meta'] == dict(epoch=3, classes=('a', 'b'))
    assert type(loaded['state_dict']) is OrderedDict
    assert all(torch.equal(loaded['state_dict'][name], state[name]) for name in state)


def test_an_optimizer_and_its_state_come_back(reread):
    layer = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    loaded = reread(optimizer.state_dict())
    assert torch.equal(loaded['state'][0]['exp_avg'], optimizer.state_dict()['state'][0]['exp_avg'])


def test_a_history_buffer_comes_back_with_its_statistics(reread):
    loaded = reread(a_buffer())
    np.testing.assert_array_equal(loaded.data[0], [2.5, 1.5, 4.0])
    assert [loaded.statistics(name) for name in safe_load.STATISTICS] == [1.5, 4.0, 4.0, 2.0]


def test_arguments_of_a_command_line_come_back(reread):
    args = Namespace(model='deit_small_patch16_LS', anchor_drop_path=[0.05, 0.4])
    assert reread(dict(args=args))['args'] == args


@pytest.mark.parametrize('code', safe_load.NUMBER_TYPES)
def test_numpy_numbers_and_arrays_come_back(reread, code):
    array = np.array([1, 0, 1]).astype(code)
    scalar, loaded = reread([array[0], array])
    assert scalar.dtype == loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)


@pytest.mark.parametrize('name', safe_load.ANNEALING)
def test_the_annealing_functions_come_back(reread, name):
    function = getattr(OneCycleParamScheduler, name)
    assert reread({'anneal_func': function})['anneal_func'] is function


@pytest.mark.parametrize('name', HOSTILE)
def test_a_hostile_checkpoint_is_refused(reread, name):
    with pytest.raises(pickle.UnpicklingError):
        reread({'state_dict': HOSTILE[name]()})


def test_what_an_allowed_call_returned_cannot_be_called(tmp_path):
    buffer = pickle.dumps(a_buffer(), protocol=2)[2:-1]  # without protocol mark and stop
    call = (b'\x80\x02c__builtin__\ngetattr\n(cmmengine.logging.history_buffer\nHistoryBuffer\n'
            b'X\x07\x00\x00\x00currenttR(' + buffer + b'tR.')
    path = tmp_path / 'old.pth'
    torch.save({}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b'\x80\x02}q\x00.', call))
    with pytest.raises(pickle.UnpicklingError, match='may not be called'):
        load_restricted(str(path), safe_load.safe_globals())


def test_the_state_of_a_function_of_the_process_cannot_be_set(reread):
    with pytest.raises(pickle.UnpicklingError, match='may not be set'):
        reread(Builds((getattr, (HistoryBuffer, 'min')), {'x': 1}))


@pytest.mark.filterwarnings('ignore:`torch.jit:FutureWarning')
def test_a_torchscript_archive_is_refused(tmp_path):
    path = str(tmp_path / 'script.pt')
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), path)
    with pytest.raises(pickle.UnpicklingError, match='TorchScript'):
        load_restricted(path, safe_load.safe_globals())


def test_the_environment_cannot_switch_the_reader_off(reread, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    with pytest.raises(pickle.UnpicklingError):
        reread({'state_dict': HOSTILE['system']()})


@pytest.mark.parametrize(('version', 'checks'), [
    ('2.1.2', False), ('2.5.1+cu121', False), ('2.6.0', True), ('2.14.1+cu130', True)])
def test_torch_itself_reads_where_it_takes_names(monkeypatch, version, checks):
    monkeypatch.setattr(torch, '__version__', version)
    assert safe_load.torch_reads_safely() is checks
