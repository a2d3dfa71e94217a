"""A backbone of one stitch against the stitched one that it was taken from."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmsnnet.models.fixed_stitched_vit import FixedStitchedViT
from mmsnnet.models.stitched_vit import StitchedViT
from tests.builders import ALL_KINDS, random_images, tiny_anchor, tiny_backbone

SHAPE = ((3, 32), (6, 48))
TAPS = (2, 5)


def state_of(stitched: StitchedViT, fixed: FixedStitchedViT) -> dict[str, Tensor]:
    """Weights of the fixed one, LoRA merged by hand."""
    state = stitched.state_dict()
    found = {}
    for key in fixed.state_dict():
        found[key] = state[key]
        if key.startswith('stitch_layers.') and key.endswith('.weight'):
            stem = key.removesuffix('.weight')
            layer = stitched.stitch_layers[stem.split('.')[1]]
            update = state[f'{stem}.lora_b'] @ state[f'{stem}.lora_a']
            found[key] = state[key] + layer.scale * update
    return found


def pair(stitch: str, kind: str = 'class token', **settings: object):
    """A stitched backbone and the fixed one with its weights."""
    stitched = tiny_backbone(SHAPE, kind, out_indices=TAPS, **settings)
    anchors = [tiny_anchor(*shape, kind=kind) for shape in SHAPE]
    fixed = FixedStitchedViT(anchors, stitch, img_size=64, out_indices=TAPS, **settings)
    fixed.load_state_dict(state_of(stitched, fixed), strict=True)
    return stitched, fixed.eval()


def num_params(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize('kind', ALL_KINDS)
@pytest.mark.parametrize('stitch', ['S3', 'S1-L2-S1', 'L2-S2'])
@torch.no_grad()
def test_features_are_those_of_the_stitch_for_every_kind_of_anchor(kind: str, stitch: str) -> None:
    stitched, fixed = pair(stitch, kind)
    images = random_images(2, 64, 80)
    for mine, theirs in zip(fixed(images), stitched.run(images, stitch)):
        scale = theirs.abs().max()
        torch.testing.assert_close(mine / scale, theirs / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize('kind', ALL_KINDS)
@pytest.mark.parametrize('stitch', ['S3', 'L6', 'S1-L4', 'L2-S1-L2'])
def test_it_holds_the_parameters_that_the_costs_count(kind: str, stitch: str) -> None:
    stitched, fixed = pair(stitch, kind)
    assert num_params(fixed) == stitched.costs[stitch].params == fixed.cost.params


def test_the_small_anchor_carries_nothing_of_the_large_one() -> None:
    fixed = pair('S3')[1]
    assert list(fixed.anchors) == ['S']
    assert not [key for key in fixed.state_dict() if '.L.' in key]


def flattened(features: tuple) -> list[Tensor]:
    """Maps, and class tokens where there are some, in one list."""
    return [one for pair in features for one in (pair if isinstance(pair, tuple) else (pair,))]


@pytest.mark.parametrize(('stitch', 'settings'), [
    ('S1-L2-S1', dict(final_norm=True)),
    ('S1-L2-S1', dict(output_cls_token=True)),
    ('S1-L2-S1', dict(window_size=4, global_blocks=[2, 5])),
    ('S1-L2-S1', dict(scheme=dict(max_crossings=3))),
    ('S1-L4', dict(scheme='one_way')),
], ids=['final norm', 'class token', 'windows', 'three crossings', 'one way'])  # fmt: skip
@torch.no_grad()
def test_it_takes_the_settings_of_the_stitched_one(stitch: str, settings: dict) -> None:
    stitched, fixed = pair(stitch, **settings)
    images = random_images()
    own, theirs = flattened(fixed(images)), flattened(stitched.run(images, stitch))
    assert len(own) == len(theirs)
    for mine, its in zip(own, theirs):
        scale = its.abs().max()
        torch.testing.assert_close(mine / scale, its / scale, rtol=0, atol=1e-5)


@torch.no_grad()
def test_three_anchors_cross_as_in_the_stitched_one() -> None:
    shape = ((2, 16), (4, 32), (8, 48))
    settings = dict(img_size=64, out_indices=(3, 7))
    stitched = tiny_backbone(shape, **settings)
    anchors = [tiny_anchor(*one) for one in shape]
    images = random_images()
    for name in [stitch.name for stitch in stitched.space if len(stitch.route.segments) == 3][:3]:
        fixed = FixedStitchedViT(anchors, name, **settings)
        fixed.load_state_dict(state_of(stitched, fixed), strict=True)
        for mine, theirs in zip(fixed.eval()(images), stitched.run(images, name)):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_all_its_weights_learn() -> None:
    fixed = pair('S1-L4')[1].train()
    sum(one.square().mean() for one in fixed(random_images())).backward()
    assert not [name for name, one in fixed.named_parameters()
                if one.requires_grad and one.grad is None]


def test_an_unknown_stitch_is_named() -> None:
    anchors = [tiny_anchor(*shape) for shape in SHAPE]
    with pytest.raises(ValueError, match="Unknown stitch 'S9'"):
        FixedStitchedViT(anchors, 'S9', img_size=64, out_indices=TAPS)


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r'\(B, 3, H, W\), got \(1, 4, 64, 64\)'):
        pair('L2-S2')[1](torch.zeros(1, 4, 64, 64))
