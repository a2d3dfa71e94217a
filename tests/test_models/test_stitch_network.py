"""Routes through the network against loops over timm's blocks written by hand."""

from __future__ import annotations

import re
from itertools import accumulate

import pytest
import torch
from torch import Tensor

from mmsnnet.models import StitchedViT
from tests.builders import KINDS, random_images, tiny_anchor, tiny_backbone, tiny_vit
from tests.by_hand import timm_block, timm_tokens


def affine(backbone: StitchedViT, name: str, tokens: Tensor) -> Tensor:
    """What a stitch layer is said to compute, from its raw parameters."""
    layer = backbone.stitch_layers[name]
    out = tokens @ layer.weight.T + layer.bias
    if hasattr(layer, 'lora_a'):
        alpha, rank = 1.0, layer.lora_a.shape[0]
        out = out + (alpha / rank) * (tokens @ layer.lora_a.T) @ layer.lora_b.T
    return out


def by_hand(backbone: StitchedViT, name: str, images: Tensor) -> list[Tensor]:
    """Maps of a route through anchors whose depths divide the largest one's."""
    anchors = {label: anchor.vit for label, anchor in backbone.anchors.items()}
    largest = list(anchors)[-1]
    depth, scale = len(anchors[largest].blocks), {}
    for label, vit in anchors.items():
        scale[label] = depth // len(vit.blocks)  # blocks of the largest beside one of this
    segments = re.findall(r'([A-Z])(\d+)', name)
    spans = [int(count) * scale[label] for label, count in segments]
    stops = list(accumulate(spans))
    assert stops[-1] == depth

    rows, columns = images.shape[2] // 8, images.shape[3] // 8
    tokens, found = None, {}
    for (label, count), stop, span in zip(segments, stops, spans):
        vit, start = anchors[label], stop - span
        if tokens is None:
            tokens = timm_tokens(vit, images)
        else:
            here, there = start // scale[before], start // scale[label]  # noqa: F821
            tokens = affine(backbone, f'{before}{here}_to_{label}{there}', tokens)  # noqa: F821
        for index in range(start // scale[label], start // scale[label] + int(count)):
            tokens = timm_block(vit, tokens, index, (rows, columns))
            end = (index + 1) * scale[label]
            for position, tap in enumerate(backbone.space.taps):
                if index * scale[label] <= tap < end:
                    assert position not in found
                    found[position] = tokens
                    if label != largest:
                        lift = f'{label}{index + 1}_to_{largest}{end}'
                        found[position] = affine(backbone, lift, tokens)
        before = label  # noqa: F841
    prefix = anchors[largest].num_prefix_tokens
    return [
        found[position][:, prefix:].transpose(1, 2).unflatten(2, (rows, columns))
        for position in range(len(backbone.space.taps))
    ]


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_taps_of_the_costliest_anchor_equal_those_of_timm_bit_for_bit(kind):
    backbone = tiny_backbone(kind=kind, out_indices=(0, 4, 7, 11))
    vit = tiny_vit(12, 96, kind)
    vit.load_state_dict(backbone.anchors['L'].vit.state_dict(), strict=False)
    images = random_images(2, 48, 80)
    theirs = vit.forward_intermediates(images, (0, 4, 7, 11), intermediates_only=True)
    ours = backbone.run(images, 'L12')
    assert len(ours) == 4 and all(torch.equal(a, b) for a, b in zip(ours, theirs))


@torch.no_grad()
@pytest.mark.parametrize('norm', [False, True])
def test_taps_of_the_small_anchor_before_the_lift_equal_those_of_timm(norm):
    backbone = tiny_backbone(out_indices=(1, 6, 11), final_norm=norm)
    vit = tiny_vit(6, 48)
    vit.load_state_dict(backbone.anchors['S'].vit.state_dict())
    images = random_images()
    theirs = vit.forward_intermediates(images, (0, 3, 5), norm=norm, intermediates_only=True)
    lifts = [('lift_' if norm else '') + name for name in ('S1_to_L2', 'S4_to_L8', 'S6_to_L12')]
    for ours, features, lift in zip(backbone.run(images, 'S6'), theirs, lifts):
        layer = backbone.stitch_layers[lift]
        lifted = layer(features.flatten(2).transpose(1, 2))
        assert torch.equal(ours, lifted.transpose(1, 2).unflatten(2, (8, 8)))


@torch.no_grad()
def test_one_anchor_alone_is_a_plain_vit():
    backbone = tiny_backbone([(6, 48)], out_indices=(2, 5), final_norm=True)
    vit = tiny_vit(6, 48)
    vit.load_state_dict(backbone.anchors['A'].vit.state_dict())
    images = random_images()
    theirs = vit.forward_intermediates(images, (2, 5), norm=True, intermediates_only=True)
    assert not backbone.stitch_layers and backbone.is_fitted and len(backbone.space) == 1
    assert all(torch.equal(a, b) for a, b in zip(backbone(images), theirs))


@torch.no_grad()
@pytest.mark.parametrize(
    'kinds',
    [
        ('DINOv3', 'DINOv3'),
        ('BEiT', 'shared table'),
        ('class token', 'mixed rotary'),
        ('EVA-02', 'published'),
    ],
)
def test_every_route_of_anchors_of_other_classes_equals_the_loop_by_hand(kinds):
    anchors = [tiny_anchor(depth, 48, kind) for depth, kind in zip((3, 6), kinds)]
    backbone = tiny_backbone(anchors=anchors, out_indices=(0, 3, 5))
    assert len(backbone.space) == 8 and backbone.space.anchors[0].depth == 3
    images = random_images(1)
    for name in backbone.space.names:
        for ours, theirs in zip(backbone.run(images, name), by_hand(backbone, name, images)):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, msg=name)


@torch.no_grad()
def test_every_route_of_two_anchors_equals_the_loop_by_hand():
    backbone = tiny_backbone(out_indices=(0, 3, 6, 11))
    images = random_images(1, 48, 64)
    assert len(backbone.space.families) == 6
    for name in backbone.space.names:
        for ours, theirs in zip(backbone.run(images, name), by_hand(backbone, name, images)):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, msg=name)


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_routes_of_every_kind_of_anchor_equal_the_loop_by_hand(kind):
    backbone = tiny_backbone(((3, 48), (6, 96)), kind, out_indices=(2, 5), lora_rank=0)
    images = random_images(1)
    for name in ('S1-L4', 'L2-S2', 'L2-S1-L2', 'S1-L2-S1'):
        for ours, theirs in zip(backbone.run(images, name), by_hand(backbone, name, images)):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, msg=name)


@torch.no_grad()
@pytest.mark.parametrize('pairs', ['neighbors', 'all'])
def test_every_route_of_three_anchors_equals_the_loop_by_hand(pairs):
    scheme = dict(max_crossings=2, pairs=pairs)
    shape = ((2, 32), (4, 48), (8, 96))
    backbone = tiny_backbone(shape, out_indices=(0, 3, 7), scheme=scheme)
    images = random_images(1, 32, 32)
    assert ('S-L' in backbone.space.families) == (pairs == 'all')
    assert {'S-M-L', 'L-M-S', 'M-L-M'} <= set(backbone.space.families)
    for name in backbone.space.names:
        for ours, theirs in zip(backbone.run(images, name), by_hand(backbone, name, images)):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, msg=name)


@torch.no_grad()
def test_a_route_of_anchors_whose_depths_do_not_divide_equals_the_loop_by_hand():
    # Boundaries 1, 2, 3 of the small anchor face 1.5, 3, 4.5 of the large: 2, 3, 5, half up.
    backbone = tiny_backbone(((4, 48), (6, 96)), out_indices=(1, 4))
    small, large = backbone.anchors['S'].vit, backbone.anchors['L'].vit
    images = random_images(1)
    tokens = large._pos_embed(large.patch_embed(images))
    for index in (0, 1):
        tokens = large.blocks[index](tokens)
    first = tokens
    tokens = affine(backbone, 'L2_to_S1', tokens)
    for index in (1, 2):
        tokens = small.blocks[index](tokens)
    second = affine(backbone, 'S3_to_L5', tokens)
    for ours, theirs in zip(backbone.run(images, 'L2-S2-L1'), (first, second)):
        expected = theirs[:, 1:].transpose(1, 2).unflatten(2, (8, 8))
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_equal_anchors_can_be_stitched_to_each_other():
    backbone = tiny_backbone(((4, 48), (4, 48)), out_indices=(1, 3))
    images = random_images(1)
    assert set(backbone.space.families) == {'S', 'L', 'S-L', 'L-S', 'L-S-L', 'S-L-S'}
    for name in ('S1-L3', 'L1-S2-L1', 'S4'):
        for ours, theirs in zip(backbone.run(images, name), by_hand(backbone, name, images)):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, msg=name)


@torch.no_grad()
def test_the_order_in_which_anchors_are_given_does_not_matter():
    small, large = tiny_anchor(6, 48), tiny_anchor(12, 96)
    first = tiny_backbone(anchors=[small, large])
    second = tiny_backbone(anchors=[large, small])
    second.load_state_dict(first.state_dict())
    images = random_images(1)
    assert second.space.names == first.space.names
    for name in ('S6', 'L12', 'S2-L8'):
        assert torch.equal(first.run(images, name)[1], second.run(images, name)[1])


@torch.no_grad()
def test_the_class_token_is_lifted_like_the_map():
    backbone = tiny_backbone(output_cls_token=True, out_indices=(5, 11))
    vit = backbone.anchors['S'].vit
    images = random_images(1)
    taps = vit.forward_intermediates(
        images, (2, 5), return_prefix_tokens=True, intermediates_only=True
    )
    for (_, token), (_, prefix), name in zip(
        backbone.run(images, 'S6'), taps, ('S3_to_L6', 'S6_to_L12')
    ):
        expected = affine(backbone, name, prefix[:, 0])
        torch.testing.assert_close(token, expected, rtol=1e-4, atol=1e-5)
