"""Heads that hosts lack. They extend the hosts' own, so each is imported when first built."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import nn

from mmsnnet.registry import MODELS


@MODELS.register_module(name='DPTDepthHead')
def build_dpt_depth_head(**settings: Any) -> nn.Module:
    """A :class:`~mmsnnet.models.heads.dpt_depth_head.DPTDepthHead` from its arguments.

    MMSegmentation, whose head it extends, is imported now: without it the package still works.

    Raises:
        ImportError: If MMSegmentation is not installed.
    """
    try:
        from .dpt_depth_head import DPTDepthHead
    except ModuleNotFoundError as error:
        if (error.name or '').split('.')[0] != 'mmseg':
            raise
        raise ImportError(
            "type='DPTDepthHead' extends a head of MMSegmentation, which is not installed: "
            'pip install "mmsegmentation>=1.2.2".'
        ) from error
    return DPTDepthHead(**settings)


@MODELS.register_module(name='StitchedClsHead')
def build_stitched_cls_head(**settings: Any) -> nn.Module:
    """A :class:`~mmsnnet.models.heads.stitched_cls_head.StitchedClsHead` from its arguments.

    Raises:
        ImportError: If MMPretrain is not installed, or too old.
    """
    require_mmpretrain("type='StitchedClsHead'")
    from .stitched_cls_head import StitchedClsHead

    return StitchedClsHead(**settings)


def require_mmpretrain(what: str) -> None:
    """Refuse to go on without MMPretrain.

    Args:
        what: What needs it.

    Raises:
        ImportError: If it is not installed, or older than 1.2.
    """
    hint = 'pip install "mmsnnet[cls]", or "mmpretrain>=1.2.0".'
    try:
        found = version('mmpretrain')
    except PackageNotFoundError:
        raise ImportError(f'{what} needs MMPretrain, which is not installed: {hint}') from None
    if tuple(int(part) for part in found.split('.')[:2]) < (1, 2):
        raise ImportError(f'{what} needs MMPretrain 1.2 or newer; {found} is installed: {hint}')


__all__ = ['build_dpt_depth_head', 'build_stitched_cls_head', 'require_mmpretrain']
