"""The recipes of classification: what they say at full size, and one step of each in small."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from PIL import Image

from tests.classifiers import NUM_CLASSES, build, write_pictures
from tests.small_recipes import ROOT, SMALL, small_anchor
from tests.test_stitching.published_imagenet_flops import ROWS

#: Name: (labels, LoRA rank, stitches, GFLOPs of cheapest and costliest).
RECIPES = {
    'cls_snnetv2_s-l_in1k': (('S', 'L'), 64, 134, 4.608, 61.604),
    'cls_snnetv2_b-l_in1k': (('B', 'L'), 64, 134, 17.583, 61.604),
    'cls_snnetv2_s-b_in1k': (('S', 'B'), 64, 134, 4.608, 17.583),
    'cls_snnetv1_s-l_in1k': (('S', 'L'), 0, 13, 4.608, 61.604),
}
DROP_PATH = dict(S=0.05, B=0.15, L=0.4)


@cache
def recipe(name):
    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


@cache
def full_size(name):
    """Model of a recipe at full size, on shapes alone."""
    pytest.importorskip('mmpretrain', reason='recipes of classification need mmpretrain')
    with torch.device('meta'):
        return build(recipe(name).model.to_dict())


def test_all_recipes_are_known_here():
    assert {path.stem for path in (ROOT / 'configs').glob('cls_*in1k.py')} == {*RECIPES}


@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_loads_without_mmpretrain_and_says_the_published_schedule(name):
    config = recipe(name)
    assert config.optim_wrapper.optimizer == dict(type='Lamb', lr=3e-5, weight_decay=0.02)
    warm_up, cosine = config.param_scheduler
    assert warm_up.start_factor * 3e-5 == pytest.approx(1e-7) and warm_up.end == 5
    assert (cosine.begin, cosine.end, cosine.eta_min) == (5, 50, 1e-5)
    assert config.train_dataloader.batch_size * 8 == 512
    assert config.find_unused_parameters and config.custom_hooks[0].num_images == 100
    assert config.custom_hooks[0].classifiers == 'pretrained'
    assert config.custom_hooks[1].sampler.per_rank


@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_builds_at_full_size_with_the_stitches_that_it_names(name):
    from mmsnnet.evaluation.cost.model_cost import model_costs

    labels, rank, stitches, low, high = RECIPES[name]
    model = full_size(name)
    backbone = model.backbone
    assert backbone.space.labels == labels and len(backbone.space) == stitches
    assert {layer.rank for layer in backbone.stitch_layers.values()} == {rank}
    flops = sorted(model_costs(model, 224).flops.values())
    assert (round(flops[0] / 1e9, 3), round(flops[-1] / 1e9, 3)) == (low, high)


@pytest.mark.parametrize('name', RECIPES)
def test_drop_path_is_constant_over_depth(name):
    for label, anchor in full_size(name).backbone.anchors.items():
        rates = {getattr(block.drop_path1, 'drop_prob', 0.0) for block in anchor.vit.blocks}
        assert rates == {DROP_PATH[label]}


def test_the_whole_model_costs_the_published_figures_to_the_digit():
    from mmsnnet.evaluation.cost.model_cost import model_costs

    model = full_size('cls_snnetv2_s-l_in1k')
    costs = model_costs(model, 224)
    found = {stitch.published_id: costs[stitch].flops for stitch in model.backbone.space}
    assert found == dict(ROWS)


def test_the_sampler_has_the_thirteen_bins_of_one_gflop():
    from mmsnnet.models import build_sampler

    backbone = full_size('cls_snnetv2_s-l_in1k').backbone
    sampler = build_sampler(backbone, recipe('cls_snnetv2_s-l_in1k').custom_hooks[1].sampler)
    assert len(sampler.bins) == 13


def test_tokens_and_norms_are_without_weight_decay():
    name = 'cls_snnetv2_s-l_in1k'
    model = full_size(name)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        wrapper = build_optim_wrapper(model, recipe(name).optim_wrapper.to_dict())
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    decays = {
        names[id(parameter)]: group['weight_decay']
        for group in wrapper.param_groups
        for parameter in group['params']
        if id(parameter) in names  # the last group holds a placeholder of MMEngine
    }
    assert decays['backbone.anchors.S.vit.cls_token'] == 0
    assert decays['backbone.anchors.L.vit.norm.weight'] == 0
    assert decays['backbone.anchors.L.vit.blocks.3.attn.qkv.weight'] == 0.02


def test_the_recipe_of_the_rooms_knows_their_kinds_and_has_32_stitches():
    from rooms.objects import OBJECT_KINDS

    from mmsnnet.evaluation.cost.model_cost import model_costs

    config = recipe('cls_snnetv2_rooms')
    assert config.classes == OBJECT_KINDS
    flops = sorted(model_costs(full_size('cls_snnetv2_rooms'), 48).flops.values())
    assert len(flops) == 32
    # By hand for S6: patches, blocks, norm and classifier of 36 patches and a class token.
    block = 12 * 37 * 24**2 + 2 * 37**2 * 24 + 10 * 37 * 24
    assert flops[0] == 36 * 192 * 24 + 6 * block + 5 * 37 * 24 + 19 * 24


@pytest.mark.parametrize('size', [(260, 300), (300, 230), (100, 150)])
def test_training_cuts_a_window_out_of_the_resized_picture_with_four_reflected_pixels(size):
    pytest.importorskip('mmpretrain', reason='recipes of classification need mmpretrain')
    from mmpretrain.registry import TRANSFORMS

    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    steps = recipe('cls_snnetv2_s-l_in1k').train_dataloader.dataset.pipeline[1:5]
    found = dict(img=image)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        transforms = [TRANSFORMS.build(step) for step in steps]
    for transform in transforms:
        found = transform(found)
    height, width = (224 * side // min(size) for side in size)
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.BICUBIC))
    padded = np.pad(resized, ((4, 4), (4, 4), (0, 0)), 'reflect')
    windows = np.lib.stride_tricks.sliding_window_view(padded, (224, 224), axis=(0, 1))
    assert any(
        np.array_equal(window, found['img'].transpose(2, 0, 1))
        for row in windows
        for window in row
    )


def small(name, folder):
    """A recipe with small anchors and images of 64 pixels, for one iteration on toy pictures."""
    config = recipe(name).to_dict()
    backbone = config['model']['backbone']
    backbone.update(
        anchors=[small_anchor(anchor) for anchor in backbone['anchors']], img_size=64
    )
    depths = [anchor['model_kwargs']['depth'] for anchor in backbone['anchors']]
    widths = [anchor['model_kwargs']['embed_dim'] for anchor in backbone['anchors']]
    backbone['out_indices'] = (max(depths) - 1,)
    head = config['model']['head']
    head.update(num_classes=NUM_CLASSES, in_channels=dict(zip(head['in_channels'], widths)))
    config['data_preprocessor']['num_classes'] = NUM_CLASSES
    for split in ('train', 'val', 'test'):
        loader = config[f'{split}_dataloader']
        pipeline = _of_64_pixels(loader['dataset']['pipeline'])
        loader.update(
            batch_size=4, num_workers=0, persistent_workers=False,
            dataset=dict(
                type='CustomDataset', data_root=str(folder), with_label=True, pipeline=pipeline,
                data_prefix='train' if split == 'train' else 'val',
            ),
        )  # fmt: skip
    config['custom_hooks'][0]['classifiers'] = 'auto'  # small anchors have no weights
    config.update(
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1),
        param_scheduler=None,
        work_dir=str(folder / 'work'),
        log_level='WARNING',
        randomness=dict(seed=0),
    )
    return Config(config)


def _of_64_pixels(steps):
    return [
        {key: 64 if value == 224 else value for key, value in step.items()} for step in steps
    ]


@pytest.mark.parametrize('name', ['cls_snnetv2_s-b_in1k', 'cls_snnetv1_s-l_in1k'])
def test_a_small_version_trains_a_step_and_is_validated(tmp_path, name):
    pytest.importorskip('mmpretrain', reason='recipes of classification need mmpretrain')
    runner = Runner.from_cfg(small(name, write_pictures(tmp_path, 8, 5)))
    runner.train()
    scores = runner.message_hub.log_scalars
    label = RECIPES[name][0][0]
    depth = SMALL[dict(S='small', B='base')[label]][0]
    assert 0 <= scores[f'val/{label}{depth}/accuracy/top1'].current() <= 100
