"""Inferences of a host's model on noise, to measure what they take."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def blank_samples(model: nn.Module, images: Tensor) -> list[Any] | None:
    """Data samples that go with images (B, 3, H, W): as they are, neither resized nor padded.

    Segmentors of mmseg make their own.
    """
    if 'mmdet' not in sys.modules:
        return None
    from mmdet.models.detectors.base import BaseDetector
    from mmdet.structures import DetDataSample

    if not isinstance(model, BaseDetector):
        return None
    size = tuple(images.shape[-2:])
    meta = dict(
        img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size,
        scale_factor=(1.0, 1.0),
    )  # fmt: skip
    return [DetDataSample(metainfo=meta) for _ in range(len(images))]


def keep_all_boxes(model: nn.Module) -> None:
    """Have a detector keep as many boxes as its test settings allow, whatever it sees.

    How many boxes pass ``score_thr`` depends on image and stitch, and the mask head runs on those
    that do; what is measured is the most that an inference takes, as costs are counted too.
    Changes the test settings of the model.
    """
    for part in (getattr(model, 'roi_head', None), getattr(model, 'bbox_head', None)):
        settings = getattr(part, 'test_cfg', None)
        if settings is not None and 'score_thr' in settings:
            settings.score_thr = 0.0


def inference_on_noise(
    model: nn.Module, image_size: tuple[int, int], batch: int = 1, autocast: bool = False
) -> Callable[[], Any]:
    """What runs one inference: the model's own ``predict`` on normalised noise.

    That is everything behind the data preprocessor: backbone, neck, head, windows of slide mode,
    resizing to the image, suppression of boxes.

    Args:
        model: Segmentor, depth estimator or detector in eval mode.
        image_size: (height, width) in pixels.
        batch: Images at once.
        autocast: Whether to run under autocast of the device.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(batch, 3, *image_size, generator=generator)

    def infer() -> Any:
        # The model gets a copy of its own: inputs count among what an inference holds.
        images = noise.to(device, copy=True)
        with torch.no_grad(), torch.autocast(device.type, enabled=autocast):
            return model(images, blank_samples(model, images), mode='predict')

    return infer
