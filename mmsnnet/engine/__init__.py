"""Hooks, loops and learning rates of training and evaluation."""

from .hooks import StitchInitHook, StitchSamplingHook
from .layer_decay import StitchLayerDecayOptimWrapperConstructor
from .loops import StitchTestLoop, StitchValLoop
from .one_cycle import GroupOneCycleLR

__all__ = [
    'GroupOneCycleLR',
    'StitchInitHook',
    'StitchLayerDecayOptimWrapperConstructor',
    'StitchSamplingHook',
    'StitchTestLoop',
    'StitchValLoop',
]
