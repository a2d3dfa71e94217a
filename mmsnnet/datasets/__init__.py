"""Augmentations, and data that anyone can make: ``datasets.rooms`` renders furnished rooms."""

from . import transforms

__all__ = ['transforms']
