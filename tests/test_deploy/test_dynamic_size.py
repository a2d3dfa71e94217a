"""Pooling and resizing as products with matrices, against torch's and timm's own."""

from __future__ import annotations

import pytest
import torch
from mmseg.models.utils import Upsample
from timm.layers import resample_abs_pos_embed
from torch import nn
from torch.nn import functional

from mmsnnet.deploy.dynamic_size import pooling_matrix, resample_positions, with_free_sizes


@pytest.mark.parametrize(('size', 'bins'), [(7, 3), (4, 2), (9, 6), (2, 6), (5, 1), (32, 3)])
def test_pooling_is_that_of_torch(size: int, bins: int) -> None:
    x = torch.randn(2, 3, size, size + 3, generator=torch.Generator().manual_seed(0))
    mine = pooling_matrix(size, bins) @ x @ pooling_matrix(size + 3, bins).T
    torch.testing.assert_close(mine, functional.adaptive_avg_pool2d(x, bins))


@pytest.mark.parametrize('prefix', [0, 1, 5])
@pytest.mark.parametrize('grid', [(4, 6), (5, 9), (2, 3), (16, 8), (3, 4)])
def test_position_embeddings_are_resampled_as_by_timm(grid: tuple[int, int], prefix: int) -> None:
    posemb = torch.randn(1, prefix + 24, 8, generator=torch.Generator().manual_seed(0))
    mine = resample_positions(posemb, grid, (4, 6), prefix)
    theirs = resample_abs_pos_embed(posemb, list(grid), [4, 6], prefix)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize('layer', [
    nn.AdaptiveAvgPool2d(3),
    nn.AdaptiveAvgPool2d((2, 5)),
    nn.AdaptiveAvgPool2d((None, 2)),
    Upsample(scale_factor=4, mode='bilinear', align_corners=False),
    Upsample(scale_factor=2, mode='bilinear', align_corners=True),
    Upsample(scale_factor=1.5, mode='nearest'),
    nn.Upsample(scale_factor=2, mode='bilinear'),
    nn.Upsample(size=(9, 4)),
], ids=repr)  # fmt: skip
def test_a_copy_with_free_sizes_computes_the_same(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), layer).eval()
    x = torch.randn(2, 3, 7, 10, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(with_free_sizes(model)(x), model(x))
    assert model[1] is layer
