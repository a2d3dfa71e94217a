"""A training batch as a host's model takes it, of images and labels without meaning."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmsnnet.models import find_stitched_backbone
from mmsnnet.models.host.lookup import is_classifier, is_detector

from ..latency.inference import metainfo_as_is

#: Objects in an image of a detector: COCO has 7.3 on average, and a batch takes what its fullest
#: image takes.
OBJECTS = 20


def image_size_of(model: nn.Module) -> tuple[int, int]:
    """(height, width) in pixels of a model's training images.

    That is the size to which its data preprocessor pads, whole or by its batch augmentation, else
    the size that the backbone is laid out for.
    """
    preprocessor = getattr(model, 'data_preprocessor', None)
    augments = getattr(preprocessor, 'batch_augments', None)
    padding = augments if isinstance(augments, Iterable) else ()
    for size in (getattr(owner, 'size', None) for owner in (preprocessor, *padding)):
        if size is not None:
            return tuple(size)
    return find_stitched_backbone(model).img_size


def training_batch(
    model: nn.Module, batch_size: int, size: tuple[int, int]
) -> tuple[Tensor, list[Any]]:
    """What ``model.loss`` takes: images (B, C, H, W) and their data samples.

    Args:
        model: Segmentor or depth estimator of MMSegmentation, detector of MMDetection or
            classifier of MMPretrain.
        batch_size: Number of images.
        size: Their (height, width) in pixels.
    """
    channels = find_stitched_backbone(model).anchor(0).in_channels
    make = _sample_maker(model)
    samples = [make(size) for _ in range(batch_size)]
    for sample in samples:
        sample.set_metainfo(metainfo_as_is(size))
    return torch.zeros(batch_size, channels, *size), samples


def _sample_maker(model: nn.Module) -> Callable[[tuple[int, int]], Any]:
    if is_detector(model):
        return _detection_sample
    if is_classifier(model):
        return _classification_sample
    return _segmentation_sample


def _segmentation_sample(size: tuple[int, int]) -> Any:
    """Labels and depths of all pixels."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    sample = SegDataSample()
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, *size, dtype=torch.long))
    sample.gt_depth_map = PixelData(data=torch.zeros(1, *size))
    return sample


def _detection_sample(size: tuple[int, int]) -> Any:
    """Boxes, labels and masks of ``OBJECTS`` objects."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    masks = BitmapMasks(np.zeros((OBJECTS, *size), np.uint8), *size)
    sample = DetDataSample()
    sample.gt_instances = InstanceData(
        bboxes=torch.zeros(OBJECTS, 4), labels=torch.zeros(OBJECTS, dtype=torch.long), masks=masks
    )
    return sample


def _classification_sample(_: tuple[int, int]) -> Any:
    """The class of an image."""
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(torch.zeros(1, dtype=torch.long))
