"""Frozen parts of a backbone."""

from __future__ import annotations

import re

import pytest
import torch

from mmsnnet.models import StitchedViT
from tests.builders import random_images, tiny_backbone

EMBEDDING = re.compile(r'anchors\.\w+\.vit\.(patch_embed|cls_token|reg_token|pos_embed|norm_pre)')


def frozen_blocks(backbone: StitchedViT) -> dict[str, list[int]]:
    return {
        label: [
            number
            for number, block in enumerate(anchor.vit.blocks)
            if not any(parameter.requires_grad for parameter in block.parameters())
        ]
        for label, anchor in backbone.anchors.items()
    }


def embedding_grads(backbone: StitchedViT) -> set[bool]:
    named = backbone.named_parameters()
    return {parameter.requires_grad for name, parameter in named if EMBEDDING.match(name)}


def test_nothing_is_frozen_by_default():
    backbone = tiny_backbone()
    assert frozen_blocks(backbone) == {'S': [], 'L': []}
    assert embedding_grads(backbone) == {True}


@pytest.mark.parametrize('kind', ['class token', 'registers', 'pre-norm'])
def test_zero_freezes_the_embeddings_alone(kind):
    backbone = tiny_backbone(kind=kind, frozen_stages=0)
    assert frozen_blocks(backbone) == {'S': [], 'L': []}
    assert embedding_grads(backbone) == {False}


@pytest.mark.parametrize(
    ('stages', 'small', 'large'), [(1, 0, 1), (2, 1, 2), (5, 2, 5), (11, 5, 11), (12, 6, 12)]
)
def test_blocks_of_the_small_anchor_are_frozen_where_they_lie_wholly_beside(stages, small, large):
    backbone = tiny_backbone(frozen_stages=stages)
    assert frozen_blocks(backbone) == {'S': [*range(small)], 'L': [*range(large)]}
    assert embedding_grads(backbone) == {False}
    layers = backbone.stitch_layers.parameters()
    assert sum(parameter.requires_grad for parameter in layers) == 3 * len(backbone.stitch_layers)


def test_frozen_parts_stay_in_eval_mode_and_the_others_do_not():
    backbone = tiny_backbone(frozen_stages=4, drop_path_rate=0.5)
    for _ in range(2):
        backbone.train()
        for label, count in (('S', 2), ('L', 4)):
            modes = [block.training for block in backbone.anchors[label].vit.blocks]
            assert modes == [index >= count for index in range(len(modes))]
        assert backbone.training and backbone.stitch_layers.training
        backbone.eval()
        assert not any(module.training for module in backbone.modules())


def test_a_training_step_leaves_frozen_weights_and_their_features_alone():
    backbone = tiny_backbone(frozen_stages=4, drop_path_rate=0.5, out_indices=(3, 11)).train()
    before = {name: value.clone() for name, value in backbone.named_parameters()}
    images = random_images(1)
    backbone.set_training_stitch('L12')
    first, last = backbone(images)
    assert torch.equal(first, backbone(images)[0]), 'no drop path in frozen blocks'
    (first.square().mean() + last.square().mean()).backward()
    trained = [p for p in backbone.parameters() if p.requires_grad]
    torch.optim.SGD(trained, lr=0.1).step()
    moved = {n for n, p in backbone.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all(re.match(r'anchors\.L\.vit\.blocks\.([4-9]|1\d)\.', n) for n in moved)


@pytest.mark.parametrize('stages', [-2, 13])
def test_other_numbers_are_refused_with_those_possible(stages):
    message = rf'frozen_stages={stages} is not possible: .* 1 to 12 also as many blocks'
    with pytest.raises(ValueError, match=message):
        tiny_backbone(frozen_stages=stages)
