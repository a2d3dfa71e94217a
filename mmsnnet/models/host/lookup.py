"""Finds the stitched backbone inside a model, and checks whether it can be evaluated."""

from __future__ import annotations

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from ..stitched_vit import StitchedViT


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


def is_detector(model: nn.Module) -> bool:
    """Whether a model is a detector of MMDetection, with one stage or two."""
    names = ('rpn_head', 'bbox_head', 'mask_head', 'panoptic_head', 'roi_head')
    return not hasattr(model, 'decode_head') and any(hasattr(model, name) for name in names)


def without_augmentation(model: nn.Module) -> nn.Module:
    """The model that an augmenting one runs on each copy of an image, or the model itself."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


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


def check_loaded(backbone: StitchedViT, checkpoint: object) -> None:
    """Refuse a backbone at random weights.

    MMEngine loads with ``strict=False`` and says nothing of a file that fits in no place.

    Args:
        backbone: Backbone of a model into which a checkpoint was loaded.
        checkpoint: Its file, to be named.

    Raises:
        ValueError: If the checkpoint held no weights of the backbone, or of one never fitted.
    """
    if not backbone.was_loaded:
        raise ValueError(
            f'Checkpoint {checkpoint} holds no weights of the stitched backbone: give the one of '
            'the training of this config.'
        )
    check_fitted(backbone)
