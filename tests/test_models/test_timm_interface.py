"""What users of timm expect of a backbone."""

from __future__ import annotations

import pytest
import torch
from timm.models import FeatureInfo

from mmsnnet.models import AnchorConfig, StitchedViT
from mmsnnet.models.timm_interface import even_taps
from tests.builders import random_images, tiny_anchor, tiny_backbone, tiny_vit


def test_from_timm_loads_anchors_and_is_ready_to_run(tmp_path):
    vit = tiny_vit(6, 48)
    torch.save(vit.state_dict(), tmp_path / 'small.pth')
    small = tiny_anchor(6, 48, checkpoint=str(tmp_path / 'small.pth'))
    backbone = StitchedViT.from_timm(small, tiny_anchor(12, 96), img_size=64)
    assert not backbone.training and backbone.is_init
    assert torch.equal(backbone.anchor(0).vit.pos_embed, vit.pos_embed)
    assert backbone.space.taps == (2, 5, 8, 11) and backbone.img_size == (64, 64)


def test_from_timm_takes_the_native_size_of_the_largest_anchor():
    anchors = [tiny_anchor(2, 48), AnchorConfig.parse(tiny_anchor(2, 96))]
    backbone = StitchedViT.from_timm(*anchors, lora_rank=2)
    assert backbone.img_size == (224, 224) and backbone.space.taps == (0, 1)
    assert backbone.stitch_layers['S1_to_L1'].rank == 2


def test_from_timm_without_pretrained_needs_no_files():
    named = [dict(tiny_anchor(2, 48), pretrained=True), tiny_anchor(2, 96, checkpoint='gone.pth')]
    assert StitchedViT.from_timm(*named, pretrained=False, img_size=32).is_init


@pytest.mark.parametrize(
    ('depth', 'taps'), [(24, (5, 11, 17, 23)), (12, (2, 5, 8, 11)), (6, (0, 2, 3, 5)), (2, (0, 1))]
)
def test_taps_are_spread_over_the_depth(depth, taps):
    assert even_taps(depth) == taps


def test_feature_info_describes_what_forward_returns():
    backbone = tiny_backbone(out_indices=(3, 7, 11))
    info = backbone.feature_info
    assert isinstance(info, FeatureInfo) and len(info) == 3
    for name in ('L12', 'S6', 'S2-L8'):
        maps = backbone.run(random_images(1, 64, 32), name)
        assert [one.shape[1] for one in maps] == info.channels() == [96] * 3
        assert [64 // one.shape[2] for one in maps] == info.reduction() == [8] * 3
    named = dict(backbone.named_modules())
    assert [named[name] for name in info.module_name()] == [
        backbone.anchor(1).vit.blocks[tap] for tap in (3, 7, 11)
    ]
    assert (backbone.num_features, backbone.num_prefix_tokens) == (96, 1)


@pytest.mark.parametrize(
    ('indices', 'positions'),
    [(None, [0, 1, 2]), (2, [1, 2]), ([0], [0]), ((-1, 0), [2, 0])],
)
def test_intermediates_are_outputs_by_position(indices, positions):
    backbone, images = tiny_backbone(out_indices=(3, 7, 11), stitch='S2-L8'), random_images(1)
    maps = backbone(images)
    found = backbone.forward_intermediates(images, indices=indices)
    assert len(found) == len(positions)
    assert all(torch.equal(one, maps[place]) for one, place in zip(found, positions))


@torch.no_grad()
@pytest.mark.parametrize('kind', ['class token', 'registers'])
def test_intermediates_of_an_anchor_are_those_of_timm(kind):
    backbone, images = tiny_backbone(kind=kind), random_images(2, 64, 32)
    vit = tiny_vit(12, 96, kind)
    vit.load_state_dict(backbone.anchors['L'].vit.state_dict())
    for output_fmt in ('NCHW', 'NLC'):
        how = dict(return_prefix_tokens=True, output_fmt=output_fmt, intermediates_only=True)
        theirs = vit.forward_intermediates(images, (5, 11), **how)
        for one, other in zip(backbone.forward_intermediates(images, (0, 1), **how), theirs):
            assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_intermediates_of_a_given_stitch_leave_the_active_one():
    backbone, images = tiny_backbone(), random_images(1)
    found = backbone.forward_intermediates(images, stitch='S6')
    assert torch.equal(found[0], backbone.run(images, 'S6')[0])
    assert backbone.stitch.name == 'L12'
    backbone.train()
    backbone.forward_intermediates(images)
    assert backbone.last_stitch is not None and int(backbone.training_steps) == 1


@pytest.mark.parametrize('wrong', [
    dict(indices=3), dict(indices=0), dict(indices=[2]), dict(indices=[-3]), dict(norm=True),
    dict(output_fmt='NHWC'), dict(intermediates_only=False),
])  # fmt: skip
def test_what_cannot_be_returned_is_refused(wrong):
    with pytest.raises(ValueError, match='is not possible'):
        tiny_backbone().forward_intermediates(random_images(1), **wrong)


def test_outputs_that_are_not_lifted_have_no_constant_channels():
    backbone = tiny_backbone(lift_taps=False, out_indices=(11,))
    with pytest.raises(ValueError, match='feature_info needs lift_taps=True'):
        _ = backbone.feature_info
