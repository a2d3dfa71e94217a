"""What a whole segmentor, depth estimator, detector or classifier costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from mmsnnet.models import find_stitched_backbone
from mmsnnet.models.host.head_check import check_channels
from mmsnnet.models.host.lookup import is_classifier, is_detector, reads_anchor_tokens
from mmsnnet.models.host.meta_call import meta_call, meta_features
from mmsnnet.models.stitch_network import AnchorTokens
from mmsnnet.stitching import Cost, CostTable, check_image_size

from .flop_counter import FlopCounter

#: Heads of one stage that read the maps of the neck.
_SINGLE_STAGE = ('bbox_head', 'mask_head', 'panoptic_head')


def _inference_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Neck, if any, and decode head or classifier; neck and all heads of a detector.

    Raises:
        ValueError: If the model has no head that can be counted, or none of one cost.
    """
    if is_detector(model):
        return _detector_modules(model)
    if reads_anchor_tokens(model):
        raise ValueError(
            f'The cost of {type(model.head).__name__} depends on the anchor in which a stitch '
            'ends: see classifier_costs().'
        )
    if is_classifier(model):
        modules = {'neck': getattr(model, 'neck', None), 'head': model.head}
        return {name: module for name, module in modules.items() if module is not None}
    if getattr(model, 'decode_head', None) is None:
        raise ValueError(
            f'{type(model).__name__} has no decode_head, so the cost of its head cannot be '
            'counted; only segmentors and depth estimators of MMSegmentation, detectors of '
            'MMDetection and classifiers of MMPretrain are.'
        )
    modules = {'neck': getattr(model, 'neck', None), 'decode_head': model.decode_head}
    return {name: module for name, module in modules.items() if module is not None}


def _estimates_depth(model: nn.Module) -> bool:
    """Whether a model is mmseg's DepthEstimator, which may not even be installed."""
    return any(kind.__name__ == 'DepthEstimator' for kind in type(model).__mro__)


def _run_head(head: nn.Module, features: Any, depth_size: tuple[int, int] | None) -> Any:
    """Output of a decode head, or of the cascade of them in a ModuleList.

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
    modules: dict[str, nn.Module], depth_size: tuple[int, int] | None, features: Any
) -> None:
    """Run neck and decode head, or classifier, on features of the backbone."""
    if 'neck' in modules:
        features = modules['neck'](features)
    if 'head' in modules:
        modules['head'].forward(features)
        return
    _run_head(modules['decode_head'], features, depth_size)


def _detector_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Neck and heads of a detector by their names in its config.

    Raises:
        ValueError: If it has other heads than those that can be counted.
    """
    names = ('neck', 'rpn_head', 'roi_head', *_SINGLE_STAGE)
    modules = {name: getattr(model, name, None) for name in names}
    modules = {name: module for name, module in modules.items() if module is not None}
    if 'roi_head' in modules and 'rpn_head' not in modules:
        raise ValueError(
            f'{type(model).__name__} has a roi_head without an rpn_head, so the number of its '
            'proposals is not known and its cost cannot be counted.'
        )
    return modules


def _run_detector(model: nn.Module, features: tuple[Any, ...]) -> None:
    """Run neck and heads on what the backbone delivers, as many RoIs as there can be at most.

    The box heads see ``test_cfg.rpn.max_per_img`` proposals and the mask heads
    ``test_cfg.rcnn.max_per_img`` detections, whatever is in the image; each stage of a cascade
    sees them all. Only layers are run: choosing and pooling regions (NMS, RoIAlign) and pasting
    masks have no multiply-adds that fvcore would count.

    Args:
        model: Detector of MMDetection on the meta device.
        features: Maps (1, C, H, W).
    """
    if getattr(model, 'neck', None) is not None:
        features = model.neck(features)
    if getattr(model, 'rpn_head', None) is not None:
        model.rpn_head(features)
    if getattr(model, 'roi_head', None) is not None:
        test_cfg = model.test_cfg
        for head, rois in _roi_inputs(model.roi_head, 'bbox', test_cfg.rpn.max_per_img):
            head(rois)
        for head, rois in _roi_inputs(model.roi_head, 'mask', test_cfg.rcnn.max_per_img):
            head(rois)
        return
    for name in _SINGLE_STAGE:
        head = getattr(model, name, None)
        if head is not None:
            # Heads that decode queries also take the samples, of which they count the images.
            head(features, [None]) if name == 'panoptic_head' else head(features)


def _roi_inputs(
    roi_head: nn.Module, kind: str, num_rois: int
) -> Iterator[tuple[nn.Module, Tensor]]:
    """The heads of a kind, one or those of a cascade, each with its pooled regions."""
    heads, extractors = (
        getattr(roi_head, name, None) for name in (f'{kind}_head', f'{kind}_roi_extractor')
    )
    if heads is None:
        return
    if not isinstance(heads, nn.ModuleList):
        heads, extractors = [heads], [extractors]
    for head, extractor in zip(heads, extractors):
        side = extractor.roi_layers[0].output_size
        yield head, torch.empty(num_rois, extractor.out_channels, *side, device='meta')


def _count_flops(
    modules: dict[str, nn.Module], run: Callable[[Any], None], features: tuple[Any, ...]
) -> int:
    try:
        with FlopCounter() as counter:
            meta_call(modules.values(), run, features)
    except Exception as error:
        names = ' and '.join(f'{key} {type(module).__name__}' for key, module in modules.items())
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
    regions as its test_cfg allows, whatever is in the image. Counted by executing on shapes
    alone, by the conventions of :class:`~mmsnnet.evaluation.cost.flop_counter.FlopCounter`; the
    model may be on any device, the meta device too, and is left as it was.

    Args:
        model: Segmentor, depth estimator, detector or classifier with a StitchedViT, wrapped or
            not.
        image_size: (height, width) in pixels, or one number for a square.

    Raises:
        ValueError: If there is no StitchedViT or no such head, its channels do not fit the
            backbone, it cannot be executed on shapes alone, or it depends on the last anchor.
    """
    height, width = check_image_size(image_size)
    model = model.module if is_model_wrapper(model) else model
    modules = _inference_modules(model)
    check_channels(model)
    backbone = find_stitched_backbone(model)
    patch = backbone.space.anchors[-1].patch_size
    features = meta_features(
        backbone.channels,
        grid=(-(-height // patch), -(-width // patch)),
        num_maps=len(backbone.space.taps),
        with_cls_token=bool(getattr(backbone, 'output_cls_token', False)),
    )
    params = nn.ModuleList(modules.values()).parameters()
    if is_detector(model):
        run = partial(_run_detector, model)
    else:
        depth_size = (height, width) if _estimates_depth(model) else None
        run = partial(_run_segmentor, modules, depth_size)
    return Cost(_count_flops(modules, run, features), sum(param.numel() for param in params))


def classifier_costs(model: nn.Module, image_size: int | tuple[int, int]) -> tuple[Cost, ...]:
    """Cost of what a StitchedClsHead runs behind each anchor, from cheap to costly.

    Args:
        model: Classifier with such a head, wrapped or not.
        image_size: (height, width) in pixels, or one number for a square.

    Raises:
        ValueError: If the head does not fit the backbone.
    """
    size = check_image_size(image_size)
    model = model.module if is_model_wrapper(model) else model
    check_channels(model)
    head, costs = model.head, []
    for anchor in find_stitched_backbone(model).space.anchors:
        tokens = torch.empty(1, anchor.num_tokens(size), anchor.width, device='meta')
        feats = (AnchorTokens(tokens, anchor.label, anchor.prefix_tokens),)
        flops = _count_flops({'head': head}, head.forward, feats)
        params = sum(weight.numel() for weight in head.anchor_weights(anchor.label).values())
        costs.append(Cost(flops, params))
    return tuple(costs)


def model_costs(model: nn.Module, image_size: int | tuple[int, int]) -> CostTable:
    """Cost of the whole model under each stitch: backbone, neck and head.

    Args:
        model: Segmentor, depth estimator, detector or classifier with a StitchedViT, wrapped or
            not.
        image_size: (height, width) in pixels, or one number for a square.

    Raises:
        ValueError: As :func:`head_cost`.
    """
    costs = find_stitched_backbone(model).costs.at(image_size)
    if reads_anchor_tokens(model.module if is_model_wrapper(model) else model):
        return costs.plus(by_last_anchor=classifier_costs(model, image_size))
    return costs.plus(head_cost(model, image_size))
