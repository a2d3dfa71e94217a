"""The analytic cost of windowed anchors against what is executed."""

from __future__ import annotations

import pytest
import torch

from mmsnnet.evaluation.cost.flop_counter import FlopCounter
from mmsnnet.models.host.meta_call import meta_call
from mmsnnet.stitching import BlockCost
from tests.builders import tiny_backbone


@pytest.mark.parametrize('kind', ['class token', 'registers', 'qk-norm', 'pre-norm', 'inner norms'])
@pytest.mark.parametrize('size', [(64, 64), (72, 40)])
def test_costs_of_windowed_stitches_are_what_runs(kind, size):
    backbone = tiny_backbone(
        ((2, 32), (4, 48)), kind=kind, window_size=3, global_blocks=(1,), out_indices=(1, 3),
        img_size=size, final_norm=kind == 'qk-norm', lora_rank=0,
    )  # fmt: skip
    costs = backbone.costs
    for stitch in backbone.space:
        with FlopCounter() as counter:
            images = torch.empty(1, 3, *size, device='meta')
            meta_call([backbone], lambda x, stitch=stitch: backbone.run(x, stitch), images)
        assert counter.total == costs[stitch].flops, stitch.name


@pytest.mark.parametrize('kind', ['class token', 'registers', 'no_embed_class', 'no class token'])
def test_parameters_of_windowed_anchors_are_those_that_can_matter(kind):
    """Where a gradient is not zero: class and register tokens and their positions have none."""
    backbone = tiny_backbone(
        ((2, 32), (4, 48)), kind=kind, window_size=3, global_blocks=(1,), out_indices=(3,),
        lora_rank=0,
    )  # fmt: skip
    for name in ('S2', 'L4', 'S1-L2'):
        backbone.zero_grad()
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(2, 3, 64, 64, generator=generator)
        sum(item.square().sum() for item in backbone.run(images, name)).backward()
        used = 0
        for key, weight in backbone.named_parameters():
            if weight.grad is None or not weight.grad.any():
                continue
            used += int(weight.grad.any(-1).sum()) * weight.shape[-1] if (
                key.endswith('pos_embed')
            ) else weight.numel()
        assert used == backbone.costs[name].params, name


def test_a_windowed_block_of_vit_l_at_1024_px():
    """By hand: 64 x 64 patches in 5 x 5 windows of 14 x 14, C = 1024, MLP ratio 4."""
    width, tokens, places = 1024, 64 * 64, 25 * 14 * 14
    block = BlockCost(
        per_token=8 * width**2 + 10 * width, per_token_pair=2 * width, params=0, window=14,
        per_window_token=4 * width**2,
    )  # fmt: skip
    by_hand = (
        tokens * (8 * width**2 + 10 * width) + places * 4 * width**2
        + places * 14 * 14 * 2 * width
    )  # fmt: skip
    assert block.flops(tokens, (64, 64)) == by_hand == 56_920_670_208
