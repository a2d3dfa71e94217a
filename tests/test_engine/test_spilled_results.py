"""Results of metrics beyond a bound of memory: what comes back, and how much memory it takes."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import IterTimerHook
from mmengine.structures import BaseDataElement

from mmsnnet.engine import iteration_timers
from mmsnnet.engine.spilled_results import SpilledResults
from tests.toy_segmentation import NAMES, backbone_of, toy_runner, write_images

IMAGES = 6
MEGABYTE = 2**20


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'), train=1, val=IMAGES, side=36)


def test_everything_comes_back_in_its_type_and_bit_for_bit(tmp_path):
    shared = torch.arange(12.0).reshape(3, 4)
    results = [
        [
            shared[:, 1], torch.tensor(True), torch.tensor(3), torch.ones(2, dtype=torch.bfloat16),
            torch.ones(2, requires_grad=True), np.float32(0.1), np.arange(3, dtype='<u2'),
        ],
        [dict(rle=b'\x00\xff', size=(3, 4)), (None, 'S1-L4'), BaseDataElement(x=shared)],
    ]  # fmt: skip
    with SpilledResults(['a', 'b'], str(tmp_path), max_bytes=0) as spilled:
        spilled.add(dict(a=results, b=[[1], []]))
        spilled.add(dict(a=[[2], []], b=results))
        (first, second), (third, fourth) = spilled.of('a'), spilled.of('b')
    assert (second, third) == ([[2], []], [[1], []])
    for found in (first, fourth):
        for value, expected in zip(found[0], results[0]):
            assert type(value) is type(expected)
            assert value.dtype == expected.dtype
            assert np.array_equal(*(np.asarray(v.tolist()) for v in (value, expected)))
        assert found[1][:2] == results[1][:2]
        assert torch.equal(found[1][2].x, shared)
    assert first[0][4].requires_grad


def test_what_cannot_be_written_stays_as_it_is(tmp_path):
    lock = threading.Lock()
    with SpilledResults(['a'], str(tmp_path), max_bytes=0) as spilled:
        spilled.add(dict(a=[[1]]))
        spilled.add(dict(a=[[lock]]))
        first, second = spilled.of('a')
    assert first == [[1]]
    assert second[0][0] is lock


def test_a_full_disk_is_one_line():
    if not Path('/dev/full').exists():
        pytest.skip('there is no /dev/full here')
    with SpilledResults(['a', 'b'], '/somewhere', max_bytes=0) as spilled, open(
        '/dev/full', 'r+b', buffering=0
    ) as full:
        spilled._file = full
        with pytest.raises(OSError, match=r'Results of 2 stitches .* in /somewhere .*No space'):
            spilled.add(dict(a=[[1]]))


class Hoarder(BaseMetric):
    """Keeps a megabyte of each image."""

    def process(self, _: object, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            value = float(sample['pred_sem_seg']['data'].float().mean())
            self.results.append(np.full(MEGABYTE // 8, value))

    def compute_metrics(self, results: Sequence[np.ndarray]) -> dict[str, float]:
        return dict(mean=float(np.mean([one.mean() for one in results])), images=len(results))


@pytest.fixture
def hoarding(data, tmp_path):
    runner = toy_runner(
        data, tmp_path, test_cfg=dict(stitches=list(NAMES), metric=None),
        test_evaluator=dict(_delete_=True, type=Hoarder),
    )  # fmt: skip
    backbone_of(runner).mark_fitted()
    return runner


def test_memory_does_not_grow_with_the_number_of_stitches(hoarding):
    hoarding.test_loop.max_results = 2 * MEGABYTE
    tracemalloc.start()
    try:
        metrics = hoarding.test()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    hoarding.test_loop.one_pass = False
    assert metrics == hoarding.test()
    assert metrics['S3/images'] == IMAGES
    # Of the stitches that are scored together there are 8, which keep 48 MB.
    assert peak < 20 * MEGABYTE
    assert not [path for path in Path(hoarding.work_dir).rglob('*') if path.suffix == '.tmp']


@pytest.mark.parametrize('mode', ['val', 'test'])
def test_timers_remember_the_latest_iterations_alone(data, tmp_path, monkeypatch, mode):
    monkeypatch.setattr(iteration_timers, 'NUM_REMEMBERED', 5)
    runner = toy_runner(
        data, tmp_path, val_cfg=dict(stitches=list(NAMES)), test_cfg=dict(stitches=list(NAMES))
    )
    backbone_of(runner).mark_fitted()
    assert any(isinstance(hook, IterTimerHook) for hook in runner.hooks)
    getattr(runner, mode)()
    for key in ('time', 'data_time'):
        durations, _ = runner.message_hub.get_scalar(f'{mode}/{key}').data
        assert len(durations) == 5
        assert (durations > 0).all()


def test_where_there_are_no_timers_there_are_no_histories(data, tmp_path):
    runner = toy_runner(data, tmp_path, default_hooks=dict(timer=None))
    backbone_of(runner).mark_fitted()
    runner.test()
    assert not [key for key in runner.message_hub.log_scalars if key.endswith('time')]
