"""Hooks, loops, learning rates and wrappers of training and evaluation."""

from .hooks import StitchInitHook, StitchSamplingHook
from .layer_decay import StitchLayerDecayOptimWrapperConstructor
from .loops import StitchTestLoop, StitchValLoop
from .one_cycle import GroupOneCycleLR
from .stitch_distributed import StitchDistributedDataParallel

__all__ = [
    'GroupOneCycleLR',
    'StitchDistributedDataParallel',
    'StitchInitHook',
    'StitchLayerDecayOptimWrapperConstructor',
    'StitchSamplingHook',
    'StitchTestLoop',
    'StitchValLoop',
]
