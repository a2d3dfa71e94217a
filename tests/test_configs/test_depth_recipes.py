"""The recipes of depth: what they say at full size, and real runs of the small one on rooms."""

from __future__ import annotations

import json
from math import ceil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from rooms import RoomsSpec, write_rooms

import mmsnnet
from mmsnnet.evaluation.cost.model_cost import head_cost, model_costs
from mmsnnet.models import build_sampler
from tests.segmentors import build
from tests.test_stitching.published_flops import COLUMNS, ROWS
from tests.toy_segmentation import losses, weights
from tools.test_all_stitches import main

FULL_SIZE = {
    'dpt_snnetv2_s-l_nyuv2': ('nyuv2_s_l', ('small', 'large'), 16),
    'dpt_snnetv2_b-l_nyuv2': ('nyuv2_b_l', ('base', 'large'), 4),
}
#: Of the published NYUv2 models at 480 x 640, the same under every stitch.
PUBLISHED_HEAD = 167_782_809_600
METRICS = {'d1', 'd2', 'd3', 'abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'log10', 'silog'}
SIDE = 64


def recipe(name):
    return Config.fromfile(mmsnnet.config_path(f'{name}.py'))


@pytest.fixture(scope='module', params=FULL_SIZE)
def full_size(request):
    """Name of a recipe and its model on the meta device."""
    return request.param, build(recipe(request.param).model, device='meta')


def test_every_stitch_costs_its_published_flops_to_the_digit(full_size):
    name, model = full_size
    column = FULL_SIZE[name][0]
    published = {row[0]: row[COLUMNS.index(column)] for row in ROWS}
    costs = model_costs(model, (480, 640))
    assert costs.constant.flops == PUBLISHED_HEAD
    ours = {stitch.published_id: costs[stitch].flops for stitch in model.backbone.space}
    assert len(ours) == 134 and ours == published


def test_what_is_resized_at_the_end_is_counted_at_its_own_size(full_size):
    _, model = full_size
    # A grid of 30 x 40 whatever the last patches hold; only the last resizing differs.
    difference = PUBLISHED_HEAD - head_cost(model, (475, 630)).flops
    assert difference == 4 * (480 * 640 - 475 * 630)


def test_anchors_rank_and_taps_are_the_published_ones(full_size):
    name, model = full_size
    _, anchors, rank = FULL_SIZE[name]
    backbone = model.backbone
    names = [anchor.config.model_name for anchor in backbone.anchors.values()]
    assert names == [f'deit3_{size}_patch16_224.fb_in22k_ft_in1k' for size in anchors]
    assert backbone.space.taps == (4, 11, 17, 23) and backbone.img_size == (480, 640)
    assert backbone.stitch_layer(backbone.space.layers[0]).lora_a.shape[0] == rank
    head = model.decode_head
    assert (head.min_depth, head.max_depth, head.needs_cls_token) == (1e-3, 10.0, True)


def test_iterations_are_24_epochs_of_24231_pictures():
    config = recipe('dpt_snnetv2_s-l_nyuv2')
    processes, images = 8, config.train_dataloader.batch_size
    total = 24 * ceil(ceil(24_231 / processes) / images)
    assert config.train_cfg.max_iters == total
    assert {item.end for item in config.param_scheduler} == {total, total * 3 // 10}


def test_stitches_are_sampled_in_bins_of_10_gflops(full_size):
    name, model = full_size
    hook = recipe(name).custom_hooks[1]
    bins = build_sampler(model.backbone, hook.sampler).bins
    flops = model.backbone.costs.flops
    assert len(bins) == 13  # as many as in the published run, and none is empty
    for stitches in bins:
        values = [flops[getattr(stitch, 'name', stitch)] for stitch in stitches]
        assert max(values) - min(values) <= 10e9


@pytest.fixture(scope='module')
def depth_rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp('depth_rooms')
    write_rooms(folder, RoomsSpec(4, 3, (SIDE, SIDE), layouts=('nyu',)), workers=1)
    return folder


def small_config(rooms, work_dir, **settings):
    """The rooms recipe for three iterations at 64 px, with anchors of random weights."""
    config = recipe('dpt_snnetv2_rooms')
    for anchor in config.model.backbone.anchors:
        anchor.checkpoint = None
    size = (SIDE, SIDE)
    config.merge_from_dict({
        'model.backbone.img_size': size,
        'model.data_preprocessor.size': size,
        'model.test_cfg.crop_size': size,
        'model.test_cfg.stride': size,
        'model.decode_head.loss_decode.warm_up_iters': 2,
        'train_cfg.max_iters': 3,
        'train_cfg.val_interval': 3,
        'default_hooks.checkpoint.interval': 2,
        'default_hooks.logger.interval': 1,
        'randomness': dict(seed=3),
        'log_level': 'WARNING',
        'work_dir': str(work_dir),
        'experiment_name': f'{work_dir.parent.name}_{work_dir.name}',
    })  # fmt: skip
    for split in ('train', 'val', 'test'):
        config[f'{split}_dataloader'].dataset.data_root = str(rooms)
        config[f'{split}_dataloader'].batch_size = 2
    for scheduler in config.param_scheduler:
        scheduler.end = {2000: 3, 600: 1}[scheduler.end]
        scheduler.begin = min(scheduler.get('begin', 0), 1)
    config.custom_hooks[0].update(num_images=4, batch_size=2)
    config.merge_from_dict(settings)
    return config


class Trained:
    """A run of the small recipe from its start to its end."""

    def __init__(self, rooms, folder):
        self.rooms, self.folder = rooms, folder
        self.runner = Runner.from_cfg(small_config(rooms, folder / 'whole'))
        self.before = weights(self.runner)
        self.runner.train()
        self.halfway = str(folder / 'whole' / 'iter_2.pth')
        self.checkpoint = str(folder / 'whole' / 'iter_3.pth')


@pytest.fixture(scope='module')
def trained(depth_rooms, tmp_path_factory):
    return Trained(depth_rooms, tmp_path_factory.mktemp('depth_run'))


def test_a_run_trains_head_and_backbone(trained):
    before, after = trained.before, weights(trained.runner)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    for part in ('decode_head.conv_seg.0', 'decode_head.reassemble', 'backbone.anchors.L.vit'):
        assert any(name.startswith(part) for name in changed), part
    assert all(np.isfinite(losses(trained.runner)))


def test_validation_scores_the_anchors_with_all_metrics_of_depth(trained):
    hub = trained.runner.message_hub
    names = {name[4:] for name in hub.log_scalars if name.startswith('val/')}
    assert {f'{anchor}/{metric}' for anchor in ('S6', 'L12') for metric in METRICS} <= names

    def value(name):
        return hub.get_scalar(f'val/{name}').current()

    ends = [value('S6/rmse'), value('L12/rmse')]
    assert value('best/rmse') == min(ends) and value('worst/rmse') == max(ends)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(trained):
    work_dir = trained.folder / 'resumed'
    config = small_config(trained.rooms, work_dir, resume=True, load_from=trained.halfway)
    resumed = Runner.from_cfg(config)
    resumed.train()
    assert losses(resumed) == losses(trained.runner)
    expected = weights(trained.runner)
    assert int(expected['decode_head.loss_decode.training_steps']) == 3
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed).items())


def rmse_by_hand(runner, stitch):
    """Mean over pictures of the error of the mean of picture and mirror image, in metres."""
    model, errors = runner.model.eval(), []
    with torch.no_grad(), model.backbone.use_stitch(stitch):
        for item in runner.val_dataloader.dataset:
            pixels = item['inputs'].float()[[2, 1, 0]]  # files are read as BGR
            mean = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
            std = torch.tensor([58.395, 57.12, 57.375])[:, None, None]
            image = ((pixels - mean) / std)[None]
            both = [model(image), model(image.flip(3)).flip(3)]
            depth = sum(one.clamp(1e-3, 10) for one in both)[0] / 2
            truth = item['data_samples'].gt_depth_map.data
            known = (truth > 1e-3) & (truth < 10)
            errors.append(float((depth - truth)[known].square().mean().sqrt()))
    return np.mean(errors)


def test_the_sweep_records_every_metric_and_cost_of_each_stitch(trained, tmp_path, capsys):
    config = tmp_path / 'config.py'
    small_config(trained.rooms, tmp_path / 'log').dump(config)
    names = ['S6', 'S2-L8', 'L6-S3', 'L12']
    arguments = [str(config), trained.checkpoint, '--out', str(tmp_path / 'out')]
    assert main([*arguments, '--stitches', ','.join(names)]) == 0
    lines = (tmp_path / 'out' / 'stitches.jsonl').read_text().splitlines()
    records = {record['name']: record for record in map(json.loads, lines)}
    assert set(records) == set(names)
    costs = model_costs(trained.runner.model, SIDE)
    for name, record in records.items():
        assert set(record['metrics']) == METRICS and record['flops'] == costs[name].flops
        expected = rmse_by_hand(trained.runner, name)
        assert record['metrics']['rmse'] == pytest.approx(expected, rel=1e-4)
    best = min(records.values(), key=lambda record: record['metrics']['rmse'])
    front = json.loads((tmp_path / 'out' / 'pareto.json').read_text())
    assert best['name'] in json.dumps(front)
    assert best['name'] in capsys.readouterr().out


def test_a_depth_head_without_class_tokens_is_refused_in_one_line(depth_rooms, tmp_path):
    config = small_config(depth_rooms, tmp_path / 'run')
    config.model.backbone.output_cls_token = False
    with DefaultScope.overwrite_default_scope('mmseg'):
        runner = Runner.from_cfg(config)
        with pytest.raises(ValueError, match=r'put backbone\.output_cls_token=True\.$'):
            runner.train()
