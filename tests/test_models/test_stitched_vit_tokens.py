"""Tokens of the anchor in which a stitch ends, in place of lifted maps."""

from __future__ import annotations

import pytest
import torch

from mmsnnet.deploy.switched import SwitchedBackbone
from mmsnnet.models import StitchFit
from mmsnnet.models.fixed_stitched_vit import FixedStitchedViT
from mmsnnet.models.prefix_cache import PrefixCache
from tests.builders import random_images, tiny_anchor, tiny_backbone
from tests.by_hand import timm_block, timm_tokens

SHAPE = ((3, 32), (6, 48))
NAMES = ('S3', 'L6', 'S1-L4', 'L2-S2', 'L4-S1', 'S1-L2-S1', 'L2-S1-L2')


def token_backbone(kind: str = 'class token', **settings: object):
    """Backbone that hands on tokens of the last block."""
    return tiny_backbone(SHAPE, kind, out_indices=5, lift_taps=False, **settings)


@pytest.mark.parametrize('final_norm', [False, True])
@pytest.mark.parametrize('kind', ['class token', 'registers', 'EVA-02', 'BEiT'])
@torch.no_grad()
def test_the_tokens_are_those_of_the_steps_done_by_hand(kind, final_norm):
    backbone = token_backbone(kind, final_norm=final_norm)
    images = random_images()
    small, large = (anchor.vit for anchor in backbone.anchors.values())
    tokens = timm_tokens(large, images)
    for index in (0, 1):
        tokens = timm_block(large, tokens, index, (8, 8))
    layer = backbone.stitch_layers['L2_to_S1']
    weight = layer.weight + layer.scale * layer.lora_b @ layer.lora_a
    tokens = tokens @ weight.T + layer.bias
    for index in (1, 2):
        tokens = timm_block(small, tokens, index, (8, 8))
    expected = small.norm(tokens) if final_norm else tokens
    (found,) = backbone.run(images, 'L2-S2')
    torch.testing.assert_close(found.tokens, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', NAMES)
@torch.no_grad()
def test_the_anchor_is_that_of_the_last_segment(name):
    backbone = token_backbone()
    backbone.set_stitch(name)
    (found,) = backbone(random_images())
    label = name.split('-')[-1][0]
    width = dict(S=32, L=48)[label]
    assert (found.anchor, found.prefix_tokens) == (label, 1)
    assert found.tokens.shape == (2, 65, width)


def test_the_space_has_crossings_and_no_lifts():
    space = token_backbone(final_norm=True).space
    assert not any(key.lift for key in space.layers)
    assert {key.name(space.labels) for key in space.layers} == {
        'S1_to_L2', 'S2_to_L4', 'L2_to_S1', 'L4_to_S2',
    }  # fmt: skip


def test_the_fit_solves_all_crossings():
    backbone = token_backbone(fitted=False)
    fit = StitchFit(backbone)
    fit.add(random_images(4))
    assert set(fit.solve()) == set(backbone.stitch_layers) and backbone.is_fitted


@torch.no_grad()
def test_shared_beginnings_give_the_same_tokens_bit_for_bit():
    backbone = token_backbone(final_norm=True)
    images, cache = random_images(), PrefixCache(backbone, backbone.space)
    with cache.activate():
        found = {stitch.name: backbone(images)[0] for stitch in cache.routes()}
    assert set(found) == set(backbone.space.names)
    for name, shared in found.items():
        (alone,) = backbone.run(images, name)
        assert shared.anchor == alone.anchor and torch.equal(shared.tokens, alone.tokens)


@pytest.mark.parametrize('kind', ['class token', 'EVA-02', 'BEiT'])
@pytest.mark.parametrize('name', ['S3', 'L2-S2', 'S1-L2-S1'])
@torch.no_grad()
def test_a_backbone_of_one_stitch_gives_its_tokens(kind, name):
    backbone = token_backbone(kind, lora_rank=0, final_norm=True)
    anchors = [tiny_anchor(*shape, kind=kind) for shape in SHAPE]
    fixed = FixedStitchedViT(
        anchors, name, img_size=64, out_indices=5, lift_taps=False, final_norm=True
    ).eval()
    state = backbone.state_dict()
    fixed.load_state_dict({key: state[key] for key in fixed.state_dict()})
    (mine,), (theirs,) = fixed(random_images()), backbone.run(random_images(), name)
    assert mine.anchor == theirs.anchor and torch.equal(mine.tokens, theirs.tokens)
    assert fixed.cost.params == sum(parameter.numel() for parameter in fixed.parameters())


@pytest.mark.parametrize('kind', ['distilled', 'no class token', 'DINOv3', 'shared table'])
def test_other_kinds_of_anchors_learn_through_their_tokens(kind):
    backbone = token_backbone(kind).train()
    backbone.set_training_stitch('S1-L2-S1')
    backbone(random_images())[0].tokens.square().mean().backward()
    assert backbone.stitch_layers['S1_to_L2'].lora_a.grad is not None


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(out_indices=(2, 5)), r'\(2, 5\): put out_indices=\(5,\), the last block'),
        (dict(out_indices=(4,)), r'out_indices=\(5,\)'),
        (dict(out_indices=5, output_cls_token=True), 'output_cls_token=True has no meaning'),
    ],
)
def test_what_leads_elsewhere_than_to_the_last_tokens_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_backbone(SHAPE, lift_taps=False, **settings)


def test_lift_taps_must_be_a_flag():
    with pytest.raises(TypeError, match='lift_taps'):
        tiny_backbone(SHAPE, lift_taps='no')


def test_one_graph_of_several_stitches_is_refused():
    with pytest.raises(ValueError, match='needs outputs of one shape'):
        SwitchedBackbone(token_backbone(), ('S3', 'L6'), (64, 64))
