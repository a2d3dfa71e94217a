"""Checks of the arguments that a config gives to the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def check_inherited_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that the backbone does not have, telling how they may have got there.

    Raises:
        ValueError: If ``pretrained`` is set, which segmentors pass on to their backbone.
        TypeError: If there are other arguments.
    """
    pretrained = arguments.get('pretrained')
    if pretrained is not None:
        raise ValueError(
            f'pretrained={pretrained!r} of the model cannot serve a StitchedViT, which has several '
            "anchors: set model.pretrained=None and name each anchor's weights, "
            "backbone.anchors=[dict(model_name=..., checkpoint='FILE'), ...]."
        )
    unknown = sorted(set(arguments) - {'pretrained'})
    if unknown:
        raise TypeError(
            f'StitchedViT does not take {", ".join(unknown)}. If they come from the backbone of '
            'an inherited config, replace that backbone as a whole: '
            "backbone=dict(_delete_=True, type='StitchedViT', ...)."
        )


def check_frozen_stages(frozen_stages: int, depth: int) -> int:
    """A number of frozen stages, if it is possible.

    Args:
        frozen_stages: The number.
        depth: Blocks of the largest anchor.

    Raises:
        ValueError: If it is not -1 or between 0 and the depth.
    """
    if not -1 <= frozen_stages <= depth:
        raise ValueError(
            f'frozen_stages={frozen_stages} is not possible: -1 freezes nothing, 0 the '
            f'embeddings, 1 to {depth} also as many blocks of the largest anchor.'
        )
    return frozen_stages
