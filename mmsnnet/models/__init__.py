"""Networks: anchors, stitch layers and the stitched backbone.

Necks extend MMEngine's modules and are imported when one is asked for: the backbone goes without.
"""

from typing import Any

from . import heads, losses
from .anchors.anchor_config import AnchorConfig
from .anchors.anchor_vit import AnchorViT
from .anchors.build import build_anchor
from .fixed_stitched_vit import FixedStitchedViT
from .host.lookup import (
    check_fitted,
    check_loaded,
    find_predicting_backbone,
    find_stitched_backbone,
    without_augmentation,
)
from .stitch_fit import StitchFit
from .stitch_layer import StitchLayer
from .stitch_network import RunState, StitchNetwork
from .stitched_vit import StitchedViT, build_sampler


def __getattr__(name: str) -> Any:
    """The neck, imported now."""
    if name != 'SimpleFeaturePyramid':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from .necks import SimpleFeaturePyramid

    return SimpleFeaturePyramid


__all__ = [
    'AnchorConfig',
    'AnchorViT',
    'FixedStitchedViT',
    'RunState',
    'SimpleFeaturePyramid',
    'StitchFit',
    'StitchLayer',
    'StitchNetwork',
    'StitchedViT',
    'build_anchor',
    'build_sampler',
    'check_fitted',
    'check_loaded',
    'find_predicting_backbone',
    'find_stitched_backbone',
    'heads',
    'losses',
    'without_augmentation',
]
