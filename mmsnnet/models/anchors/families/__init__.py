"""Classes of ViTs that can be anchors."""

from __future__ import annotations

import timm
from torch import nn

from .family import BlockContext, ViTFamily
from .plain import PlainFamily
from .relative_bias import RelativeBiasFamily
from .rotary import RotaryFamily

FAMILIES: tuple[ViTFamily, ...] = (PlainFamily(), RotaryFamily(), RelativeBiasFamily())


def family_of(vit: nn.Module) -> ViTFamily | None:
    """Family of a model of timm; None if it cannot be an anchor."""
    return next((family for family in FAMILIES if isinstance(vit, family.vit_class)), None)


def family_of_name(model_name: str) -> ViTFamily:
    """Family that a model of timm will probably be of, by its name; it decides how to build it."""
    module = timm.model_entrypoint(model_name.split('.')[0]).__module__
    return next((family for family in FAMILIES if module in family.modules), FAMILIES[0])


__all__ = ['FAMILIES', 'BlockContext', 'ViTFamily', 'family_of', 'family_of_name']
