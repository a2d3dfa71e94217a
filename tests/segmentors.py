"""Segmentors of MMSegmentation on a small stitched backbone, that the tests build on."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import nn

import mmsnnet  # noqa: F401 - registers the backbone and gives mmcv its ops
from mmsnnet.registry import MODELS
from tests.builders import tiny_anchor


def vit_anchor(depth: int, width: int) -> dict[str, Any]:
    """Config of an anchor with patches of 16 pixels, without weights."""
    arguments = dict(depth=depth, embed_dim=width, num_heads=width // 16)
    return dict(model_name='vit_tiny_patch16_224', pretrained=False, model_kwargs=arguments)


def tiny_stitched(**settings: Any) -> dict[str, Any]:
    """Config of a backbone of two tiny anchors that delivers 4 maps of 64 channels at stride 8."""
    anchors = [tiny_anchor(2, 32), tiny_anchor(4, 64)]
    return dict(
        type='StitchedViT', anchors=anchors, img_size=64, out_indices=(0, 1, 2, 3), **settings
    )


def wide_stitched() -> dict[str, Any]:
    """Config of a backbone that delivers 4 maps of 1024 channels at stride 16, like DeiT3-L."""
    anchors = [vit_anchor(2, 384), vit_anchor(4, 1024)]
    return dict(type='StitchedViT', anchors=anchors, img_size=512, out_indices=(0, 1, 2, 3))


def build(config: dict[str, Any], device: str = 'cpu') -> nn.Module:
    """Module of a config in the scope of MMSegmentation."""
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device(device):
        return MODELS.build(config)


def build_segmentor(
    head: Any, neck: dict | None = None, auxiliary: Any = None, **settings: Any
) -> nn.Module:
    """Segmentor on a tiny stitched backbone, unless ``backbone=`` says otherwise."""
    device = settings.pop('device', 'cpu')
    config = dict(type='EncoderDecoder', backbone=tiny_stitched()) | settings
    config['decode_head'] = head
    config |= dict(neck=neck) if neck else {}
    config |= dict(auxiliary_head=auxiliary) if auxiliary else {}
    return build(config, device)


def setr_head(channels: int = 64, **settings: Any) -> dict[str, Any]:
    """The naive head of SETR as published: one 1x1 convolution, upsampling by 4, 150 classes."""
    return dict(
        type='SETRUPHead',
        in_channels=channels,
        in_index=3,
        channels=256,
        num_classes=150,
        dropout_ratio=0,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        num_convs=1,
        up_scale=4,
        kernel_size=1,
    ) | dict(settings)


def head(kind: str, width: int = 64, **settings: Any) -> dict[str, Any]:
    """A head of four maps of a width, unless told otherwise of 16 channels and 5 classes."""
    return dict(
        type=kind,
        in_channels=[width] * 4,
        in_index=[0, 1, 2, 3],
        channels=16,
        num_classes=5,
        norm_cfg=dict(type='BN'),
        align_corners=False,
    ) | dict(settings)


def single_head(kind: str, width: int = 64, **settings: Any) -> dict[str, Any]:
    """A head of the last map alone, of 16 channels and 5 classes."""
    return head(kind) | dict(in_channels=width, in_index=3) | dict(settings)


def multi_level_neck(channels: int = 64, out_channels: int = 32) -> dict[str, Any]:
    """The neck of mmseg's UperNet on ViTs: maps at strides of patch / 4 to patch x 2."""
    return dict(
        type='MultiLevelNeck',
        in_channels=[channels] * 4,
        out_channels=out_channels,
        scales=[4, 2, 1, 0.5],
    )
