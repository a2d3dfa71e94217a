"""Stitches without a metric, and metrics that there are not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mmengine.registry import METRICS
from mmseg.evaluation import IoUMetric

from tests import toy_detection
from tests.toy_segmentation import backbone_of, logged, toy_runner, write_images

CHOSEN = ['S3', 'L6', 'S2-L2']


@METRICS.register_module()
class OtherIoU(IoUMetric):
    """Of names that are not known beforehand but for their prefix."""

    default_prefix = 'toy'

    def compute_metrics(self, results):
        return super().compute_metrics(results)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'), train=2, val=2)


def runner_of(data, work_dir, **settings):
    """Runner of a test of three stitches at random weights."""
    settings = {'test_cfg': dict(stitches=CHOSEN), **settings}
    runner = toy_runner(data, work_dir, **settings)
    backbone_of(runner).mark_fitted()
    return runner


def edit_metrics(runner, edit):
    """Let a function of the active stitch's name and its metrics return them otherwise."""
    metric, backbone = runner.test_loop.evaluator.metrics[0], backbone_of(runner)
    compute = metric.compute_metrics
    metric.compute_metrics = lambda results: edit(backbone.stitch.name, compute(results))


@pytest.mark.parametrize('value', [None, math.nan, math.inf, np.float32('nan')])
def test_a_stitch_without_a_metric_counts_as_worst_and_is_named(data, tmp_path, value):
    runner = runner_of(data, tmp_path)
    expected = runner_of(data, tmp_path / 'whole', test_cfg=dict(stitches=['S3', 'L6'])).test()

    def spoil(name, metrics):
        if name != 'S2-L2':
            return metrics
        return {} if value is None else {**metrics, 'mIoU': value}

    edit_metrics(runner, spoil)
    with logged(runner) as lines:
        metrics = runner.test()
    (line,) = [line for line in lines if 'worst value' in line]
    assert 'No finite mIoU of 1 of 3 stitches (S2-L2): they count as the worst value, 0' in line
    assert not math.isfinite(metrics['S2-L2/mIoU'])
    assert metrics['worst/mIoU'] == metrics['best/S-L/mIoU'] == 0
    for key in ('mIoU', 'best/mIoU', 'pareto/hypervolume', 'pareto/size', 'S3/aAcc'):
        assert metrics[key] == expected[key], key


def test_metrics_that_all_stitches_lack_leave_a_summary_of_the_worst(data, tmp_path):
    """As of a detector that finds nothing, with an error whose worst value is 9."""
    loop = dict(stitches=CHOSEN, metric='toy/error', rule='less', metric_range=(9.0, 0.0))
    runner = runner_of(data, tmp_path, test_evaluator=dict(type='OtherIoU'), test_cfg=loop)
    edit_metrics(runner, lambda *_: {})
    with logged(runner) as lines:
        metrics = runner.test()
    assert any('of 3 of 3 stitches' in line for line in lines)
    assert metrics['best/toy/error'] == metrics['worst/toy/error'] == metrics['toy/error'] == 9
    assert metrics['pareto/hypervolume'] == metrics['pareto/size'] == 0


def test_metrics_have_the_digits_that_a_metric_in_float32_has(data, tmp_path):
    runner = runner_of(data, tmp_path)
    edit_metrics(runner, lambda *_: {'mIoU': np.float32(45.2)})
    metrics = runner.test()
    for key in ('mIoU', 'worst/mIoU', 'S3/mIoU'):
        assert repr(metrics[key]) == '45.2'


@pytest.mark.parametrize('name', ['mIOU', 'S3/mIoU', 'mDice'])
def test_a_metric_that_segmentation_does_not_give_is_refused_before_the_pass(
    data, tmp_path, name
):
    runner = runner_of(data, tmp_path, test_cfg=dict(metric=name))
    with pytest.raises(ValueError, match=r'not among .* evaluator: .*aAcc.*mAcc.*mIoU') as caught:
        _ = runner.test_loop
    assert f'metric={name!r}' in str(caught.value) and '\n' not in str(caught.value)


def test_a_detector_that_finds_nothing_is_trained_to_the_end(tmp_path):
    data = toy_detection.write_coco_rooms(tmp_path / 'coco', train=2, val=1)
    settings = dict(
        train_cfg=dict(max_iters=2, val_interval=1),
        model=dict(test_cfg=dict(rcnn=dict(score_thr=1.01))),
        default_hooks=dict(checkpoint=dict(save_best='pareto/hypervolume', rule='greater')),
    )  # fmt: skip
    runner = toy_detection.toy_runner(data, tmp_path / 'run', **settings)
    with logged(runner) as lines:
        runner.train()
    assert runner.iter == 2
    assert any('No finite coco/bbox_mAP of 2 of 2 stitches (S2, L4)' in line for line in lines)
    assert runner.message_hub.get_scalar('val/coco/bbox_mAP').current() == 0
    assert (tmp_path / 'run' / 'best_pareto_hypervolume_iter_1.pth').is_file()


def test_a_metric_whose_prefix_no_metric_has_is_refused_before_the_pass(tmp_path):
    data = toy_detection.write_coco_rooms(tmp_path / 'coco', train=1, val=1)
    runner = toy_detection.toy_runner(data, tmp_path / 'run', test_cfg=dict(metric='bbox_mAP'))
    message = r"metric='bbox_mAP' of the loop .* names all begin with coco/"
    with pytest.raises(ValueError, match=message):
        _ = runner.test_loop


def test_a_misspelt_metric_among_others_of_its_kind_stays_an_error(data, tmp_path):
    """Where names are known by their prefix alone it takes a pass to tell."""
    loop = dict(stitches=CHOSEN, metric='toy/mIOU')
    runner = runner_of(data, tmp_path, test_evaluator=dict(type='OtherIoU'), test_cfg=loop)
    with pytest.raises(ValueError, match=r"metric='toy/mIOU' .*'toy/mIoU'"):
        runner.test()


# -- NaN in predictions, no data -------------------------------------------------------------


def poison(runner, name):
    """Let a stitch alone deliver NaN, in one pixel of one map."""
    backbone = backbone_of(runner)
    run = backbone.run

    def poisoned(images, stitch):
        features = run(images, stitch)
        if backbone.space[stitch].name == name and not backbone.training:
            features[0][0, 0, 0, 0] = math.nan
        return features

    backbone.run = poisoned


def test_a_stitch_that_predicts_nan_is_named_by_a_test(data, tmp_path):
    runner = runner_of(data, tmp_path)
    poison(runner, 'S2-L2')
    with pytest.raises(ValueError, match='Stitch S2-L2: its features or predictions of') as caught:
        runner.test()
    assert '\n' not in str(caught.value)


def test_logits_of_a_head_are_looked_at_too(data, tmp_path):
    runner = runner_of(data, tmp_path)
    with torch.no_grad():
        runner.model.decode_head.conv_seg.bias[1] = math.nan
    with pytest.raises(ValueError, match='hold NaN'):
        runner.test()


def test_a_training_survives_a_stitch_that_predicts_nan(data, tmp_path):
    settings = dict(train_cfg=dict(max_iters=2, val_interval=1), val_cfg=dict(stitches=CHOSEN))
    runner = toy_runner(data, tmp_path, **settings)
    poison(runner, 'L6')
    with logged(runner) as lines:
        runner.train()
    assert runner.iter == 2
    assert sum('1 of 3 stitches hold NaN (L6)' in line for line in lines) == 2
    hub = runner.message_hub
    assert math.isnan(hub.get_scalar('val/L6/mIoU').current())
    assert hub.get_scalar('val/worst/mIoU').current() == 0
    best = max(hub.get_scalar(f'val/{name}/mIoU').current() for name in ('S3', 'S2-L2'))
    assert hub.get_scalar('val/mIoU').current() == best


@pytest.mark.parametrize('serialize', [True, False])
@pytest.mark.parametrize('mode', ['val', 'test'])
def test_an_empty_data_set_is_named(data, tmp_path, mode, serialize):
    dataset = dict(serialize_data=serialize, data_prefix=dict(img_path='images/nowhere'))
    (data / 'images' / 'nowhere').mkdir(exist_ok=True)
    runner = runner_of(data, tmp_path, **{f'{mode}_dataloader': dict(dataset=dataset)})
    with pytest.raises(ValueError, match=f'The data set of {mode}_dataloader is empty'):
        getattr(runner, mode)()


# -- the stitch that a config asks for -------------------------------------------------------


def test_a_test_scores_the_stitch_that_the_backbone_was_configured_with_alone(data, tmp_path):
    """By name, with a recipe's choice for when there is none."""
    loop = dict(_delete_=True, type='StitchTestLoop', default_stitches='anchors', metric='mIoU')
    backbone = dict(backbone=dict(stitch='S2-L2'))
    metrics = runner_of(data, tmp_path / 'a', model=backbone, test_cfg=loop).test()
    assert {key.split('/')[0] for key in metrics if '/aAcc' in key} == {'S2-L2'}
    assert metrics['mIoU'] == metrics['S2-L2/mIoU']
    metrics = runner_of(data, tmp_path / 'b', test_cfg=loop).test()
    assert {key.split('/')[0] for key in metrics if '/aAcc' in key} == {'S3', 'L6'}


def test_stitches_that_leave_out_the_one_of_the_backbone_are_refused(data, tmp_path):
    backbone = dict(backbone=dict(stitch='L4-S1'))
    runner = runner_of(data, tmp_path / 'a', model=backbone)
    message = r"model.backbone.stitch asks for L4-S1, which is not among test_cfg.stitches=\['S3'"
    with pytest.raises(ValueError, match=message):
        runner.test()
    loop = dict(stitches=['L4-S1', 'S3'])
    metrics = runner_of(data, tmp_path / 'b', model=backbone, test_cfg=loop).test()
    assert {key.split('/')[0] for key in metrics if '/aAcc' in key} == {'S3', 'L4-S1'}
