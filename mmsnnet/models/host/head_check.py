"""Whether neck and heads are made for the maps that the backbone delivers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from .detector_check import check_detector_heads, check_pyramid_neck, is_detector
from .lookup import find_stitched_backbone
from .meta_call import meta_call, meta_features

#: Side, in tokens, of the maps that a neck is tried on: small, and divisible by usual strides.
_TRIAL_GRID = 32


def _as_list(value: Any) -> list[int]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _needs_data(error: Exception) -> bool:
    """Whether a module failed for want of values, or of an operator, on meta tensors."""
    return isinstance(error, NotImplementedError) or 'meta' in str(error).lower()


def _neck_maps(neck: nn.Module, channels: int, num_maps: int) -> list[Tensor] | None:
    """Maps that a neck delivers for maps of a trial grid, as tensors without data.

    None if it does not run without data.

    Raises:
        ValueError: If the neck is made for other maps.
    """
    kind = type(neck).__name__
    fitting: Any = [channels] * num_maps
    declared = getattr(neck, 'in_channels', None)
    if declared is not None and _as_list(declared) != fitting:
        if not isinstance(declared, (list, tuple)):
            fitting = channels
        if declared != fitting:
            raise ValueError(
                f'neck.in_channels={declared} of {kind} does not fit the backbone, which delivers '
                f'{num_maps} maps of {channels} channels: put {fitting}.'
            )
    if kind == 'Feature2Pyramid':
        _check_pyramid(neck, channels)
    features = meta_features(channels, (_TRIAL_GRID, _TRIAL_GRID), num_maps)
    try:
        outputs = meta_call([neck], neck, features)
    except Exception as error:
        if _needs_data(error):
            return None
        raise ValueError(
            f'neck {kind} does not take the {num_maps} maps of {channels} channels that the '
            f'backbone delivers ({_first_line(error)}).'
        ) from error
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _check_pyramid(neck: nn.Module, channels: int) -> None:
    """Check Feature2Pyramid, which keeps no ``in_channels`` (and torch checks none on meta).

    Raises:
        ValueError: If it is made for maps of another width.
    """
    layers = (layer for layer in neck.modules() if isinstance(layer, nn.ConvTranspose2d))
    width = next(layers).in_channels
    if width != channels:
        raise ValueError(
            f'neck.embed_dim={width} of Feature2Pyramid does not fit the backbone, which '
            f'delivers maps of {channels} channels: put {channels}.'
        )


def _heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Heads of a segmentor, auxiliary ones too, each with its place in the config."""
    for place in ('decode_head', 'auxiliary_head'):
        head = getattr(model, place, None)
        if isinstance(head, nn.ModuleList):
            yield from ((f'{place}[{number}]', item) for number, item in enumerate(head))
        elif head is not None:
            yield place, head


def _check_head(place: str, head: nn.Module, channels: list[int], source: str) -> None:
    """Check that a head's declared inputs are maps that are there.

    Raises:
        ValueError: If an index is too high, or the channels differ.
    """
    declared, index = getattr(head, 'in_channels', None), getattr(head, 'in_index', None)
    if declared is None or index is None:
        return
    count = len(channels)
    if not all(-count <= i < count for i in _as_list(index)):
        raise ValueError(
            f'{place}.in_index={index} does not fit: {source} delivers {count} maps, numbered '
            f'0 to {count - 1}.'
        )
    inputs = [channels[i] for i in _as_list(index)]
    if getattr(head, 'input_transform', None) == 'resize_concat':
        fits = declared == sum(inputs)  # the head keeps the sum of what its config lists
    else:
        fits = _as_list(declared) == inputs
    if not fits:
        fitting = inputs if isinstance(index, (list, tuple)) else inputs[0]
        # FCNHead without convolutions has nothing that would change the number of channels.
        also = f' and {place}.channels={fitting}' if getattr(head, 'num_convs', 1) == 0 else ''
        raise ValueError(
            f'{place}.in_channels={declared} of {type(head).__name__} does not fit {source}: '
            f'put {fitting}{also}.'
        )


def _check_reassembly(place: str, head: nn.Module, channels: list[int], source: str) -> None:
    """Check the width of DPTHead, which has an argument of its own beside ``in_channels``.

    Raises:
        ValueError: If it is not that of the maps.
    """
    blocks = getattr(head, 'reassemble_blocks', None)
    if blocks is not None and blocks.projects[0].in_channels != channels[0]:
        raise ValueError(
            f'{place}.embed_dims={blocks.projects[0].in_channels} of {type(head).__name__} does '
            f'not fit {source}: put {channels[0]}.'
        )


def _check_class_tokens(place: str, head: nn.Module, with_tokens: bool) -> None:
    """Check that a head that reads class tokens gets them.

    Raises:
        ValueError: If the backbone hands on maps alone.
    """
    blocks = getattr(head, 'reassemble_blocks', None)
    if blocks is not None and not with_tokens and getattr(head, 'needs_cls_token', True):
        raise ValueError(
            f'{place} {type(head).__name__} with readout_type={blocks.readout_type!r} reads class '
            'tokens, but the backbone hands on maps alone: put backbone.output_cls_token=True.'
        )


def check_channels(model: nn.Module) -> None:
    """Check that neck and heads of a segmentor or detector take what its StitchedViT delivers.

    The declared channels are compared; a neck is also run on shapes alone, to learn what it hands
    on. Auxiliary heads are checked too. Heads that do not declare their channels are passed over,
    and so are all heads behind a neck that cannot run on shapes alone.

    Args:
        model: Segmentor or detector with a StitchedViT, wrapped or not.

    Raises:
        ValueError: If the model has no StitchedViT, or something does not fit; the message says
            which value to put where.
    """
    model = model.module if is_model_wrapper(model) else model
    backbone = find_stitched_backbone(model)
    channels = [backbone.channels] * len(backbone.space.taps)
    source = 'the backbone'
    neck = getattr(model, 'neck', None)
    strides: list[float] = [backbone.patch_size] * len(channels)
    if is_detector(model):
        check_pyramid_neck(model, backbone.channels, backbone.patch_size)
    if neck is not None:
        maps = _neck_maps(neck, backbone.channels, len(channels))
        if maps is None:
            return
        channels = [item.shape[1] for item in maps]
        strides = [backbone.patch_size * _TRIAL_GRID / item.shape[-1] for item in maps]
        source = f'the neck {type(neck).__name__}'
    if is_detector(model):
        check_detector_heads(model, channels, strides, source)
    for place, head in _heads(model):
        _check_head(place, head, channels, source)
        _check_reassembly(place, head, channels, source)
        _check_class_tokens(place, head, neck is None and backbone.output_cls_token)
