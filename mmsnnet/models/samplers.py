"""Registers the samplers and builds them for a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmsnnet.registry import STITCH_SAMPLERS
from mmsnnet.stitching.sampler import (
    CostBinStitchSampler,
    FixedStitchSampler,
    SandwichStitchSampler,
    StitchSampler,
    UniformStitchSampler,
)

if TYPE_CHECKING:
    from .stitched_vit import StitchedViT

for _sampler in (
    UniformStitchSampler,
    CostBinStitchSampler,
    SandwichStitchSampler,
    FixedStitchSampler,
):
    STITCH_SAMPLERS.register_module(module=_sampler)

#: What a backbone samples by when nothing else is said: the paper's sampling, with bins relative
#: to the range of the space so that they suit anchors of any size (10 GFLOPs of DeiT3-S + L at
#: 512 px are 0.03 of theirs).
DEFAULT_SAMPLER: Mapping[str, Any] = dict(type='CostBinStitchSampler', relative_bin_width=0.03)


def build_sampler(backbone: StitchedViT, sampler: Mapping[str, Any] | None = None) -> StitchSampler:
    """Sampler over the stitches of a backbone, with their FLOPs at its image size.

    Args:
        backbone: Backbone whose stitches are sampled.
        sampler: Config with ``type`` and arguments; None takes ``DEFAULT_SAMPLER``.

    Raises:
        KeyError: If the type is not registered.
        ValueError: If the sampler refuses its arguments.
    """
    return STITCH_SAMPLERS.build(
        dict(DEFAULT_SAMPLER if sampler is None else sampler),
        default_args=dict(space=backbone.space, flops=backbone.costs.flops),
    )
