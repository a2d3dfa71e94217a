"""Hooks and schedulers that wait for a metric of validation."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
from mmengine._strategy import DDPStrategy, DeepSpeedStrategy, FSDPStrategy
from mmengine.hooks import EarlyStoppingHook

from mmsnnet.engine import StitchInitHook, StitchSamplingHook
from mmsnnet.engine.training_checks import refuse_shards
from tests.toy_segmentation import toy_runner, write_images


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'), train=2, val=1)


def saving(**settings):
    return dict(default_hooks=dict(checkpoint=settings))


def stopping(**settings):
    hooks = [dict(type='StitchInitHook', num_images=2), dict(type='StitchSamplingHook')]
    return dict(custom_hooks=[*hooks, dict(type='EarlyStoppingHook', **settings)])


def scheduling(**settings):
    return dict(param_scheduler=[dict(type='ReduceOnPlateauLR', by_epoch=True, **settings)])


STOCK = dict(val_cfg=dict(_delete_=True, type='ValLoop'))
NO_METRIC = dict(val_cfg=dict(_delete_=True, type='StitchValLoop'))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (saving(save_best='mAcc'), "save_best of CheckpointHook is 'mAcc', which StitchValLoop"),
        (saving(save_best='S3/mIOU', rule='greater'), "is 'S3/mIOU', which .* as 'S3/mIoU'"),
        (saving(save_best='S2-L2/mIoU'), "is 'S2-L2/mIoU', which StitchValLoop does not return"),
        (saving(save_best=['mIoU', 'aAcc']), "is 'aAcc', which"),
        (saving(save_best='pareto/hypervolume', rule='less'), "rule='less', but .*'greater'"),
        (NO_METRIC | saving(save_best='auto'), "is 'auto', which .*give val_cfg a metric"),
        (NO_METRIC | saving(save_best='mIoU'), "is 'mIoU', which .*give val_cfg a metric"),
        (stopping(monitor='accuracy/top1'), "monitor of EarlyStoppingHook is 'accuracy/top1'"),
        (scheduling(), "monitor of ReduceOnPlateauLR is 'loss', which"),
        (scheduling(monitor='mIoU'), "ReduceOnPlateauLR is 'mIoU' with rule='less', but"),
        (STOCK | saving(save_best='pareto/hypervolume', rule='greater'),
         "is 'pareto/hypervolume', which ValLoop does not return: set val_cfg=.*StitchValLoop"),
        (STOCK | stopping(monitor='best/mIoU'), "is 'best/mIoU', which ValLoop does not return"),
    ],
)  # fmt: skip
def test_a_monitor_of_no_metric_is_refused_before_training(data, tmp_path, settings, message):
    runner = toy_runner(data, tmp_path, **copy.deepcopy(settings))  # merging edits them
    with pytest.raises(ValueError, match=message) as caught:
        runner.train()
    assert '\n' not in str(caught.value)
    assert runner.iter == 0 and not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize('key', ['auto', 'mIoU', 'S3/aAcc', 'best/L/mIoU'])
def test_a_key_of_the_metrics_keeps_the_best_checkpoint(data, tmp_path, key):
    settings = dict(train_cfg=dict(max_iters=1, val_interval=1), **saving(save_best=key))
    runner = toy_runner(data, tmp_path, **settings)
    runner.train()
    name = 'mIoU' if key == 'auto' else key
    score = runner.message_hub.get_scalar(f'val/{name}').current()
    assert runner.message_hub.get_info('best_score') == score
    assert [path.name for path in tmp_path.glob('best_*')]


def test_auto_keeps_the_least_of_a_metric_that_is_better_when_less_or_is_refused(data, tmp_path):
    loop = dict(metric='aAcc', rule='less', metric_range=(100.0, 0.0))
    runner = toy_runner(data, tmp_path, val_cfg=loop, **saving(save_best='auto'))
    with pytest.raises(ValueError, match="'aAcc' is better when it is less: set rule='less'"):
        runner.train()


def test_early_stopping_on_the_metric_of_the_host_stops(data, tmp_path):
    settings = stopping(monitor='mIoU', patience=1, min_delta=100)
    runner = toy_runner(data, tmp_path, train_cfg=dict(max_iters=9, val_interval=1), **settings)
    assert any(isinstance(hook, EarlyStoppingHook) for hook in runner.hooks)
    runner.train()
    assert runner.iter == 2


def test_a_learning_rate_falls_on_a_plateau_of_the_metric_of_the_host(data, tmp_path):
    settings = scheduling(monitor='mIoU', rule='greater', patience=0, threshold=100, factor=0.5)
    runner = toy_runner(
        data, tmp_path, by_epoch=True, train_cfg=dict(max_epochs=3), **settings
    )
    runner.train()
    assert runner.optim_wrapper.get_lr()['lr'][0] < 1e-3


@pytest.mark.parametrize('strategy', [FSDPStrategy, DeepSpeedStrategy])
@pytest.mark.parametrize('hook', [StitchInitHook, StitchSamplingHook])
def test_strategies_that_keep_weights_in_shards_are_refused_by_name(hook, strategy):
    runner = SimpleNamespace(strategy=strategy.__new__(strategy), cfg={})
    with pytest.raises(ValueError, match=f'{strategy.__name__} cannot train stitches'):
        hook().before_run(runner)


def test_a_strategy_of_whole_weights_is_not_refused():
    refuse_shards(SimpleNamespace(strategy=DDPStrategy.__new__(DDPStrategy)))
