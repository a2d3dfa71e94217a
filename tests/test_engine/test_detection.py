"""Mask R-CNN on rooms through MMEngine's real Runner: fit, training, validation and test."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

pytest.importorskip('mmdet')

from mmsnnet.models import StitchFit, find_stitched_backbone
from tests.toy_detection import CONFIG, NAMES, SIDE, toy_config, toy_runner, write_coco_rooms
from tests.toy_segmentation import child_environment, losses, run_python, weights
from tools.test_all_stitches import main

METRICS = {f'coco/{kind}_mAP{end}' for kind in ('bbox', 'segm') for end in ('', '_50', '_75')}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_coco_rooms(tmp_path_factory.mktemp('data') / 'rooms')


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """A run of 4 iterations with its fitted images, and what it was before and after."""
    images, add = [], StitchFit.add
    runner = toy_runner(data, tmp_path_factory.mktemp('run') / 'whole')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StitchFit, 'add', lambda fit, x: (images.append(x.clone()), add(fit, x)))
        metrics = {}
        patch.setattr(runner, 'call_hook', _spy(runner.call_hook, metrics))
        runner.train()
    return runner, images, metrics


def _spy(call_hook, metrics):
    def call(name, **arguments):
        if name == 'after_val_epoch':
            metrics.update(arguments['metrics'])
        call_hook(name, **arguments)

    return call


def test_a_training_fits_images_of_the_detection_loader_and_learns(trained):
    runner, images, _ = trained
    assert sum(map(len, images)) == 6
    assert {tuple(item.shape[1:]) for item in images} == {(3, SIDE, SIDE)}
    assert find_stitched_backbone(runner.model).is_fitted
    assert len(losses(runner)) == 4 and all(value < 100 for value in losses(runner))
    names = set(runner.message_hub.log_scalars)
    assert {f'train/{part}' for part in ('loss_rpn_cls', 'loss_bbox', 'loss_mask')} <= names


def test_validation_scores_boxes_and_masks_of_the_anchors(trained):
    metrics = trained[2]
    for name in NAMES[:2]:
        assert {f'{name}/{metric}' for metric in METRICS} <= set(metrics)
    assert 0 <= metrics['pareto/hypervolume'] <= 1
    assert metrics['best/coco/bbox_mAP'] >= metrics['worst/coco/bbox_mAP']


def test_learning_rates_fall_with_depth_and_reach_neck_and_heads(trained):
    runner = trained[0]
    groups = {}
    by_id = {id(value): name for name, value in runner.model.named_parameters()}
    for group in runner.optim_wrapper.optimizer.param_groups:
        for value in group['params']:
            groups[by_id[id(value)]] = group
    trainable = {name for name, value in runner.model.named_parameters() if value.requires_grad}
    assert set(groups) == trainable
    rates = [groups[f'backbone.anchors.L.vit.blocks.{i}.attn.qkv.weight']['lr'] for i in range(4)]
    assert rates == sorted(rates) and rates[0] < rates[-1]
    top = groups['neck.levels.0.0.weight']['lr']
    assert top == groups['roi_head.mask_head.conv_logits.weight']['lr'] > rates[-1]
    assert groups['neck.levels.0.1.weight']['weight_decay'] == 0  # a norm
    assert groups['roi_head.bbox_head.fc_cls.weight']['weight_decay'] > 0


def test_a_resumed_training_goes_on_as_if_never_stopped(trained, data, tmp_path):
    runner = trained[0]
    again = toy_runner(
        data, tmp_path / 'again', resume=True, load_from=f'{runner.work_dir}/iter_2.pth'
    )
    again.train()
    assert losses(again)[-2:] == losses(runner)[-2:]
    mine, other = weights(again), weights(runner)
    assert all(torch.equal(mine[name], other[name]) for name in other)


def test_every_stitch_is_scored_with_box_and_mask_precision(trained, data, tmp_path, capsys):
    runner = trained[0]
    toy_config(data, tmp_path / 'unused').dump(tmp_path / 'config.py')
    call = [str(tmp_path / 'config.py'), f'{runner.work_dir}/iter_4.pth']
    assert main([*call, '--out', str(tmp_path / 'out')]) == 0
    lines = (tmp_path / 'out' / 'stitches.jsonl').read_text().splitlines()
    rows = {row['name']: row for row in map(json.loads, lines)}
    assert set(rows) == set(NAMES)
    assert all(set(row['metrics']) >= METRICS for row in rows.values())
    assert rows['S2']['flops'] < rows['S1-L2']['flops'] < rows['L4']['flops']
    assert 'bbox_mAP' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['s-l_coco', 'b-l_coco'])
def test_the_recipes_are_vitdet_s(name):
    cfg = Config.fromfile(CONFIG.with_name(f'mask-rcnn_snnetv2_{name}.py'))
    backbone = cfg.model.backbone
    assert (backbone.window_size, backbone.global_blocks) == (14, (5, 11, 17, 23))
    assert backbone.anchors[-1].drop_path_rate == 0.4
    assert cfg.optim_wrapper.optimizer.lr == 1e-4
    assert cfg.optim_wrapper.constructor == 'StitchLayerDecayOptimWrapperConstructor'
    assert cfg.train_cfg.max_iters == round(100 * 118_000 / 64)
    milestones = cfg.param_scheduler[1].milestones
    assert milestones == [round(184_375 * part) for part in (8 / 9, 26 / 27)]
    assert cfg.val_evaluator.metric == ['bbox', 'segm'] and cfg.find_unused_parameters
    jitter = next(t for t in cfg.train_dataloader.dataset.pipeline if t.type == 'RandomResize')
    assert (jitter.scale, jitter.ratio_range) == ((1024, 1024), (0.1, 2.0))


@pytest.mark.slow
@pytest.mark.parametrize('command', ['train', 'test'])
def test_mim_runs_mmdet_with_the_config(trained, data, tmp_path, command):
    pytest.importorskip('mim')
    toy_config(data, tmp_path / 'mim', log_level='INFO').dump(tmp_path / 'config.py')
    call = ['-m', 'mim', command, 'mmdet', str(tmp_path / 'config.py')]
    if command == 'test':
        call += ['--checkpoint', f'{trained[0].work_dir}/iter_4.pth']
    done = run_python(*call, '--work-dir', str(tmp_path / 'mim'), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    logs = ''.join(path.read_text() for path in (tmp_path / 'mim').rglob('*.log'))
    for anchor in NAMES[:2]:
        assert f'{anchor}/coco/segm_mAP' in logs + done.stdout + done.stderr
    if command == 'train':
        assert (tmp_path / 'mim' / 'iter_4.pth').is_file()


CHILD = """
import os, sys, torch
from mmengine.config import Config
from mmengine.runner import Runner
import mmsnnet
from mmsnnet.compat import prepare_cpu_launch

torch.set_num_threads(1)
cfg = Config.fromfile(sys.argv[1])
cfg.launcher = 'pytorch'
assert prepare_cpu_launch(cfg)
runner = Runner.from_cfg(cfg)
metrics = {}
call_hook = runner.call_hook
def call(name, **arguments):
    if name == 'after_val_epoch':
        metrics.update(arguments['metrics'])
    call_hook(name, **arguments)
runner.call_hook = call
runner.train()
state = {k: v.clone() for k, v in runner.model.module.state_dict().items()}
torch.save(dict(state=state, metrics=metrics), f'{sys.argv[2]}/{os.environ["RANK"]}.pth')
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_processes_end_with_equal_weights_and_score_together(data, tmp_path):
    toy_config(data, tmp_path / 'run').dump(tmp_path / 'config.py')
    shared = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', CHILD, str(tmp_path / 'config.py'), str(tmp_path)],
            env=child_environment(RANK=str(rank), LOCAL_RANK=str(rank), **shared),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        errors = process.communicate(timeout=600)[1]
        assert process.returncode == 0, errors[-2000:]
    one, two = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    assert all(torch.equal(one['state'][name], two['state'][name]) for name in one['state'])
    assert one['state']['backbone.stitches_fitted']
    for name in NAMES[:2]:
        assert one['metrics'][f'{name}/coco/segm_mAP'] >= 0
    assert one['metrics'] == two['metrics']
