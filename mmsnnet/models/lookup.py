"""Finds the stitched backbone inside a model and tells whether it can be evaluated."""

from __future__ import annotations

from torch import nn

from .stitched_vit import StitchedViT


def find_stitched_backbone(model: nn.Module) -> StitchedViT:
    """The StitchedViT of a detector or segmentor, wrapped for distributed training or not.

    Raises:
        ValueError: If the model has none, or several.
    """
    found = [module for module in model.modules() if isinstance(module, StitchedViT)]
    if len(found) != 1:
        raise ValueError(
            f'{type(model).__name__} has {len(found)} StitchedViT backbones; exactly one is '
            "needed: backbone=dict(type='StitchedViT', ...)."
        )
    return found[0]


def check_fitted(backbone: StitchedViT) -> None:
    """Refuse a backbone whose stitch layers are random.

    Raises:
        ValueError: If stitch layers were neither fitted nor loaded.
    """
    if not backbone.is_fitted:
        raise ValueError(
            'The stitch layers were never fitted, so every stitch but the anchors is random: load '
            'the checkpoint of a trained stitched model, or train with '
            "custom_hooks=[dict(type='StitchInitHook')]."
        )
