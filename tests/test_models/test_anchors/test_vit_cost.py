"""Costs of ViTs and stitches against what torch traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmsnnet.models import AnchorConfig, StitchedViT, build_anchor
from mmsnnet.models.anchors.vit_cost import block_cost, vit_spec
from tests.builders import ALL_KINDS, random_images, tiny_anchor, tiny_backbone, tiny_vit


@torch.no_grad()
def traced_flops(module: nn.Module, call: Callable[[], Any]) -> int:
    """Multiply-adds of products that torch counts, plus 5 for each element that a norm returns."""
    normed = []
    handles = []
    for part in module.modules():
        if hasattr(part, 'fused_attn'):
            part.fused_attn = False
        if hasattr(part, 'normalized_shape'):
            count = lambda _, __, out: normed.append(5 * out.numel())  # noqa: E731
            handles.append(part.register_forward_hook(count))
    with FlopCounterMode(display=False) as counter:
        call()
    for handle in handles:
        handle.remove()
    return counter.get_total_flops() // 2 + sum(normed)


@pytest.mark.parametrize('kind', ALL_KINDS)
def test_flops_of_every_kind_equal_the_traced_ones(kind):
    anchor = build_anchor(AnchorConfig.parse(tiny_anchor(2, 48, kind)), (64, 64)).eval()
    images = random_images(1, 40, 72)

    def forward() -> None:
        tokens, context = anchor.embed(images), anchor.context((5, 9))
        for index in range(2):
            tokens = anchor.run_block(tokens, index, context)

    assert anchor.spec.flops((40, 72)) == traced_flops(anchor, forward)


@pytest.mark.parametrize('kind', ALL_KINDS)
def test_flops_and_params_of_one_block_equal_what_it_holds(kind):
    block = tiny_vit(2, 48, kind).blocks[1]
    cost = block_cost(block)
    tokens = torch.zeros(1, 65, 48)
    assert cost.flops(65) == traced_flops(block, lambda: block(tokens))
    assert cost.params == sum(p.numel() for p in block.parameters())


@pytest.mark.parametrize('kind', ALL_KINDS)
def test_params_of_the_parts_sum_up_to_the_model(kind):
    anchor = build_anchor(AnchorConfig.parse(tiny_anchor(2, 48, kind)), (64, 64))
    spec = anchor.spec
    parts = spec.embed_params + sum(block.params for block in spec.blocks) + spec.norm_params
    parts += spec.shared_params
    assert parts == sum(p.numel() for p in anchor.parameters())


@pytest.mark.parametrize('kind', ['class token', 'pre-norm', 'no class token'])
def test_shapes_of_the_spec_are_those_of_the_model(kind):
    vit = tiny_vit(3, 48, kind)
    spec = vit_spec(vit, 'X')
    assert (spec.depth, spec.width, spec.patch_size, spec.label) == (3, 48, 8, 'X')
    assert spec.prefix_tokens == (0 if kind == 'no class token' else 1)
    assert spec.num_tokens((64, 64)) == 64 + spec.prefix_tokens


def test_the_embedding_of_a_larger_patch_counts_its_norm():
    config = tiny_anchor(1, 48)
    config['model_kwargs'].update(embed_norm_layer=nn.LayerNorm)
    anchor = build_anchor(AnchorConfig.parse(config), (64, 64)).eval()
    images = random_images(1)
    traced = traced_flops(anchor, lambda: anchor.run_block(anchor.embed(images), 0))
    assert anchor.spec.flops((64, 64)) == traced


@pytest.mark.parametrize('settings', [{}, dict(final_norm=True)])
@pytest.mark.parametrize('name', ['S6', 'L12', 'S2-L8', 'L4-S4', 'L2-S4-L2', 'S1-L4-S3'])
def test_flops_of_a_stitch_equal_the_traced_ones(name, settings):
    backbone = tiny_backbone(lora_rank=0, **settings)
    images = random_images(1)
    with backbone.use_stitch(name):
        assert backbone.costs[name].flops == traced_flops(backbone, lambda: backbone(images))


def test_params_of_a_stitch_equal_those_that_its_backward_reaches():
    backbone = tiny_backbone(lora_rank=0)
    for name in ('S6', 'L12', 'L4-S4', 'S1-L4-S3'):
        backbone.zero_grad(set_to_none=True)
        sum(out.square().mean() for out in backbone.run(random_images(1), name)).backward()
        reached = sum(p.numel() for p in backbone.parameters() if p.grad is not None)
        assert backbone.costs[name].params == reached, name


def test_the_default_backbone_has_the_published_block_costs_and_134_stitches():
    with torch.device('meta'):
        backbone = StitchedViT()
    small, large = backbone.space.anchors
    assert {block.flops(1025) for block in small.blocks} == {2_624_524_800}
    assert {block.flops(1025) for block in large.blocks} == {15_059_660_800}
    assert len(backbone.space) == 134 and backbone.space.names[:2] == ('S12', 'L24')


def test_the_default_costs_follow_from_the_published_ones():
    # Published: 33,522,505,728 and 363,157,291,008 with a head of 920,125,440 FLOPs and lifts at
    # two of the four taps; an inference runs all four.
    with torch.device('meta'):
        costs = StitchedViT().costs
    head, lift = 920_125_440, 1025 * 384 * 1024
    assert costs['S12'].flops == 33_522_505_728 - head + 2 * lift
    assert costs['L24'].flops == 363_157_291_008 - head
