"""What the neck and heads of a detector execute in one inference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

#: Heads of one stage that read the maps of the neck.
_SINGLE_STAGE = ('bbox_head', 'mask_head', 'panoptic_head')


def detector_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Neck and heads of a detector by their names in its config.

    Raises:
        ValueError: If it has other heads than those that can be counted.
    """
    names = ('neck', 'rpn_head', 'roi_head', *_SINGLE_STAGE)
    parts = {name: getattr(model, name, None) for name in names}
    parts = {name: part for name, part in parts.items() if part is not None}
    if 'roi_head' in parts and 'rpn_head' not in parts:
        raise ValueError(
            f'{type(model).__name__} has a roi_head without an rpn_head, so the number of its '
            'proposals is not known and its cost cannot be counted.'
        )
    return parts


def run_detector(model: nn.Module, features: tuple[Any, ...]) -> None:
    """Run neck and heads on what the backbone delivers, as many RoIs as there can be at most.

    The box heads see ``test_cfg.rpn.max_per_img`` proposals and the mask heads
    ``test_cfg.rcnn.max_per_img`` detections, whatever the image holds; each stage of a cascade
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
