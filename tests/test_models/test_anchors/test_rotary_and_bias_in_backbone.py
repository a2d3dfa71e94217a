"""Stitched backbones of rotary and relative-bias anchors."""

from __future__ import annotations

import re

import pytest
import torch
from timm.models.eva import Eva

from mmsnnet.evaluation.cost.flop_counter import FlopCounter
from mmsnnet.models import StitchedViT
from tests.builders import random_images, tiny_anchor, tiny_backbone

pytestmark = pytest.mark.filterwarnings(r'ignore:::timm\.layers\.interpolate')


def backbone_of(*kinds: str, **settings) -> StitchedViT:
    """Anchors of 3 and 6 blocks, 48 wide, of two kinds (or of one)."""
    pair = (kinds[0], kinds[-1])
    anchors = [tiny_anchor(depth, 48, kind) for depth, kind in zip((3, 6), pair)]
    return tiny_backbone(**{'anchors': anchors, 'out_indices': (2, 5), **settings})


def rope_calls(backbone: StitchedViT, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Label of the anchor and mode of each rotary embedding computed from now on."""
    calls = []
    for label, anchor in backbone.anchors.items():
        rope = anchor.vit.rope
        original = rope.get_embed

        def counted(shape, original=original, label=label, rope=rope):
            calls.append((label, rope.training))
            return original(shape=shape)

        monkeypatch.setattr(rope, 'get_embed', counted)
    return calls


def test_a_route_computes_the_rotary_embedding_of_each_anchor_once(monkeypatch):
    backbone = backbone_of('jittered DINOv3').train()
    calls = rope_calls(backbone, monkeypatch)
    backbone.run(random_images(), 'L2-S1-L2')
    assert sorted(calls) == [('L', True), ('S', True)]


def test_stitch_layers_are_fitted_without_jitter(monkeypatch):
    backbone = backbone_of('jittered DINOv3', fitted=False).train()
    calls = rope_calls(backbone, monkeypatch)
    backbone.fit_stitches(random_images(4))
    assert {mode for _, mode in calls} == {False} and {label for label, _ in calls} == {'S', 'L'}
    assert backbone.training


def test_an_anchor_entered_without_its_embedding_sees_the_same_positions(monkeypatch):
    backbone = backbone_of('DINOv3')
    monkeypatch.setattr(Eva, '_pos_embed', None)
    with torch.no_grad():
        assert all(torch.isfinite(item).all() for item in backbone.run(random_images(), 'S1-L4'))


@pytest.mark.parametrize(
    ('kinds', 'allowed'),
    [
        (('class token', 'EVA-02'), True),
        (('BEiT', 'mixed rotary'), True),
        (('registers', 'DINOv3'), True),
        (('class token', 'DINOv3'), False),
        (('BEiT', 'registers'), False),
        (('no class token', 'EVA-02'), False),
    ],
)
def test_anchors_of_different_classes_mix_if_their_prefix_tokens_are_as_many(kinds, allowed):
    if allowed:
        backbone = backbone_of(*kinds, fitted=False)
        backbone.train()(random_images())
        assert backbone.is_fitted
    else:
        with pytest.raises(ValueError, match='class and register tokens; choose anchors with'):
            backbone_of(*kinds)


def test_anchors_of_different_patch_sizes_are_refused():
    large = tiny_anchor(6, 48, 'BEiT')
    large['model_kwargs']['patch_size'] = 16
    with pytest.raises(ValueError, match='patch sizes 16 and 8 differ'):
        tiny_backbone(anchors=[tiny_anchor(3, 48, 'EVA-02'), large], out_indices=(5,))


@pytest.mark.parametrize('kind', ['shared table', 'two tables', 'mixed rotary'])
def test_params_of_a_stitch_count_what_its_blocks_share_once(kind):
    backbone = backbone_of(kind, lora_rank=0)
    for name in ('S3', 'S1-L4', 'L2-S1-L2'):
        backbone.zero_grad(set_to_none=True)
        sum(out.square().mean() for out in backbone.run(random_images(1), name)).backward()
        reached = sum(p.numel() for p in backbone.parameters() if p.grad is not None)
        assert backbone.costs[name].params == reached, name


@pytest.mark.parametrize('kind', ['DINOv3', 'EVA-02', 'grouped queries', 'two tables'])
@pytest.mark.parametrize('size', [(64, 64), (40, 96)])
def test_flops_of_a_stitch_are_those_executed_at_any_size(kind, size):
    backbone = backbone_of(kind, lora_rank=0)
    costs = backbone.costs.at(size)
    for name in ('L6', 'S1-L4', 'L2-S2'):
        with torch.inference_mode(), FlopCounter() as counter:
            backbone.run(random_images(1, *size), name)
        assert costs[name].flops == counter.total, name


@pytest.mark.parametrize('kind', ['shared table', 'mixed rotary'])
def test_freezing_the_embeddings_freezes_positions_that_all_blocks_share(kind):
    backbone = backbone_of(kind, frozen_stages=0)
    for anchor in backbone.anchors.values():
        shared = list(anchor.shared_parameters())
        assert shared and not any(parameter.requires_grad for parameter in shared)
        assert all(parameter.requires_grad for parameter in anchor.vit.blocks.parameters())


@pytest.mark.parametrize('kind', ['BEiT', 'two tables', 'published', 'EVA-02', 'DINOv3'])
def test_a_checkpoint_of_another_size_is_laid_out_as_timm_does(kind):
    trained, fresh = backbone_of(kind), backbone_of(kind, img_size=(96, 48), seed=1)
    fresh.load_state_dict(trained.state_dict())
    for label, anchor in trained.anchors.items():
        anchor.vit.set_input_size((96, 48))
        found = fresh.anchors[label].vit.state_dict()
        for name, value in anchor.vit.state_dict().items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=name)


def test_a_checkpoint_of_other_heads_is_refused():
    trained, other = backbone_of('BEiT'), backbone_of('BEiT')
    state = trained.state_dict()
    key = 'anchors.S.vit.blocks.0.attn.relative_position_bias_table'
    state[key] = torch.zeros(52, 5)
    with pytest.raises(ValueError, match=rf'{re.escape(key)} is \(52, 5\) there'):
        other.load_state_dict(state)


@pytest.mark.parametrize('kind', ['DINOv3', 'mixed rotary', 'two tables'])
def test_any_size_runs_on_shapes_alone(kind):
    with torch.device('meta'):
        anchors = [tiny_anchor(3, 48, kind), tiny_anchor(6, 48, kind)]
        backbone = StitchedViT(anchors=anchors, img_size=64, out_indices=(2, 5)).eval()
    for size, grid in (((64, 64), (8, 8)), ((40, 72), (5, 9))):
        maps = backbone.run(torch.empty(1, 3, *size, device='meta'), 'L2-S1-L2')
        assert [tuple(item.shape) for item in maps] == [(1, 48, *grid)] * 2
