"""Augmentations of depth training that MMSegmentation lacks."""

from .color_aug import ColorAug
from .nyu_crop import NYUCrop

__all__ = ['ColorAug', 'NYUCrop']
