"""Hooks and loops of training and evaluation."""

from .hooks import StitchInitHook, StitchSamplingHook
from .loops import StitchTestLoop, StitchValLoop

__all__ = ['StitchInitHook', 'StitchSamplingHook', 'StitchTestLoop', 'StitchValLoop']
