"""The stitched backbone inside segmentors of mmseg."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.registry import MODELS, init_default_scope

from tests.builders import random_images, shake, tiny_anchor, tiny_backbone, tiny_vit


def segmentor_config(folder: Path) -> dict:
    anchors = []
    for number, (depth, width) in enumerate(((3, 48), (6, 96))):
        vit = tiny_vit(depth, width)
        shake(vit, seed=number)
        file = folder / f'anchor{number}.pth'
        torch.save(vit.state_dict(), file)
        anchors.append(tiny_anchor(depth, width, checkpoint=str(file)))
    backbone = dict(type='StitchedViT', anchors=anchors, img_size=64, out_indices=(2, 5))
    head = dict(
        type='FCNHead',
        in_channels=96,
        in_index=1,
        channels=8,
        num_convs=1,
        num_classes=5,
        norm_cfg=dict(type='BN'),
    )
    return dict(type='EncoderDecoder', backbone=backbone, decode_head=head)


def test_initialising_a_segmentor_loads_anchors_and_does_not_draw_them_anew(tmp_path):
    from mmengine.registry import MODELS

    init_default_scope('mmseg')
    model = MODELS.build(segmentor_config(tmp_path))
    model.init_weights()
    for number, label in enumerate('SL'):
        state = torch.load(tmp_path / f'anchor{number}.pth')
        own = model.backbone.anchors[label].vit.state_dict()
        assert all(torch.equal(own[name], state[name]) for name in own)
    assert model(random_images(1), mode='tensor').shape == (1, 5, 8, 8)


def test_initialising_a_segmentor_keeps_random_anchors_that_name_no_file(tmp_path):
    from mmengine.registry import MODELS

    init_default_scope('mmseg')
    config = segmentor_config(tmp_path)
    for anchor in config['backbone']['anchors']:
        del anchor['checkpoint']
    model = MODELS.build(config)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    model.init_weights()
    after = model.backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_pairs_with_the_class_token_feed_the_dpt_head():
    init_default_scope('mmseg')
    backbone = tiny_backbone(output_cls_token=True, out_indices=(2, 5, 8, 11)).train()
    head = MODELS.build(
        dict(
            type='DPTHead',
            in_channels=(96, 96, 96, 96),
            channels=16,
            embed_dims=96,
            post_process_channels=[12, 16, 24, 32],
            num_classes=7,
            readout_type='project',
            input_transform='multiple_select',
            in_index=(0, 1, 2, 3),
            norm_cfg=dict(type='BN'),
        )
    )
    head.init_weights()
    for name in ('S6', 'L12', 'L2-S4-L2'):
        backbone.set_training_stitch(name)
        backbone.zero_grad(set_to_none=True)
        logits = head(backbone(random_images(2)))
        assert logits.shape == (2, 7, 64, 64)
        logits.square().mean().backward()
        token = backbone.anchors[name[0]].vit.cls_token
        assert token.grad.abs().max() > 0
