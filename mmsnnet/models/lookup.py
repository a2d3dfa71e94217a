"""Finds the stitched backbone inside a model."""

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
