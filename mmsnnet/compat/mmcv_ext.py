"""Stand-in for mmcv's compiled module ``mmcv._ext``: NMS and RoIAlign on torchvision kernels.

Python executes this file under the name ``mmcv._ext`` while ``mmcv.ops`` is half imported, so it
needs torch and torchvision only and imports neither mmcv nor mmsnnet. ``mmcv.ops`` checks with
``hasattr`` that every operator it may use exists; those that are not provided here exist through
the module's ``__getattr__`` and raise only when they are called.

The argument names and their order are those of mmcv's own bindings (``mmcv/ops/nms.py`` and
``mmcv/ops/roi_align.py`` call them partly by keyword).
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

PROVIDED = ('nms', 'roi_align_forward', 'roi_align_backward')
HOW_TO_COMPILE = ('compiled ops come with the full mmcv: pip uninstall mmcv-lite, then '
                  'mim install "mmcv>=2.0.0rc4,<2.2.0"')


def _kernels() -> Any:
    """Returns torchvision's operator namespace; importing torchvision is what registers it."""
    import torchvision  # noqa: F401
    return torch.ops.torchvision


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy non-maximum suppression with mmcv's meaning of threshold and offset.

    mmcv compares IoU > threshold in single precision. torchvision compares with a double, under
    which a box at an IoU of exactly 0.3 would be dropped at the threshold 0.3 (the float nearest
    to 0.3 is above the double); the threshold is therefore rounded to single precision first.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2 in pixels.
        scores: (N,), higher is better.
        iou_threshold: a box that overlaps a better one by more than this is dropped.
        offset: 0 or 1; widths and heights are x2 - x1 + offset.

    Returns:
        Indices of the kept boxes, int64, by falling score.
    """
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    if offset:
        # Moving the far corner by the offset gives mmcv's widths, heights and intersections.
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    threshold = torch.tensor(iou_threshold, dtype=torch.float32).item()
    return _kernels().nms(boxes, scores, threshold)


def _refuse_max_pooling(pool_mode: int) -> None:
    """Raises NotImplementedError for mmcv's pool mode 0; torchvision has the average (1) only."""
    if pool_mode != 1:
        raise NotImplementedError(
            "mmcv op roi_align with pool_mode='max' is not available without compiled ops "
            f"(pool_mode='avg' is); {HOW_TO_COMPILE}")


def roi_align_forward(features: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor,
                      argmax_x: Tensor, aligned_height: int, aligned_width: int,
                      spatial_scale: float, sampling_ratio: int, pool_mode: int,
                      aligned: bool) -> None:
    """Writes the average-pooled RoIAlign features into ``output``.

    Args:
        features: (N, C, H, W) feature map.
        rois: (R, 5) as batch index, x1, y1, x2, y2 in image pixels.
        output: (R, C, aligned_height, aligned_width), overwritten.
        argmax_y: used by max pooling only, ignored.
        argmax_x: used by max pooling only, ignored.
        aligned_height: bins per box, vertically.
        aligned_width: bins per box, horizontally.
        spatial_scale: feature pixels per image pixel.
        sampling_ratio: samples per bin and direction; 0 or less adapts it to the box.
        pool_mode: 1 = average; 0 = maximum.
        aligned: shift by half a pixel (True) or keep the legacy alignment (False).

    Raises:
        NotImplementedError: for max pooling.
    """
    _refuse_max_pooling(pool_mode)
    output.copy_(_kernels().roi_align(features, rois.to(features.dtype), spatial_scale,
                                      aligned_height, aligned_width, sampling_ratio, aligned))


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                       grad_input: Tensor, aligned_height: int, aligned_width: int,
                       spatial_scale: float, sampling_ratio: int, pool_mode: int,
                       aligned: bool) -> None:
    """Adds the gradient of average-pooled RoIAlign to ``grad_input``.

    Args:
        grad_output: (R, C, aligned_height, aligned_width).
        rois: (R, 5) as batch index, x1, y1, x2, y2 in image pixels.
        argmax_y: used by max pooling only, ignored.
        argmax_x: used by max pooling only, ignored.
        grad_input: (N, C, H, W), added to.
        aligned_height: bins per box, vertically.
        aligned_width: bins per box, horizontally.
        spatial_scale: feature pixels per image pixel.
        sampling_ratio: as in the forward pass.
        pool_mode: 1 = average; 0 = maximum.
        aligned: as in the forward pass.

    Raises:
        NotImplementedError: for max pooling.
    """
    _refuse_max_pooling(pool_mode)
    grad_input.add_(_kernels()._roi_align_backward(
        grad_output, rois.to(grad_output.dtype), spatial_scale, aligned_height, aligned_width,
        *grad_input.shape, sampling_ratio, aligned))


def get_compiler_version() -> str:
    """Returns what environment reports print as the compiler of mmcv's ops."""
    return 'n/a (torchvision stand-in)'


def get_compiling_cuda_version() -> str:
    """Returns what environment reports print as the CUDA version of mmcv's ops."""
    return 'n/a (torchvision stand-in)'


def __getattr__(name: str) -> Callable[..., Any]:
    """Gives every other operator of mmcv as a function that raises when it is called.

    Raises:
        AttributeError: for names that cannot be an operator, such as ``__path__``.
    """
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(
            f'mmcv op {name!r} needs compiled ops; this mmcv has none and the torchvision '
            f'stand-in provides {", ".join(PROVIDED)} only; {HOW_TO_COMPILE}')

    missing.__name__ = missing.__qualname__ = name
    return missing
