"""Batched routes in real segmentors, against passes one by one."""

from __future__ import annotations

import pytest
import torch

from mmsnnet.evaluation.sweep.sweep_options import SweepOptions
from mmsnnet.stitching.route_tree import RouteTree
from tests.builders import shake
from tests.test_engine.test_one_pass import CHOSEN, SLIDE, run
from tests.toy_segmentation import backbone_of, toy_runner, write_images


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'), train=1, val=3)


def runner_of(data, work_dir, loop, **settings):
    runner = toy_runner(
        data, work_dir, test_cfg=dict(stitches=CHOSEN, batch_routes=4) | loop, **settings
    )
    shake(runner.model)
    backbone_of(runner).mark_fitted()
    return runner


@pytest.mark.parametrize(
    'settings',
    [dict(test_dataloader=dict(batch_size=2)), dict(model=dict(test_cfg=SLIDE))],
    ids=['whole', 'slide'],
)
def test_maps_and_metrics_agree_with_passes_one_by_one(settings, data, tmp_path):
    runner = runner_of(data, tmp_path / 'run', {}, **settings)
    metrics, maps, blocks = run(runner, True)
    expected_metrics, expected_maps, apart = run(runner, False)
    space = backbone_of(runner).space
    tree = RouteTree({name: space.program(name) for name in CHOSEN})
    assert blocks * tree.num_blocks_apart < apart * tree.num_blocks  # as prefixes alone save
    assert metrics.keys() == expected_metrics.keys() and metrics
    for key, value in expected_metrics.items():
        assert metrics[key] == pytest.approx(value, abs=0.01, nan_ok=True), key
    assert maps.keys() == expected_maps.keys() and len(maps) >= 2 * len(CHOSEN)
    for place, tensors in expected_maps.items():
        for key, value in tensors.items():
            found = maps[place][key]
            if value.is_floating_point():
                torch.testing.assert_close(found, value, atol=1e-4, rtol=1e-4)
            else:  # classes, that two equal scores decide
                assert (found == value).float().mean() > 0.999, key
        assert any(tensor.is_floating_point() for tensor in tensors.values())


def test_kept_features_of_windows_stay_within_their_bound(data, tmp_path):
    runner = runner_of(data, tmp_path / 'run', {}, model=dict(test_cfg=SLIDE))
    batch = next(iter(runner.test_dataloader))
    runner.model.eval()
    runner.call_hook('before_test_epoch')
    peaks = []
    for bound in (None, 60_000):
        with runner.test_loop.together(runner.test_loop.scoring.stitches, bound, 6) as one_pass:
            one_pass.run_batch(0, batch)
        peaks.append(one_pass.peak_bytes)
    assert peaks[1] <= 60_000 < peaks[0]


def test_groups_of_no_stitch_are_refused_in_one_line(data, tmp_path):
    with pytest.raises(ValueError, match='batch_routes=0 is not possible: give 1'):
        runner_of(data, tmp_path / 'run', dict(batch_routes=0)).test_loop  # noqa: B018
    with pytest.raises(ValueError, match='batch_routes=-1 is not possible'):
        SweepOptions(batch_routes=-1)
    with pytest.raises(ValueError, match='Routes are batched in one pass; leave out --one-by-one'):
        SweepOptions(one_by_one=True, batch_routes=2)
