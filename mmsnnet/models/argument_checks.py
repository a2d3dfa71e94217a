"""Checks of the arguments that a config gives to the backbone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from mmsnnet.stitching.value_checks import check_flag, check_integer


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
        TypeError: If it is not an integer.
        ValueError: If it is not -1 or between 0 and the depth.
    """
    check_integer('frozen_stages', frozen_stages)
    if not -1 <= frozen_stages <= depth:
        raise ValueError(
            f'frozen_stages={frozen_stages} is not possible: -1 freezes nothing, 0 the '
            f'embeddings, 1 to {depth} also as many blocks of the largest anchor.'
        )
    return frozen_stages


def check_types(drop_path_rate: Any, sampler: Any, **flags: Any) -> None:
    """Check arguments of the backbone that nothing else looks at before they are used.

    Args:
        drop_path_rate: Rate of stochastic depth.
        sampler: Config of a sampler; what it says is checked where it is built.
        flags: Arguments that say yes or no, by their names.

    Raises:
        TypeError: If one is of another type.
        ValueError: If the rate lies outside of [0, 1).
    """
    for name, value in flags.items():
        check_flag(name, value)
    if isinstance(drop_path_rate, bool) or not isinstance(drop_path_rate, Real):
        raise TypeError(f'drop_path_rate must be a number in [0, 1), got {drop_path_rate!r}.')
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f'drop_path_rate={drop_path_rate} is not possible: it must be in [0, 1).')
    if sampler is not None and not (isinstance(sampler, Mapping) and 'type' in sampler):
        raise TypeError(
            "sampler must be None or a dict with type, such as dict(type='UniformStitchSampler'), "
            f'got {sampler!r}.'
        )


def as_taps(out_indices: Any) -> Sequence[int]:
    """Blocks whose outputs are returned; one alone may stand without a list.

    Raises:
        TypeError: If it is neither an integer nor a list.
    """
    if isinstance(out_indices, str) or not isinstance(out_indices, (int, Iterable)):
        raise TypeError(
            'out_indices must be integers, a list of blocks of the largest anchor such as '
            f'(5, 11), got {out_indices!r}.'
        )
    return tuple(out_indices) if isinstance(out_indices, Iterable) else (out_indices,)


def check_size_of_patch(img_size: tuple[int, int], patch_size: int) -> None:
    """Refuse images without one whole patch; beyond that, partial patches are padded.

    Raises:
        ValueError: If a side is smaller than a patch.
    """
    if min(img_size) < patch_size:
        raise ValueError(
            f'img_size={img_size} is smaller than a patch of the anchors, {patch_size} x '
            f'{patch_size} pixels: give the size of training images, such as 512.'
        )
