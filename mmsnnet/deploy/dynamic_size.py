"""Operators that an exported graph would freeze at the size it was traced with, made exact.

The exporter turns adaptive pooling into pooling of a fixed kernel, and the integer of a scaled size
into a constant, both without a word. Here they are replaced, in a copy of the model, by products
with matrices that the graph builds from the shapes of its inputs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def pooling_matrix(size: int, bins: int) -> Tensor:
    """Matrix (bins, size) of adaptive average pooling along one axis.

    Bin ``i`` is the mean of entries ``floor(i * size / bins)`` up to, and without,
    ``ceil((i + 1) * size / bins)``, as torch's ``adaptive_avg_pool2d`` documents it.
    """
    bin_number = torch.arange(bins).unsqueeze(1)
    first = torch.div(bin_number * size, bins, rounding_mode='floor')
    behind = torch.div((bin_number + 1) * size + bins - 1, bins, rounding_mode='floor')
    place = torch.arange(size).unsqueeze(0)
    inside = ((place >= first) & (place < behind)).float()
    return inside / (behind - first).float()


def bicubic_matrix(new: int, old: int) -> Tensor:
    """Matrix (new, old) of an antialiased bicubic resize along one axis.

    It is that of ``interpolate(mode='bicubic', antialias=True)``: cubic convolution with a of -0.5
    (Keys 1981, as in Pillow), stretched where the new side is the smaller one, its weights scaled
    to a sum of 1.
    """
    numbers = torch.arange(new).float().unsqueeze(1)
    scale = old / (torch.ones(1) * new)
    centre = (numbers + 0.5) * scale
    distance = (torch.arange(old).float().unsqueeze(0) + 0.5 - centre) / scale.clamp(min=1.0)
    x, a = distance.abs(), -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return weights / weights.sum(1, keepdim=True)


def resample_positions(
    posemb: Tensor,
    new_size: Sequence[int],
    old_size: Sequence[int],
    num_prefix_tokens: int = 1,
    **_: Any,
) -> Tensor:
    """Position embedding (1, prefix + N, C) at another grid, as timm resamples it."""
    prefix, patches = posemb[:, :num_prefix_tokens], posemb[:, num_prefix_tokens:]
    patches = patches.reshape(1, old_size[0], old_size[1], posemb.shape[-1])
    rows, columns = (bicubic_matrix(new, old) for new, old in zip(new_size, old_size))
    patches = torch.einsum('rh,bhwc->brwc', rows, patches)
    patches = torch.einsum('sw,brwc->brsc', columns, patches)
    return torch.cat([prefix, patches.flatten(1, 2)], dim=1)


class _Pooling(nn.Module):
    """Adaptive average pooling of maps (B, C, H, W) as two products."""

    def __init__(self, bins: tuple[int, int]) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (pooling_matrix(x.shape[2 + axis], self.bins[axis]) for axis in (0, 1))
        return rows @ x @ columns.transpose(0, 1)


class _Upsampling(nn.Module):
    """Resizing of maps by a whole factor."""

    def __init__(self, factor: tuple[int, int], mode: str, align_corners: bool | None) -> None:
        super().__init__()
        self.factor, self.mode, self.align_corners = factor, mode, align_corners

    def forward(self, x: Tensor) -> Tensor:
        size = [x.shape[2 + axis] * self.factor[axis] for axis in (0, 1)]
        return functional.interpolate(x, size, None, self.mode, self.align_corners)


def with_free_sizes(model: nn.Module) -> nn.Module:
    """A copy of a model whose pooling and resizing export exactly for images of any size."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            replacement = _replacement(module)
            if replacement is not None:
                setattr(parent, name, replacement.eval())
    return model


def _replacement(module: nn.Module) -> nn.Module | None:
    if isinstance(module, nn.AdaptiveAvgPool2d):
        bins = module.output_size
        bins = bins if isinstance(bins, (tuple, list)) else (bins, bins)
        return None if None in bins else _Pooling(tuple(bins))
    factor = getattr(module, 'scale_factor', None)
    if type(module).__name__ != 'Upsample' or not factor or getattr(module, 'size', None):
        return None
    factor = factor if isinstance(factor, tuple) else (factor, factor)
    if any(one != int(one) for one in factor):
        return None
    return _Upsampling(tuple(map(int, factor)), module.mode, module.align_corners)
