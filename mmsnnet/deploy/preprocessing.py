"""Pictures in, labels or depth out: what stands around a model, as a part of its graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmsnnet.runtime.metadata import ModelMetadata

from .inference import SwitchedInference


class PictureInference(nn.Module):
    """Inference on pictures of any size.

    Pictures are resized to the size that the model was exported for (bilinear, pixel centres at
    halves, without antialiasing, proportions not kept), then normalised; logits or depth are
    resized to the pictures likewise. A pipeline that resizes otherwise, such as by OpenCV in whole
    numbers, gives slightly other values.

    Args:
        inference: Fixed or switched inference module on normalised images.
        metadata: Size, normalisation and task.

    Raises:
        ValueError: If the task ends in neither labels nor depth.
    """

    def __init__(self, inference: nn.Module, metadata: ModelMetadata) -> None:
        super().__init__()
        if metadata.task == 'classification':
            raise ValueError(
                'Pictures for a classifier are resized and cropped as its test pipeline does, '
                'which is not in the file: leave out --with-preprocessing; mmsnnet.runtime takes '
                'cropped pictures of uint8 and normalises them.'
            )
        if metadata.task not in ('segmentation', 'depth'):
            raise ValueError(
                'Preprocessing can be exported with segmentors and depth estimators; of this '
                f'model the {metadata.task} are exported, whose heads are not in the file.'
            )
        self.inference = inference
        self.image_size = tuple(metadata.image_size)
        self.has_classes = metadata.task == 'segmentation'
        self.register_buffer('mean', torch.tensor(metadata.mean).reshape(1, -1, 1, 1), False)
        self.register_buffer('std', torch.tensor(metadata.std).reshape(1, -1, 1, 1), False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stitches of a switched inference."""
        return getattr(self.inference, 'names', ())

    def forward(self, pictures: Tensor, *stitch: Tensor) -> Tensor:
        """Labels (B, H, W), uint8 or, of more than 256 classes, int64; or depth (B, 1, H, W).

        Args:
            pictures: uint8 (B, H, W, C), channels in the order of the metadata.
            stitch: Its number, where the inference is switched.
        """
        size = tuple(pictures.shape[1:3])
        images = (_resize(pictures.permute(0, 3, 1, 2).float(), self.image_size) - self.mean)
        out = _resize(self.inference(images / self.std, *stitch), size)
        if not self.has_classes:
            return out
        if out.shape[1] == 1:  # a single map of a foreground, above 0 where its share is over half
            return (out[:, 0] > 0).to(torch.uint8)
        labels = out.argmax(1)
        return labels.to(torch.uint8) if out.shape[1] <= 256 else labels


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(maps, size, mode='bilinear', align_corners=False)


def is_switched(module: nn.Module) -> bool:
    """Whether the number of a stitch is an input of an inference module."""
    return isinstance(getattr(module, 'inference', module), SwitchedInference)
