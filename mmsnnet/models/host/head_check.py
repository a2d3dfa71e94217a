"""Whether neck and heads are made for the maps that the backbone delivers.

What arguments of the config say is compared with what is delivered, one row an argument; then necks
and heads run on meta tensors, and the first layer that is given another number of channels than it
was built for is named. So what no row knows of is found as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..stitched_vit import StitchedViT
from .classifier_check import check_classifier
from .layer_widths import LayerWidths
from .lookup import find_stitched_backbone, is_classifier, is_detector, without_wrapper
from .meta_call import meta_call, meta_features

#: Side, in tokens, of the maps that a neck is tried on: small, and divisible by usual strides.
_TRIAL_GRID = 32
#: Enlargements of a ViT's map that SimpleFeaturePyramid makes.
_SCALES = (4, 2, 1, 0.5)
#: Where detectors keep the heads that read the maps of the neck.
_DETECTOR_HEADS = ('rpn_head', 'bbox_head', 'mask_head', 'panoptic_head')
_OTHER_STRIDES = (
    ', or make the neck deliver the others (num_outs and scale_factors of SimpleFeaturePyramid)'
)


@dataclass(frozen=True)
class Maps:
    """What backbone or neck deliver.

    Attributes:
        source: Who delivers them, in words.
        channels: Channels of each map.
        strides: Pixels of the image from one of its positions to the next, of each map.
        with_tokens: Whether each comes in a pair with its class token.
    """

    source: str
    channels: list[int]
    strides: list[float]
    with_tokens: bool = False

    def __str__(self) -> str:
        """In words."""
        widths = self.channels[0] if len(set(self.channels)) == 1 else self.channels
        strides = self.strides[0] if len(set(self.strides)) == 1 else self.strides
        at = 'strides' if isinstance(strides, list) else 'stride'
        return (
            f'{self.source}, which delivers {len(self.channels)} maps of {widths} channels at '
            f'{at} {strides}'
        )

    def features(self) -> tuple[Any, ...]:
        """The maps on a trial grid, as tensors without data."""
        finest = min(self.strides)
        return tuple(
            meta_features(width, (side, side), 1, self.with_tokens)[0]
            for width, stride in zip(self.channels, self.strides)
            for side in [max(1, int(_TRIAL_GRID * finest / stride))]
        )


@dataclass(frozen=True)
class Argument:
    """An argument of the config whose value follows from the maps.

    Attributes:
        path: Where it stands below ``model``.
        module: What was built from it.
        value: What it says.
        fitting: What it must say.
        hint: What else can be done, behind the value to put.
    """

    path: str
    module: nn.Module
    value: Any
    fitting: Any
    hint: str = ''


def check_channels(model: nn.Module) -> None:
    """Check that neck and heads of a model take what its StitchedViT delivers.

    Auxiliary heads are checked too. Passed over are all heads behind a neck that cannot run on
    shapes alone, and what heads of detectors compute with their input.

    Args:
        model: Segmentor, detector or classifier with a StitchedViT, wrapped or not.

    Raises:
        ValueError: If the model has no StitchedViT, or something does not fit; the message names
            the argument of the config, and which value to put.
    """
    model = without_wrapper(model)
    backbone = find_stitched_backbone(model)
    if is_classifier(model):
        check_classifier(model, backbone)
        return
    _check_lifted(model, backbone)
    count = len(backbone.space.taps)
    maps = Maps(
        'the backbone', [backbone.channels] * count, [backbone.patch_size] * count,
        backbone.output_cls_token,
    )  # fmt: skip
    neck = getattr(model, 'neck', None)
    if is_detector(model):
        _check_pyramid_neck(model, maps)
    if neck is not None:
        _check_arguments(_neck_arguments(neck, maps), maps)
        maps = _maps_behind(neck, maps)
        if maps is None:
            return
    if is_detector(model):
        _check_arguments(_detector_arguments(model, maps), maps)
    for path, head in _heads(model):
        _check_index(path, head, maps)
        _check_arguments(_head_arguments(path, head, maps), maps)
        _check_class_tokens(path, head, maps)
        _check_layers(path, head, maps)


def _check_lifted(model: nn.Module, backbone: StitchedViT) -> None:
    """Refuse tokens of whichever anchor for a model that reads maps.

    Raises:
        ValueError: If the backbone delivers them.
    """
    if not backbone.space.lift_taps:
        raise ValueError(
            f'{type(model).__name__} reads maps of constant channels, but lift_taps=False hands on '
            'the tokens of whichever anchor a stitch ends in, for StitchedClsHead alone: leave '
            'lift_taps out.'
        )


def _check_arguments(arguments: Iterator[Argument], maps: Maps) -> None:
    """Refuse the first argument that does not fit.

    Raises:
        ValueError: If there is one.
    """
    for one in arguments:
        if one.value != one.fitting:
            raise ValueError(
                f'{one.path}={one.value} of {type(one.module).__name__} does not fit {maps}: put '
                f'{one.fitting}{one.hint}.'
            )


def _neck_arguments(neck: nn.Module, maps: Maps) -> Iterator[Argument]:
    """Channels that a neck is made for."""
    declared = getattr(neck, 'in_channels', None)
    if isinstance(declared, (list, tuple)):
        yield Argument('neck.in_channels', neck, list(declared), maps.channels)
    elif declared is not None:  # of the last map alone, or of each
        yield Argument('neck.in_channels', neck, declared, maps.channels[0])
    if type(neck).__name__ == 'Feature2Pyramid':  # it keeps no argument
        layers = (layer for layer in neck.modules() if isinstance(layer, nn.ConvTranspose2d))
        yield Argument('neck.embed_dim', neck, next(layers).in_channels, maps.channels[0])


def _maps_behind(neck: nn.Module, maps: Maps) -> Maps | None:
    """What a neck makes of maps; None if that is not known without data.

    Raises:
        ValueError: If it does not take them.
    """
    kind = type(neck).__name__
    given = meta_features(maps.channels[0], (_TRIAL_GRID, _TRIAL_GRID), len(maps.channels))
    with LayerWidths(neck, 'neck') as widths:
        try:
            outputs = meta_call([neck], neck, given)
        except Exception as error:
            if not widths.mismatch and _needs_data(error):
                return None
            reason = widths.mismatch or (str(error).strip() or type(error).__name__)
            raise ValueError(
                f'neck {kind} does not take the {len(maps.channels)} maps of {maps.channels[0]} '
                f'channels that the backbone delivers ({reason.splitlines()[0]}).'
            ) from error
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    strides = [maps.strides[0] * _TRIAL_GRID / item.shape[-1] for item in outputs]
    return Maps(f'the neck {kind}', [item.shape[1] for item in outputs], _numbers(strides))


def _needs_data(error: Exception) -> bool:
    """Whether a module failed for want of values, or of an operator, on meta tensors."""
    return isinstance(error, NotImplementedError) or 'meta' in str(error).lower()


def _heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Heads of a segmentor, auxiliary ones too, each with its path in the config."""
    for path in ('decode_head', 'auxiliary_head'):
        head = getattr(model, path, None)
        if isinstance(head, nn.ModuleList):
            yield from ((f'{path}[{number}]', item) for number, item in enumerate(head))
        elif head is not None:
            yield path, head


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _check_index(path: str, head: nn.Module, maps: Maps) -> None:
    """Check that the maps that a head reads are there.

    Raises:
        ValueError: If one is not.
    """
    index, count = getattr(head, 'in_index', None), len(maps.channels)
    if index is not None and not all(-count <= i < count for i in _as_list(index)):
        raise ValueError(
            f'{path}.in_index={index} does not fit: {maps.source} delivers {count} maps, numbered '
            f'0 to {count - 1}.'
        )


def _head_arguments(path: str, head: nn.Module, maps: Maps) -> Iterator[Argument]:
    """Channels that a segmentor's head is made for."""
    declared, index = getattr(head, 'in_channels', None), getattr(head, 'in_index', None)
    if declared is not None and index is not None:
        inputs = [maps.channels[i] for i in _as_list(index)]
        fitting = inputs if isinstance(index, (list, tuple)) else inputs[0]
        # The head keeps the sum of what its config lists.
        joined = getattr(head, 'input_transform', None) == 'resize_concat'
        fits = declared == sum(inputs) if joined else _as_list(declared) == inputs
        # FCNHead without convolutions has nothing that would change the number of channels.
        hint = f' and {path}.channels={fitting}' if getattr(head, 'num_convs', 1) == 0 else ''
        value = fitting if fits else declared
        yield Argument(f'{path}.in_channels', head, value, fitting, hint)
    blocks = getattr(head, 'reassemble_blocks', None)
    if blocks is not None:  # DPTHead has an argument of its own beside in_channels
        width = blocks.projects[0].in_channels
        yield Argument(f'{path}.embed_dims', head, width, maps.channels[0])


def _check_class_tokens(path: str, head: nn.Module, maps: Maps) -> None:
    """Check that a head that reads class tokens gets them.

    Raises:
        ValueError: If maps alone are delivered.
    """
    blocks = getattr(head, 'reassemble_blocks', None)
    if blocks is not None and not maps.with_tokens and getattr(head, 'needs_cls_token', True):
        raise ValueError(
            f'{path} {type(head).__name__} with readout_type={blocks.readout_type!r} reads class '
            'tokens, but the backbone hands on maps alone: put backbone.output_cls_token=True.'
        )


def _check_layers(path: str, head: nn.Module, maps: Maps) -> None:
    """Run a head on shapes alone and check what each of its layers is given.

    What fails otherwise is passed over: some heads need data, or more than maps.

    Raises:
        ValueError: If a layer is given another number of channels than it takes.
    """
    with LayerWidths(head, path) as widths:
        try:
            meta_call([head], head, maps.features())
        except Exception as error:
            if not widths.mismatch:
                return
            raise ValueError(
                f'{path} {type(head).__name__} does not fit {maps}: {widths.mismatch}.'
            ) from error


def _numbers(strides: Any) -> list[float]:
    """Strides as one number each; generators keep pairs."""
    firsts = (item[0] if isinstance(item, (list, tuple)) else item for item in strides)
    return [int(value) if value == int(value) else value for value in firsts]


def _check_pyramid_neck(model: nn.Module, maps: Maps) -> None:
    """Check that a detector has a neck that makes several strides of the ViT's one.

    Raises:
        ValueError: If it has none, or one like FPN that joins maps of several strides; the
            message says what to write.
    """
    neck = getattr(model, 'neck', None)
    wanted = max((strides for *_, strides in _strided(model)), key=len, default=[])
    if len(wanted) < 2 or (neck is not None and not hasattr(neck, 'lateral_convs')):
        return
    replaced = '' if neck is None else '_delete_=True, '
    has = 'has no neck' if neck is None else f'has the neck {type(neck).__name__}'
    patch = maps.strides[0]
    scales = tuple(scale for scale in _SCALES if patch / scale in wanted) or _SCALES
    also = '' if scales == _SCALES else f', scale_factors={scales}'
    raise ValueError(
        f'{type(model).__name__} {has}, but its heads read strides {wanted} and every map of a '
        f"StitchedViT has stride {patch}: put neck=dict({replaced}type='SimpleFeaturePyramid', "
        f'in_channels={maps.channels[0]}, out_channels=256, num_outs={len(wanted)}{also}).'
    )


def _strided(model: nn.Module) -> Iterator[tuple[str, nn.Module, list[float]]]:
    """What works on maps of given strides: its path in the config, itself, and the strides."""
    for path in _DETECTOR_HEADS:
        head = getattr(model, path, None)
        if hasattr(head, 'prior_generator'):
            # Heads without anchors take the strides of their points themselves.
            kind = type(head.prior_generator).__name__
            argument = 'strides' if 'Point' in kind else 'anchor_generator.strides'
            yield f'{path}.{argument}', head, _numbers(head.prior_generator.strides)
        elif hasattr(getattr(head, 'pixel_decoder', None), 'strides'):
            yield f'{path}.pixel_decoder.strides', head, _numbers(head.pixel_decoder.strides)
    for name, _, extractor in _extractors(model):
        yield f'roi_head.{name}.featmap_strides', extractor, _numbers(extractor.featmap_strides)


def _extractors(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """RoI extractors, each with its argument in the config and the head that it feeds."""

    def each(module: nn.Module | None) -> Sequence[nn.Module]:
        return module if isinstance(module, nn.ModuleList) else [module] if module else []

    roi_head = getattr(model, 'roi_head', None)
    for kind in ('bbox', 'mask'):
        name = f'{kind}_roi_extractor'
        heads = each(getattr(roi_head, f'{kind}_head', None))
        for head, extractor in zip(heads, each(getattr(roi_head, name, None))):
            if hasattr(extractor, 'featmap_strides'):
                yield name, head, extractor


def _detector_arguments(model: nn.Module, maps: Maps) -> Iterator[Argument]:
    """Strides and channels that a detector's heads are made for."""
    for path, module, strides in _strided(model):
        fitting = maps.strides[: len(strides)]
        yield Argument(path, module, strides, fitting, _OTHER_STRIDES)
    width = maps.channels[0]
    for path in _DETECTOR_HEADS:
        head = getattr(model, path, None)
        if isinstance(getattr(head, 'in_channels', None), int):
            yield Argument(f'{path}.in_channels', head, head.in_channels, width)
        decoder = getattr(head, 'pixel_decoder', None)
        if hasattr(decoder, 'input_convs'):
            # The encoder of a Mask2Former takes the smallest map first, then what is larger.
            layers = (*decoder.input_convs, *decoder.lateral_convs)
            declared = [layer.conv.in_channels for layer in reversed(layers)]
            fitting = list(maps.channels[: len(declared)])
            yield Argument(f'{path}.in_channels', head, declared, fitting)
    for name, head, extractor in _extractors(model):
        yield Argument(f'roi_head.{name}.out_channels', extractor, extractor.out_channels, width)
        yield Argument(f'roi_head.{name[:4]}_head.in_channels', head, head.in_channels, width)
