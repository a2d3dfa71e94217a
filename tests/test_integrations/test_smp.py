"""Stitched backbones in segmentation_models_pytorch."""

from __future__ import annotations

import pytest
import timm
import torch

from mmsnnet.integrations import timm_models  # noqa: F401
from tests.builders import random_images, tiny_anchor, tiny_backbone

smp = pytest.importorskip('segmentation_models_pytorch', reason='needs the extra smp')
integration = pytest.importorskip('mmsnnet.integrations.smp', reason='needs the extra smp')


@pytest.mark.parametrize('depth', [3, 5])
def test_the_encoder_keeps_the_contract_of_the_library(depth):
    backbone = tiny_backbone(out_indices=(2, 5, 8, 11))
    encoder = integration.StitchedEncoder(backbone, depth)
    images = random_images(1, 64, 96)
    maps = encoder(images)
    assert maps[0] is images and len(maps) == depth + 1
    for level, one in enumerate(maps):
        assert one.shape == (1, encoder.out_channels[level], 64 >> level, 96 >> level)


@pytest.mark.parametrize('name', ['Unet', 'FPN'])
def test_decoders_of_the_library_train_on_a_stitched_encoder(name):
    backbone = tiny_backbone(out_indices=(2, 5, 8, 11))
    model = integration.create_model(getattr(smp, name), backbone, classes=3).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {key: value.clone() for key, value in backbone.named_parameters()}
    out = model(random_images(2))
    assert out.shape == (2, 3, 64, 64)
    out.square().mean().backward()
    optimizer.step()
    after = dict(backbone.named_parameters())
    moved = [key for key in before if not torch.equal(after[key], before[key])]
    assert moved and backbone.last_stitch is not None
    assert 'stitched_vit' not in smp.encoders.encoders


def test_each_stitch_gives_its_own_prediction():
    backbone = tiny_backbone(out_indices=(2, 5, 8, 11))
    model = integration.create_model(smp.Unet, backbone, classes=2).eval()
    images = random_images(1)
    model.encoder.set_stitch('S6')
    small = model(images)
    model.encoder.set_stitch('S2-L8')
    assert not torch.equal(model(images), small)


def test_dpt_takes_a_stitched_model_by_its_name_in_timm():
    model = smp.DPT(
        'tu-stitched_vit',
        encoder_weights=None,
        classes=4,
        decoder_intermediate_channels=(8, 8, 8, 8),
        decoder_fusion_channels=8,
        anchors=[tiny_anchor(4, 48), tiny_anchor(4, 96)],
        img_size=64,
    )
    assert 'stitched_vit' in timm.list_models('stitched*')
    images = random_images(1)
    assert model.eval()(images).shape == (1, 4, 64, 64)
    model.encoder.model.set_stitch('S4')
    assert model(images).shape == (1, 4, 64, 64)


def test_impossible_settings_are_refused():
    backbone = tiny_backbone(out_indices=(2, 5, 8, 11))
    with pytest.raises(ValueError, match='encoder_depth=6 is not possible'):
        integration.StitchedEncoder(backbone, 6)
    with pytest.raises(ValueError, match='in_channels=4 is not possible: the backbone takes 3'):
        integration.StitchedEncoder(backbone).set_in_channels(4)
