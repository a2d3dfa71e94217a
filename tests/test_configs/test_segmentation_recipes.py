"""The recipes of segmentation: what they say at full size, and one step of each at an eighth."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from mmsnnet.evaluation.cost.model_cost import head_cost, model_costs
from mmsnnet.models import build_sampler, find_stitched_backbone
from tests.segmentors import build
from tests.small_recipes import ROOT, small_recipe

S, B, L = (f'deit3_{size}_patch16_224.fb_in22k_ft_in1k' for size in ('small', 'base', 'large'))
DINOV2 = tuple(f'vit_{size}_patch14_reg4_dinov2.lvd142m' for size in ('small', 'large'))
DINOV3 = tuple(f'vit_{size}_patch16_dinov3.lvd1689m' for size in ('small', 'large'))

#: Name: (anchors, classes, LoRA rank, iterations, stitches, GFLOPs of cheapest and costliest).
#: S, B and L take 33.42, 110.27 and 362.24 GFLOPs at 512 px with their lifts; SETR's heads add
#: 0.92 and 1.01 for 150 and 171 classes, UperNet's 68.2.
RECIPES = {
    'setr_snnetv2_s-l_ade20k': ((S, L), 150, 16, 160_000, 134, 34.3, 363.2),
    'setr_snnetv2_s-l_ade20k_as-released': ((S, L), 150, 16, 160_000, 134, 34.3, 363.2),
    'setr_snnetv2_b-l_ade20k': ((B, L), 150, 4, 160_000, 134, 111.3, 363.2),
    'setr_snnetv2_s-l_coco-stuff10k': ((S, L), 171, 16, 80_000, 134, 34.4, 363.2),
    'setr_snnetv2_b-l_coco-stuff10k': ((B, L), 171, 4, 80_000, 134, 111.4, 363.2),
    'setr_snnetv1_s-l_ade20k': ((S, L), 150, 0, 160_000, 13, 34.3, 363.2),
    'setr_snnetv1_s-l_coco-stuff10k': ((S, L), 171, 0, 80_000, 13, 34.4, 363.2),
    'upernet_snnetv2_ade20k': ((S, L), 150, 16, 160_000, 134, 101.6, 430.4),
    'upernet_snnetv2_s-l_ade20k': ((S, L), 150, 16, 160_000, 134, 101.6, 430.4),
    'upernet_snnetv2_b-l_ade20k': ((B, L), 150, 4, 160_000, 134, 178.5, 430.4),
    'upernet_snnetv2_s-b_ade20k': ((S, B), 150, 16, 160_000, 134, 100.9, 175.0),
    'upernet_snnetv2_s-b-l_ade20k': ((S, B, L), 150, 16, 160_000, 377, 101.6, 430.4),
    'upernet_snnetv2_dinov2-s-l_ade20k': (DINOV2, 150, 16, 160_000, 134, 140.2, 600.0),
    'upernet_snnetv2_dinov3-s-l_ade20k': (DINOV3, 150, 16, 160_000, 134, 101.8, 432.0),
    'upernet_snnetv2_s-l_coco-stuff10k': ((S, L), 171, 16, 80_000, 134, 101.7, 430.5),
    'upernet_snnetv2_b-l_coco-stuff10k': ((B, L), 171, 4, 80_000, 134, 178.6, 430.5),
    'upernet_snnetv2_s-b_coco-stuff10k': ((S, B), 171, 16, 80_000, 134, 101.0, 175.1),
    'upernet_snnetv1_s-l_ade20k': ((S, L), 150, 0, 160_000, 13, 101.6, 430.4),
    'upernet_snnetv1_s-l_coco-stuff10k': ((S, L), 171, 0, 80_000, 13, 101.7, 430.5),
}
#: One recipe of each kind, which runs in every test run.
OF_EACH_KIND = (
    'setr_snnetv2_s-l_ade20k',
    'setr_snnetv1_s-l_coco-stuff10k',
    'upernet_snnetv2_s-l_coco-stuff10k',
    'upernet_snnetv2_s-b_ade20k',
    'upernet_snnetv2_s-b-l_ade20k',
    'upernet_snnetv2_dinov2-s-l_ade20k',
    'upernet_snnetv2_dinov3-s-l_ade20k',
)


@cache
def recipe(name):
    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


@cache
def full_size(name):
    """Model of a recipe at full size, on shapes alone."""
    return build(recipe(name).model.to_dict(), 'meta')


def test_all_recipes_are_known_here():
    files = {path.stem for path in (ROOT / 'configs').glob('*_snnetv*_*.py')}
    ours = {name for name in files if name.split('_')[0] in ('setr', 'upernet')}
    assert ours - {'upernet_snnetv2_rooms'} == {*RECIPES}


@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_builds_at_full_size_with_the_stitches_that_it_names(name):
    anchors, classes, rank, _, stitches, low, high = RECIPES[name]
    model = full_size(name)
    backbone = find_stitched_backbone(model)
    assert tuple(a.config.model_name for a in backbone.anchors.values()) == anchors
    assert len(backbone.space) == stitches
    assert {layer.rank for layer in backbone.stitch_layers.values()} == {rank}
    auxiliary = model.auxiliary_head
    heads = [model.decode_head, *(auxiliary if isinstance(auxiliary, nn.ModuleList)
                                  else [auxiliary])]  # fmt: skip
    assert {head.num_classes for head in heads} == {classes}
    flops = sorted(model_costs(model, backbone.img_size).flops.values())
    assert [round(value / 1e9, 1) for value in (flops[0], flops[-1])] == [low, high]


@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_says_how_long_and_what_it_samples(name):
    _, classes, rank, iterations, stitches, *_ = RECIPES[name]
    config = recipe(name)
    assert config.train_cfg.max_iters == iterations == 10 * config.train_cfg.val_interval
    assert config.default_hooks.checkpoint.interval == config.train_cfg.val_interval
    assert max(part.end for part in config.param_scheduler) == iterations
    assert config.train_dataloader.batch_size == 2
    assert config.find_unused_parameters is True
    assert config.test_evaluator.type == 'IoUMetric'
    assert config.train_dataloader.dataset.type == (
        'ADE20KDataset' if classes == 150 else 'COCOStuffDataset'
    )
    init, sampling = config.custom_hooks
    assert init == dict(type='StitchInitHook', num_images=50)
    sampler = build_sampler(full_size(name).backbone, sampling.sampler)
    kind = 'UniformStitchSampler' if rank == 0 else 'CostBinStitchSampler'
    assert type(sampler).__name__ == kind
    assert len({sampler.sample(step).name for step in range(200)}) > min(stitches, 60) * 0.9


@pytest.mark.parametrize('name', RECIPES)
def test_crops_windows_and_preprocessing_of_a_recipe_agree(name):
    config = recipe(name)
    backbone = full_size(name).backbone
    height, width = backbone.img_size
    assert height == width and height % backbone.patch_size == 0
    assert tuple(config.model.data_preprocessor.size) == (height, width)
    assert config.model.test_cfg.mode == 'slide'
    assert tuple(config.model.test_cfg.crop_size) == (height, width)
    assert config.model.test_cfg.stride[0] == round(2 / 3 * height)
    steps = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    assert tuple(steps['RandomCrop'].crop_size) == (height, width)
    assert tuple(steps['RandomResize'].scale) == (4 * height, height)
    steps = {step.type: step for step in config.test_dataloader.dataset.pipeline}
    assert tuple(steps['Resize'].scale) == (4 * height, height)
    given = config.model.data_preprocessor
    mean, std = ([255 * value for value in part] for part in backbone.normalization)
    assert given.mean == pytest.approx(mean) and given.std == pytest.approx(std)


def test_setr_costs_what_is_published():
    """Published are 33.5 GFLOPs for S with two of the four lifts that it executes."""
    model = full_size('setr_snnetv2_s-l_ade20k')
    assert head_cost(model, 512).flops == 920_125_440
    costs = model_costs(model, 512)
    assert costs['L24'].flops == 363_157_291_008
    assert costs['S12'].flops == 33_522_505_728 + 2 * 1025 * 384 * 1024


def test_the_published_optimizer_is_the_one_that_runs():
    config = recipe('setr_snnetv2_s-l_ade20k')
    model = nn.ModuleDict(
        dict(backbone=nn.Linear(2, 2), decode_head=nn.Linear(2, 2), auxiliary_head=nn.Linear(2, 2))
    )
    optim = build_optim_wrapper(model, config.optim_wrapper)
    assert isinstance(optim.optimizer, torch.optim.SGD)
    rates = {id(g['params'][0]): g['lr'] for g in optim.optimizer.param_groups}
    assert rates[id(model['backbone'].weight)] == 0.01
    assert rates[id(model['decode_head'].weight)] == rates[id(model['auxiliary_head'].bias)] == 0.1
    settings = {(g['momentum'], g['weight_decay']) for g in optim.optimizer.param_groups}
    assert settings == {(0.9, 0.0)}


def test_the_released_optimizer_has_one_learning_rate_and_weight_decay():
    config = recipe('setr_snnetv2_s-l_ade20k_as-released')
    optim = build_optim_wrapper(nn.Linear(2, 2), config.optim_wrapper)
    (group,) = optim.optimizer.param_groups
    assert (group['lr'], group['momentum'], group['weight_decay']) == (0.01, 0.9, 5e-4)


def test_upernet_lets_learning_rates_fall_by_a_twentieth_a_block():
    config = recipe('upernet_snnetv2_b-l_coco-stuff10k')
    optim = build_optim_wrapper(full_size('upernet_snnetv2_b-l_coco-stuff10k'),
                                config.optim_wrapper)  # fmt: skip
    rates = sorted({group['lr'] for group in optim.optimizer.param_groups})
    assert rates == pytest.approx([6e-5 * 0.95**power for power in range(25, -1, -1)])


@pytest.mark.parametrize(
    'name',
    [n if n in OF_EACH_KIND else pytest.param(n, marks=pytest.mark.slow) for n in RECIPES],
)
def test_a_recipe_trains_and_tests_on_rooms(name, rooms, tmp_path):
    with DefaultScope.overwrite_default_scope('mmseg'):
        runner = Runner.from_cfg(small_recipe(f'{name}.py', rooms, tmp_path))
        backbone = find_stitched_backbone(runner.model)
        assert len(backbone.anchors) == len(RECIPES[name][0])
        before = {n: p.detach().clone() for n, p in runner.model.named_parameters()}
        runner.train()
        assert runner.iter == 1 and backbone.is_fitted
        after = dict(runner.model.named_parameters())
        moved = {n for n in before if not torch.equal(before[n], after[n])}
        assert any(n.startswith('decode_head.') for n in moved)
        assert any(n.startswith('backbone.anchors.') for n in moved)
        metrics = runner.test()
    anchors = [stitch.name for stitch in backbone.space.anchor_stitches]
    assert all(0 <= metrics[f'{anchor}/mIoU'] <= 100 for anchor in anchors)
    assert 0 <= metrics['pareto/hypervolume'] <= 1


@pytest.mark.parametrize('name', RECIPES)
def test_taps_are_normed_where_the_anchors_were_evaluated_so(name):
    """DINOv2 and DINOv3 feed dense heads behind their final norm."""
    assert find_stitched_backbone(full_size(name)).space.normed_taps == ('dinov' in name)
