"""Whether the heads of a detector are made for the maps that its neck delivers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

#: Enlargements of a ViT's map that SimpleFeaturePyramid makes.
_SCALES = (4, 2, 1, 0.5)
#: Where detectors keep the heads that read the maps of the neck.
_HEADS = ('rpn_head', 'bbox_head', 'mask_head', 'panoptic_head')


def is_detector(model: nn.Module) -> bool:
    """Whether a model is a detector of MMDetection, with one stage or two."""
    names = (*_HEADS, 'roi_head')
    return not hasattr(model, 'decode_head') and any(hasattr(model, name) for name in names)


def _numbers(strides: Any) -> list[float]:
    """Strides as one number each; generators keep pairs."""
    firsts = (item[0] if isinstance(item, (list, tuple)) else item for item in strides)
    return [int(value) if value == int(value) else value for value in firsts]


def _strided(model: nn.Module) -> Iterator[tuple[str, list[float]]]:
    """What works on maps of given strides: its argument in the config, and the strides."""
    for place in _HEADS:
        head = getattr(model, place, None)
        if hasattr(head, 'prior_generator'):
            # Heads without anchors take the strides of their points themselves.
            kind = type(head.prior_generator).__name__
            part = 'strides' if 'Point' in kind else 'anchor_generator.strides'
            yield f'{place}.{part}', _numbers(head.prior_generator.strides)
        elif hasattr(getattr(head, 'pixel_decoder', None), 'strides'):
            yield f'{place}.pixel_decoder.strides', _numbers(head.pixel_decoder.strides)
    for name, _, extractor in _extractors(model):
        yield f'roi_head.{name}.featmap_strides', _numbers(extractor.featmap_strides)


def _each(module: nn.Module | None) -> list[nn.Module]:
    """A module, or those that a cascade keeps of it."""
    return list(module) if isinstance(module, nn.ModuleList) else [module] if module else []


def _extractors(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """RoI extractors, each with its argument in the config and the head that it feeds."""
    roi_head = getattr(model, 'roi_head', None)
    for kind in ('bbox', 'mask'):
        name = f'{kind}_roi_extractor'
        heads, extractors = (
            _each(getattr(roi_head, item, None)) for item in (f'{kind}_head', name)
        )
        for head, extractor in zip(heads, extractors):
            if hasattr(extractor, 'featmap_strides'):
                yield name, head, extractor


def check_pyramid_neck(model: nn.Module, channels: int, patch_size: int) -> None:
    """Check that a detector has a neck that makes several strides of the ViT's one.

    Args:
        model: The detector.
        channels: Channels of the backbone's maps.
        patch_size: Their stride in pixels.

    Raises:
        ValueError: If it has none, or one like FPN that joins maps of several strides; the
            message says what to write.
    """
    neck = getattr(model, 'neck', None)
    wanted = max((strides for _, strides in _strided(model)), key=len, default=[])
    if len(wanted) < 2 or (neck is not None and not hasattr(neck, 'lateral_convs')):
        return
    replaced = '' if neck is None else '_delete_=True, '
    has = 'has no neck' if neck is None else f'has the neck {type(neck).__name__}'
    raise ValueError(
        f'{type(model).__name__} {has}, but its heads read strides {wanted} and every map of a '
        f'StitchedViT has stride {patch_size}: put neck=dict({replaced}'
        f'{_pyramid(channels, patch_size, wanted)}).'
    )


def _pyramid(channels: int, patch_size: int, strides: Sequence[float]) -> str:
    """Arguments of a pyramid that delivers the strides."""
    scales = tuple(scale for scale in _SCALES if patch_size / scale in strides) or _SCALES
    text = '' if scales == _SCALES else f', scale_factors={scales}'
    return (
        f"type='SimpleFeaturePyramid', in_channels={channels}, out_channels=256, "
        f'num_outs={len(strides)}{text}'
    )


def check_detector_heads(
    model: nn.Module, channels: Sequence[int], strides: Sequence[float], source: str
) -> None:
    """Check that the heads of a detector take the maps of its neck.

    Args:
        model: The detector.
        channels: Channels of each map.
        strides: Stride of each map in pixels.
        source: What delivers them, in words.

    Raises:
        ValueError: If strides or channels differ; the message says which value to put where.
    """
    given = _numbers(strides)
    for place, wanted in _strided(model):
        if given[: len(wanted)] != wanted:
            raise ValueError(
                f'{place}={wanted} does not fit {source}, which delivers strides {given}: put '
                f'{given[: len(wanted)]}, or make the neck deliver the others (num_outs and '
                'scale_factors of SimpleFeaturePyramid).'
            )
    inputs = [
        (f'{name}.in_channels', getattr(model, name).in_channels)
        for name in _HEADS
        if isinstance(getattr(getattr(model, name, None), 'in_channels', None), int)
    ]
    for name, head, extractor in _extractors(model):
        inputs.append((f'roi_head.{name}.out_channels', extractor.out_channels))
        inputs.append((f'roi_head.{name[:4]}_head.in_channels', head.in_channels))
    for place, declared in inputs:
        if declared != channels[0]:
            raise ValueError(
                f'{place}={declared} does not fit {source}, which delivers {channels[0]} '
                f'channels: put {channels[0]}.'
            )
    _check_pixel_decoder(model, channels, source)


def _check_pixel_decoder(model: nn.Module, channels: Sequence[int], source: str) -> None:
    """Check the channels that the pixel decoder of a Mask2Former is made for.

    Raises:
        ValueError: If they are not those of the neck's maps.
    """
    decoder = getattr(getattr(model, 'panoptic_head', None), 'pixel_decoder', None)
    if not hasattr(decoder, 'input_convs'):
        return
    # Its encoder takes the smallest map first; what is larger is joined afterwards.
    parts = (*decoder.input_convs, *decoder.lateral_convs)
    declared = [part.conv.in_channels for part in reversed(parts)]
    fitting = list(channels[: len(declared)])
    if declared != fitting:
        raise ValueError(
            f'panoptic_head.in_channels={declared} does not fit {source}: put {fitting}.'
        )
