"""Registries: one of our own for samplers, and MMEngine's roots for everything else.

Registering in the roots makes ``type='StitchedViT'`` resolve from the scopes of mmseg and mmdet
without a prefix: a lookup that fails in a child registry falls back to the root. The prefix works
too, ``type='mmsnnet.StitchedViT'``, from every scope: MMEngine then imports this module by its name
and asks the root's child of the scope ``mmsnnet``, which has nothing of its own and falls back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.registry import (
    HOOKS,
    LOOPS,
    MODEL_WRAPPERS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    Registry,
)

SCOPE = 'mmsnnet'


def _build(
    cfg: Mapping[str, Any], registry: Registry, default_args: Mapping[str, Any] | None = None
) -> Any:
    """Build an object from ``type`` and arguments.

    MMEngine's own builder looks for a child of the registry in the scope of mmseg or mmdet, and
    warns each time that there is none; samplers belong to no scope.
    """
    arguments = {**(default_args or {}), **cfg}
    kind = arguments.pop('type', None)
    if isinstance(kind, str):
        kind = kind.removeprefix(f'{SCOPE}.')
        if kind not in registry.module_dict:
            raise KeyError(
                f'{kind!r} is not a registered {registry.name}; there are '
                f'{", ".join(sorted(registry.module_dict))}.'
            )
        kind = registry.module_dict[kind]
    if not callable(kind):
        raise TypeError(f'A {registry.name} config needs type, got {dict(cfg)}.')
    return kind(**arguments)


#: Classes with ``sample(step, rank) -> Stitch``; the space and its FLOPs are default arguments.
STITCH_SAMPLERS = Registry('stitch sampler', build_func=_build, scope=SCOPE)

#: Children of the roots, for types with the prefix and for ``default_scope='mmsnnet'``.
SCOPED = tuple(
    Registry(root.name, parent=root, scope=SCOPE)
    for root in (
        HOOKS,
        LOOPS,
        MODEL_WRAPPERS,
        MODELS,
        OPTIM_WRAPPER_CONSTRUCTORS,
        PARAM_SCHEDULERS,
        TRANSFORMS,
    )
)

__all__ = [
    'HOOKS',
    'LOOPS',
    'MODELS',
    'MODEL_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'PARAM_SCHEDULERS',
    'STITCH_SAMPLERS',
    'TRANSFORMS',
]
