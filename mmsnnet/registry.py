"""Registries: one of our own for samplers, and MMEngine's roots for everything else.

Registering in the roots makes ``type='StitchedViT'`` resolve from the scopes of mmseg and mmdet
without a prefix: a lookup that fails in a child registry falls back to the root.
"""

from mmengine.registry import (
    HOOKS,
    LOOPS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    Registry,
)

#: Classes with ``sample(step, rank) -> Stitch``; the space and its FLOPs are default arguments.
STITCH_SAMPLERS = Registry('stitch sampler', scope='mmengine')

__all__ = ['HOOKS', 'LOOPS', 'MODELS', 'OPTIM_WRAPPER_CONSTRUCTORS', 'STITCH_SAMPLERS']
