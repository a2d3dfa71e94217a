"""Runs that are killed and resumed, against runs that are not."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import torch
from mmengine.runner import Runner

from mmsnnet.compat import load_allowed
from mmsnnet.engine.hooks.exact_resume_hook import CallBefore
from tests.toy_segmentation import (
    child_environment,
    losses,
    toy_config,
    toy_runner,
    weights,
    write_images,
)

CHILD = """
import os, signal, sys, torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
import mmsnnet

class Kill(Hook):
    def before_train_iter(self, runner, *_, **__):
        if runner.iter == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
runner = Runner.from_cfg(Config.fromfile(sys.argv[1]))
runner.register_hook(Kill(), priority='LOWEST')
runner.train()
"""


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'))


def assert_same_end(one, other):
    assert losses(one) == losses(other)
    expected = weights(other)
    for name, value in weights(one).items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ('by_epoch', 'settings', 'killed_at', 'saved'),
    [
        (False, dict(train_cfg=dict(max_iters=8, val_interval=2)), 5, 'iter_3.pth'),
        (True, dict(train_cfg=dict(max_epochs=3)), 8, 'epoch_1.pth'),
    ],
)
def test_a_run_that_was_killed_and_resumed_ends_like_one_that_was_not(
    data, tmp_path, by_epoch, settings, killed_at, saved
):
    """With dropped paths, dropout, random augmentation and validations on the way."""
    config = toy_config(data, tmp_path / 'killed', by_epoch, **settings)
    config.dump(tmp_path / 'config.py')
    child = subprocess.Popen(
        [sys.executable, '-c', CHILD, str(tmp_path / 'config.py'), str(killed_at)],
        env=child_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    whole = toy_runner(data, tmp_path / 'whole', by_epoch, **settings)
    whole.train()
    errors = child.communicate(timeout=300)[1]
    assert child.returncode == -signal.SIGKILL, errors
    assert [path.name for path in (tmp_path / 'killed').glob('*.pth')] == [saved]

    config.resume = True
    resumed = Runner.from_cfg(config)
    resumed.train()
    assert len(losses(resumed)) == (18 if by_epoch else 8)
    assert_same_end(resumed, whole)


#: Without random augmentation, which worker processes would draw.
PLAIN = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=False),
    dict(type='PackSegInputs'),
]


@pytest.mark.parametrize(
    ('by_epoch', 'loading'),
    [(False, {}), (True, {}), (False, dict(num_workers=1, dataset=dict(pipeline=PLAIN)))],
)
def test_a_run_without_a_seed_goes_on_with_its_own(data, tmp_path, by_epoch, loading):
    """Most configs set none: MMEngine draws one and saves it, but its samplers begin before."""
    settings = dict(randomness=dict(_delete_=True, seed=None), train_dataloader=loading)
    whole = toy_runner(data, tmp_path / 'whole', by_epoch, **settings)
    whole.train()
    half = tmp_path / 'whole' / ('epoch_1.pth' if by_epoch else 'iter_3.pth')
    resumed = toy_runner(
        data, tmp_path / 'resumed', by_epoch, load_from=str(half), resume=True, **settings
    )
    resumed.train()
    assert_same_end(resumed, whole)


def test_runs_without_a_seed_differ(data, tmp_path):
    """Else the test above would prove nothing."""
    settings = dict(randomness=dict(_delete_=True, seed=None), train_cfg=dict(max_iters=1))
    runs = [toy_runner(data, tmp_path / name, **settings) for name in 'ab']
    for run in runs:
        run.train()
    assert losses(runs[0]) != losses(runs[1])


def test_a_run_resumed_twice_ends_like_one_that_was_not(data, tmp_path):
    settings = dict(train_cfg=dict(max_iters=6), default_hooks=dict(checkpoint=dict(interval=2)))
    whole = toy_runner(data, tmp_path / 'whole', **settings)
    whole.train()
    first = toy_runner(
        data, tmp_path / 'first', load_from=str(tmp_path / 'whole' / 'iter_2.pth'), resume=True,
        **settings,
    )  # fmt: skip
    first.train()
    second = toy_runner(
        data, tmp_path / 'second', load_from=str(tmp_path / 'first' / 'iter_4.pth'), resume=True,
        **settings,
    )  # fmt: skip
    second.train()
    assert_same_end(second, whole)


def test_a_data_set_read_to_its_end_on_the_way_makes_no_difference(data, tmp_path):
    """12 images are 6 batches: iterations 7 to 9 belong to another order of the images."""
    settings = dict(train_cfg=dict(max_iters=9), default_hooks=dict(checkpoint=dict(interval=7)))
    whole = toy_runner(data, tmp_path / 'whole', **settings)
    whole.train()
    resumed = toy_runner(
        data, tmp_path / 'resumed', load_from=str(tmp_path / 'whole' / 'iter_7.pth'), resume=True,
        **settings,
    )  # fmt: skip
    resumed.train()
    assert_same_end(resumed, whole)


def test_gradients_accumulated_at_the_moment_of_saving_are_taken_up(data, tmp_path):
    """Iteration 4 of steps of 3 iterations each; the last step has but one."""
    settings = dict(
        train_cfg=dict(max_iters=7, val_interval=9), optim_wrapper=dict(accumulative_counts=3),
        default_hooks=dict(checkpoint=dict(interval=2)),
    )  # fmt: skip
    whole = toy_runner(data, tmp_path / 'whole', **settings)
    whole.train()
    half = tmp_path / 'whole' / 'iter_4.pth'
    gradients = load_allowed(str(half))['stitch_accumulated_gradients']
    assert len(gradients) == 1 and any(g.abs().sum() > 0 for g in gradients[0].values())
    assert 'stitch_accumulated_gradients' not in torch.load(tmp_path / 'whole' / 'iter_6.pth')
    resumed = toy_runner(
        data, tmp_path / 'resumed', load_from=str(half), resume=True, **settings
    )
    resumed.train()
    assert_same_end(resumed, whole)


class SkippingIterator:
    """Iterator of a loop that skips batches by a method, as onedl-mmengine's does."""

    def __init__(self, items):
        self.items, self.note = list(items), 'its own'

    def __iter__(self):
        return self

    def __next__(self):
        return self.items.pop(0)

    def skip_iter(self, num_iters):
        del self.items[:num_iters]


@pytest.mark.parametrize('skip_by_method', [True, False])
def test_the_iterator_of_a_resumed_loop_acts_once_before_the_first_unseen_item(skip_by_method):
    calls = []
    inner = SkippingIterator('abcde')
    iterator = CallBefore(inner, 2, lambda: calls.append(list(inner.items)))
    if skip_by_method:
        iterator.skip_iter(2)
    else:
        assert [next(iterator), next(iterator)] == ['a', 'b']
    assert not calls
    assert next(iterator) == 'c' and next(iter(iterator)) == 'd'
    assert calls == [['c', 'd', 'e']]
    assert iterator.note == 'its own'
    with pytest.raises(AttributeError, match='nothing'):
        iterator.nothing  # noqa: B018
