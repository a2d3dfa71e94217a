"""What a whole segmentor, depth estimator or detector costs: backbone, neck and head."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn

from mmsnnet.models import find_stitched_backbone
from mmsnnet.models.host.head_check import check_channels
from mmsnnet.models.host.lookup import is_detector
from mmsnnet.models.host.meta_call import meta_call, meta_features
from mmsnnet.stitching import Cost, CostTable, check_image_size

from .detector_cost import detector_modules, run_detector
from .flop_counter import FlopCounter


def _inference_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Neck, if any, and decode head; neck and all heads of a detector.

    Raises:
        ValueError: If the model has no head that can be counted.
    """
    if is_detector(model):
        return detector_modules(model)
    if getattr(model, 'decode_head', None) is None:
        raise ValueError(
            f'{type(model).__name__} has no decode_head, so the cost of its head cannot be '
            'counted; only segmentors and depth estimators of MMSegmentation and detectors of '
            'MMDetection are.'
        )
    parts = {'neck': getattr(model, 'neck', None), 'decode_head': model.decode_head}
    return {name: part for name, part in parts.items() if part is not None}


def _estimates_depth(model: nn.Module) -> bool:
    """Whether a model is mmseg's DepthEstimator, which may not even be installed."""
    return any(kind.__name__ == 'DepthEstimator' for kind in type(model).__mro__)


def _run_head(head: nn.Module, features: Any, depth_size: tuple[int, int] | None) -> Any:
    """Output of a decode head, or of the cascade of them that a ModuleList holds.

    Args:
        head: The head.
        features: What it reads.
        depth_size: (height, width) that a head of depth resizes to; None for segmentation.
    """
    if depth_size is not None:
        return head.predict(features, [dict(img_shape=depth_size)], None)
    if not isinstance(head, nn.ModuleList):
        return head.forward(features)
    out = head[0].forward(features)
    for stage in head[1:]:
        out = stage.forward(features, out)
    return out


def _run_segmentor(
    parts: dict[str, nn.Module], depth_size: tuple[int, int] | None, features: Any
) -> None:
    """Run neck and decode head on features of the backbone."""
    if 'neck' in parts:
        features = parts['neck'](features)
    _run_head(parts['decode_head'], features, depth_size)


def _count_flops(
    parts: dict[str, nn.Module], run: Callable[[Any], None], features: tuple[Any, ...]
) -> int:
    try:
        with FlopCounter() as counter:
            meta_call(parts.values(), run, features)
    except Exception as error:
        names = ' and '.join(f'{key} {type(part).__name__}' for key, part in parts.items())
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f'Cannot count {names}: it does not run on shapes alone ({first_line}).'
        ) from error
    return counter.total


def head_cost(model: nn.Module, image_size: int | tuple[int, int]) -> Cost:
    """Cost of everything of a model that an inference runs behind its backbone.

    This is neck and decode head, without auxiliary heads; it is the same for all stitches. The
    resizing to the image is left out in segmentors, and counted in depth estimators, as in the
    published tables of both: their figures for depth trace it even where it changes no size (4 x
    480 x 640 FLOPs on NYUv2). Of a detector it is neck, RPN, and box and mask heads on as many
    regions as its test_cfg allows (``detector_cost.run_detector``). Counted by executing on shapes
    alone, by the conventions of :class:`~mmsnnet.evaluation.cost.flop_counter.FlopCounter`; the
    model may be on any device, the meta device too, and is left as it was.

    Args:
        model: Segmentor, depth estimator or detector with a StitchedViT, wrapped or not.
        image_size: (height, width) in pixels, or one number for a square.

    Raises:
        ValueError: If there is no StitchedViT or no such head, its channels do not fit the
            backbone, or it cannot be executed on shapes alone.
    """
    height, width = check_image_size(image_size)
    model = model.module if is_model_wrapper(model) else model
    parts = _inference_modules(model)
    check_channels(model)
    backbone = find_stitched_backbone(model)
    patch = backbone.space.anchors[-1].patch_size
    features = meta_features(
        backbone.channels,
        grid=(-(-height // patch), -(-width // patch)),
        num_maps=len(backbone.space.taps),
        with_cls_token=bool(getattr(backbone, 'output_cls_token', False)),
    )
    params = nn.ModuleList(parts.values()).parameters()
    if is_detector(model):
        run = partial(run_detector, model)
    else:
        depth_size = (height, width) if _estimates_depth(model) else None
        run = partial(_run_segmentor, parts, depth_size)
    return Cost(_count_flops(parts, run, features), sum(param.numel() for param in params))


def model_costs(model: nn.Module, image_size: int | tuple[int, int]) -> CostTable:
    """Cost of the whole model under each stitch: backbone, neck and head.

    Args:
        model: Segmentor, depth estimator or detector with a StitchedViT, wrapped or not.
        image_size: (height, width) in pixels, or one number for a square.

    Raises:
        ValueError: As :func:`head_cost`.
    """
    head = head_cost(model, image_size)
    return find_stitched_backbone(model).costs.at(image_size).plus(head)
