"""Lets models of several tasks run on one set of frozen anchors."""

from __future__ import annotations

import torch
from torch import nn

from ..stitched_vit import StitchedViT
from .lookup import find_stitched_backbone


def share_anchors(*models: nn.Module) -> int:
    """Let models run on the anchors of the first, which they then hold once in memory.

    Each keeps stitch layers, heads, head statistics and an active stitch of its own, and may be
    trained on: its anchors stay as they are. To be called once weights are loaded and devices
    chosen.

    Args:
        models: Two or more models with a StitchedViT each, of ``training='stitches'`` from the
            same weights. All but the first are changed.

    Returns:
        Bytes of the weights that are no longer held.

    Raises:
        ValueError: If there are fewer than two, or anchors learn or differ in any bit.
    """
    if len(models) < 2:
        raise ValueError(f'share_anchors needs two or more models, got {len(models)}.')
    backbones = [find_stitched_backbone(model) for model in models]
    for number, backbone in enumerate(backbones, 1):
        if backbone.training_mode != 'stitches':
            raise ValueError(
                f'Anchors of model {number} cannot be shared, as they learn: build it with '
                f"training='stitches' of its backbone (it is {backbone.training_mode!r})."
            )
    first, *others = backbones
    for number, backbone in enumerate(others, 2):
        _check_equal(first, backbone, number)
    freed = 0
    for backbone in others:
        if backbone.anchors is not first.anchors:
            freed += sum(p.numel() * p.element_size() for p in backbone.anchors.parameters())
            backbone.anchors = first.anchors
    return freed


def _check_equal(first: StitchedViT, other: StitchedViT, number: int) -> None:
    """Refuse anchors that would compute something else than the first model's.

    Raises:
        ValueError: If they would.
    """
    reason = None
    if first.space.anchors != other.space.anchors or first.img_size != other.img_size:
        reason = 'they are built otherwise (anchors, img_size or windows)'
    elif first.device != other.device:
        reason = f'they are on {other.device}, those of the first on {first.device}'
    elif first.space.normed_taps != other.space.normed_taps:
        reason = 'final_norm differs'
    else:
        own, given = first.anchors.state_dict(), other.anchors.state_dict()
        differing = [k for k in own if k not in given or not torch.equal(own[k], given[k])]
        if differing:
            reason = f'{len(differing)} of their weights differ, e.g. {differing[0]}'
    if reason:
        raise ValueError(
            f'Anchors of model {number} are not those of the first: {reason}. Build both alike, '
            'and train both from the same files of anchors.'
        )
