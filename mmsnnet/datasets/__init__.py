"""Augmentations of training data."""

from . import transforms

__all__ = ['transforms']
