"""Augmentations that MMSegmentation lacks. They extend mmcv's base class, which is imported late.

Without mmcv the package still works; a class is imported when it is first built or named.
"""

from __future__ import annotations

import importlib
from typing import Any

from mmsnnet.registry import TRANSFORMS

_MODULES = {'ColorAug': 'color_aug', 'NYUCrop': 'nyu_crop'}


def __getattr__(name: str) -> Any:
    """Class of a name of ``__all__``.

    Raises:
        AttributeError: If there is no such class.
        ImportError: If mmcv is not installed.
    """
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    try:
        return getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)
    except ModuleNotFoundError as error:
        if (error.name or '').split('.')[0] != 'mmcv':
            raise
        raise ImportError(
            f'type={name!r} extends a transform of mmcv, which is not installed: '
            'pip install "mmcv-lite>=2.0.0rc4,<2.2.0", or mmcv itself.'
        ) from error


@TRANSFORMS.register_module(name='ColorAug')
def build_color_aug(**settings: Any) -> Any:
    """A :class:`~mmsnnet.datasets.transforms.color_aug.ColorAug` from its arguments."""
    return __getattr__('ColorAug')(**settings)


@TRANSFORMS.register_module(name='NYUCrop')
def build_nyu_crop(**settings: Any) -> Any:
    """A :class:`~mmsnnet.datasets.transforms.nyu_crop.NYUCrop` from its arguments."""
    return __getattr__('NYUCrop')(**settings)


__all__ = ['ColorAug', 'NYUCrop', 'build_color_aug', 'build_nyu_crop']
