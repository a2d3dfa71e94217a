"""Stitched backbones in Hugging Face transformers."""

from __future__ import annotations

import pytest
import torch

from tests.builders import random_images, tiny_anchor, tiny_backbone

transformers = pytest.importorskip('transformers', reason='needs the extra transformers')
integration = pytest.importorskip(
    'mmsnnet.integrations.transformers', reason='needs the extra transformers'
)


def test_feature_maps_and_channels_are_those_of_the_backbone():
    backbone, images = tiny_backbone(out_indices=(2, 5, 8, 11)), random_images(1)
    wrapped = integration.StitchedViTBackbone.from_backbone(backbone, out_indices=[1, 4]).eval()
    assert wrapped.channels == [96, 96] and wrapped.out_features == ['stage1', 'stage4']
    out = wrapped(images).feature_maps
    assert torch.equal(out[0], backbone(images)[0]) and torch.equal(out[1], backbone(images)[3])
    wrapped.set_stitch('S2-L8')
    assert torch.equal(wrapped(images).feature_maps[1], backbone.run(images, 'S2-L8')[3])


@pytest.mark.parametrize('kind', ['class token', 'DINOv3', 'EVA', 'BEiT'])
def test_a_folder_of_the_library_gives_equal_features_and_the_active_stitch(tmp_path, kind):
    """Buffers that no file holds, such as rotary frequencies, are computed again."""
    backbone = tiny_backbone(kind=kind, out_indices=(5, 11))
    wrapped = integration.StitchedViTBackbone.from_backbone(backbone).eval()
    wrapped.set_stitch('L4-S4')
    wrapped.save_pretrained(tmp_path)
    again = integration.StitchedViTBackbone.from_pretrained(tmp_path)
    assert again.backbone.stitch.name == 'L4-S4' and again.backbone.is_fitted
    images = random_images(1)
    for one, other in zip(wrapped(images).feature_maps, again(images).feature_maps):
        assert torch.equal(one, other)


def test_a_saved_model_of_the_library_keeps_its_stitched_backbone(tmp_path):
    wrapped = integration.StitchedViTBackbone.from_backbone(
        tiny_backbone(kind='DINOv3', out_indices=(2, 5, 8, 11))
    )
    config = transformers.UperNetConfig(
        backbone_config=wrapped.config,
        hidden_size=16,
        num_labels=3,
        use_auxiliary_head=False,
        pool_scales=[1, 2],
    )
    model = transformers.UperNetForSemanticSegmentation(config)
    model.backbone.load_state_dict(wrapped.state_dict())
    model.eval().save_pretrained(tmp_path)
    again = transformers.UperNetForSemanticSegmentation.from_pretrained(tmp_path)
    images = random_images(1)
    features = again.backbone(images).feature_maps
    for one, other in zip(model.backbone(images).feature_maps, features):
        assert torch.equal(one, other)
    # The library's own head differs in its last bits, though its weights are equal.
    torch.testing.assert_close(again(images).logits, model(images).logits, atol=1e-6, rtol=0)


def test_rates_of_compiled_blocks_come_back(tmp_path):
    anchors = [tiny_anchor(2, 48), tiny_anchor(2, 96)]
    settings = dict(anchors=anchors, out_indices=(1,), drop_path_rate=0.3, compile_blocks=True)
    wrapped = integration.StitchedViTBackbone.from_backbone(tiny_backbone(**settings))
    wrapped.save_pretrained(tmp_path)
    rates = [
        value.item()
        for name, value in integration.StitchedViTBackbone.from_pretrained(tmp_path).named_buffers()
        if name.endswith('keep_prob')
    ]
    assert rates == pytest.approx([1.0, 1.0, 0.7, 0.7] * 2)


def test_a_model_of_the_library_trains_on_a_stitched_backbone():
    backbone = tiny_backbone(out_indices=(2, 5, 8, 11))
    wrapped = integration.StitchedViTBackbone.from_backbone(backbone)
    config = transformers.UperNetConfig(
        backbone_config=wrapped.config,
        hidden_size=16,
        num_labels=3,
        use_auxiliary_head=False,
        pool_scales=[1, 2],
    )
    model = transformers.UperNetForSemanticSegmentation(config)
    model.backbone.load_state_dict(wrapped.state_dict())
    labels = torch.zeros(2, 64, 64, dtype=torch.long)
    out = model.train()(pixel_values=random_images(2), labels=labels)
    out.loss.backward()
    assert out.logits.shape == (2, 3, 64, 64)
    assert model.backbone.backbone.last_stitch is not None


def test_the_stem_is_no_output():
    with pytest.raises(ValueError, match='returns no stem'):
        integration.StitchedViTBackbone.from_backbone(tiny_backbone(), out_indices=[0, 1])
