"""Heads that MMSegmentation lacks. They extend its own, so each is imported when first built."""

from __future__ import annotations

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


__all__ = ['build_dpt_depth_head']
