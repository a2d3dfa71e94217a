"""Anchors whose pretraining normalised images unlike each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmsnnet.models.anchors.anchor_weights import fold_normalization
from tests.builders import shake, tiny_anchor, tiny_backbone, tiny_vit

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def normalized(images: Tensor, normalization: tuple) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in normalization)
    return (images - mean) / std


@torch.no_grad()
@pytest.mark.parametrize('kind', ['class token', 'no_embed_class', 'registers'])
@pytest.mark.parametrize('size', [64, 96])
def test_a_folded_vit_gives_on_other_images_what_it_gave_on_its_own(kind, size):
    vit = tiny_vit(2, 48, kind)
    shake(vit)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    before = vit.forward_features(normalized(images, HALF))
    fold_normalization(vit, expected=HALF, given=IMAGENET)
    after = vit.forward_features(normalized(images, IMAGENET))
    assert (before - after).abs().max() < 1e-5 * before.abs().max()


@torch.no_grad()
@pytest.mark.parametrize('kind', ['pre-norm', 'no_embed_class', 'registers'])
def test_a_projection_without_bias_folds_into_the_position_embedding(kind):
    vit = tiny_vit(2, 48, kind)
    vit.patch_embed.proj.register_parameter('bias', None)
    shake(vit)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = vit.forward_features(normalized(images, HALF))
    fold_normalization(vit, expected=HALF, given=IMAGENET)
    after = vit.forward_features(normalized(images, IMAGENET))
    assert (before - after).abs().max() < 1e-5 * before.abs().max()


def test_a_normalisation_that_nothing_can_absorb_is_refused():
    vit = tiny_vit(1, 48)
    vit.patch_embed.proj.register_parameter('bias', None)
    vit.patch_embed.norm = nn.LayerNorm(48)
    before = vit.patch_embed.proj.weight.detach().clone()
    with pytest.raises(ValueError, match='patch projection has no bias cannot take images'):
        fold_normalization(vit, expected=HALF, given=IMAGENET)
    assert torch.equal(vit.patch_embed.proj.weight, before)


@torch.no_grad()
def test_anchors_of_unlike_pretraining_take_the_images_of_the_costliest(tmp_path):
    files = []
    for number, shape in enumerate(((3, 48), (6, 96))):
        vit = tiny_vit(*shape)
        shake(vit, number)
        files.append((tmp_path / f'{number}.pth', vit))
        torch.save(vit.state_dict(), files[-1][0])
    anchors = [
        tiny_anchor(3, 48, checkpoint=str(files[0][0])),
        tiny_anchor(6, 96, checkpoint=str(files[1][0]), mean=IMAGENET[0], std=IMAGENET[1]),
    ]
    backbone = tiny_backbone(anchors=anchors, out_indices=(5,))
    backbone.init_weights()
    assert backbone.normalization == IMAGENET
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    given = normalized(images, IMAGENET)
    for label, (_, vit), own in zip('SL', files, (HALF, IMAGENET)):
        expected = vit.forward_features(normalized(images, own))
        found = backbone.anchors[label].vit.forward_features(given)
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_weights_drawn_at_random_are_not_folded():
    anchors = [tiny_anchor(3, 48), tiny_anchor(6, 96, mean=IMAGENET[0], std=IMAGENET[1])]
    backbone = tiny_backbone(anchors=anchors, out_indices=(5,))
    before = backbone.anchors['S'].vit.patch_embed.proj.weight.detach().clone()
    backbone.init_weights()
    assert torch.equal(backbone.anchors['S'].vit.patch_embed.proj.weight, before)


@torch.no_grad()
def test_anchors_of_four_channels_and_unlike_pretraining_see_the_same_images(tmp_path):
    """One normalises by 0.5, the other as ImageNet does: the cheaper absorbs the difference."""
    anchors, vits = [], []
    for number, (depth, width) in enumerate(((3, 48), (6, 96))):
        vits.append(tiny_vit(depth, width, in_chans=4))
        shake(vits[-1], number)
        torch.save(vits[-1].state_dict(), tmp_path / f'{number}.pth')
        anchors.append(tiny_anchor(depth, width, checkpoint=str(tmp_path / f'{number}.pth')))
        anchors[-1]['model_kwargs']['in_chans'] = 4
    mean, std = (0.4, 0.3, 0.2, 0.1), (0.2, 0.25, 0.3, 0.35)
    anchors[1].update(mean=mean, std=std)
    backbone = tiny_backbone(anchors=anchors, out_indices=(5,))
    backbone.init_weights()
    images = torch.rand(2, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    given = (images - torch.tensor(mean).view(1, 4, 1, 1)) / torch.tensor(std).view(1, 4, 1, 1)
    found = backbone.anchors['S'].vit.forward_features(given)
    expected = vits[0].forward_features((images - 0.5) / 0.5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert backbone(given)[0].shape == (2, 96, 8, 8)
