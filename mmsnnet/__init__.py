"""SN-Netv2 for dense prediction: several pretrained plain ViTs stitched into one backbone.

Importing the package registers its backbone, heads, hooks and loops in MMEngine's root registries,
so that configs of mmseg and mmdet use them without a prefix:
``custom_imports = dict(imports=['mmsnnet'], allow_failed_imports=False)``. They are imported by the
first lookup in a registry (see :mod:`mmsnnet.registration`), so that ``mmsnnet.runtime`` works
without MMEngine, and the backbone in plain PyTorch without hooks, loops and hosts. All but that,
``results`` and ``stitching`` needs torch, timm and MMEngine; mmcv, mmseg and mmdet are imported by
what extends them, when that is first used.
"""

import importlib
from typing import Any

from mmsnnet.recipes import config_path
from mmsnnet.registration import register_in_time
from mmsnnet.version import __version__

register_in_time()

#: Names that users import, with the modules they are taken from at first use.
_LAZY = {
    'StitchControl': 'apis',
    'StitchInitHook': 'engine',
    'StitchSamplingHook': 'engine',
    'StitchSpace': 'stitching',
    'StitchTestLoop': 'engine',
    'StitchValLoop': 'engine',
    'StitchedViT': 'models',
    'apis': '',
    'compat': '',
    'convert': '',
    'datasets': '',
    'deploy': '',
    'engine': '',
    'evaluation': '',
    'init_model': 'apis',
    'models': '',
    'results': '',
    'runtime': '',
    'stitching': '',
}


def __getattr__(name: str) -> Any:
    """What a name of ``_LAZY`` stands for, imported now.

    Raises:
        AttributeError: If there is no such name.
    """
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    if not _LAZY[name]:
        return importlib.import_module(f'{__name__}.{name}')
    return getattr(importlib.import_module(f'{__name__}.{_LAZY[name]}'), name)


def __dir__() -> list[str]:
    """All names, the lazy ones too."""
    return sorted({*globals(), *_LAZY})


__all__ = [
    'StitchControl',
    'StitchInitHook',
    'StitchSamplingHook',
    'StitchSpace',
    'StitchTestLoop',
    'StitchValLoop',
    'StitchedViT',
    '__version__',
    'compat',
    'config_path',
    'datasets',
    'engine',
    'init_model',
    'models',
]
