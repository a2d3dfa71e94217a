"""Inferences of a host's model on noise, to measure what they take."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mmsnnet.models import find_stitched_backbone


def metainfo_as_is(size: tuple[int, int]) -> dict[str, Any]:
    """What hosts note of an image of (height, width) pixels that was neither resized nor padded."""
    return dict(
        img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size,
        scale_factor=(1.0, 1.0),
    )  # fmt: skip


def blank_samples(model: nn.Module, images: Tensor) -> list[Any] | None:
    """Data samples that go with images (B, C, H, W): as they are, neither resized nor padded.

    Segmentors of mmseg make their own.
    """
    if 'mmdet' not in sys.modules:
        return None
    from mmdet.models.detectors.base import BaseDetector
    from mmdet.structures import DetDataSample

    if not isinstance(model, BaseDetector):
        return None
    meta = metainfo_as_is(tuple(images.shape[-2:]))
    return [DetDataSample(metainfo=meta) for _ in range(len(images))]


def keep_all_boxes(model: nn.Module) -> None:
    """Have a detector keep as many boxes as its test settings allow, whatever it sees.

    How many boxes pass ``score_thr`` depends on image and stitch, and the mask head runs on those
    that do; what is measured is the most that an inference takes, as costs are counted too.
    Changes the test settings of the model.
    """
    for head in (getattr(model, 'roi_head', None), getattr(model, 'bbox_head', None)):
        settings = getattr(head, 'test_cfg', None)
        if settings is not None and 'score_thr' in settings:
            settings.score_thr = 0.0


def inference_on_noise(
    model: nn.Module, image_size: tuple[int, int], batch: int = 1, autocast: bool = False
) -> Callable[[], Any]:
    """What runs one inference: the model's own ``predict`` on normalised noise.

    That is everything behind the data preprocessor: backbone, neck, head, windows of slide mode,
    resizing to the image, suppression of boxes. The noise stays on the device of the model, which
    is the current one meanwhile, so that no copy from the host is part of what is measured.

    Args:
        model: Segmentor, depth estimator or detector in eval mode.
        image_size: (height, width) in pixels.
        batch: Images at once.
        autocast: Whether to run under autocast of the device.
    """
    backbone = find_stitched_backbone(model)
    device, channels = backbone.device, backbone.anchor(0).in_channels
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(batch, channels, *image_size, generator=generator).to(device)

    def infer() -> Any:
        # The model gets a copy of its own: its input counts among the memory of an inference.
        images = noise.clone()
        with torch.no_grad(), current(device), torch.autocast(device.type, enabled=autocast):
            return model(images, blank_samples(model, images), mode='predict')

    return infer


def current(device: torch.device) -> AbstractContextManager:
    """Makes a CUDA device the current one inside a ``with`` block; nothing for others.

    Kernels of extensions and events go to the current device, whatever their tensors' is.
    """
    return torch.cuda.device(device) if device.type == 'cuda' else nullcontext()
