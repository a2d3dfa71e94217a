"""Resampled tables of relative position bias against timm's own."""

from __future__ import annotations

from inspect import signature

import pytest
import torch
from timm.layers import resize_rel_pos_bias_table
from timm.models.beit import gen_relative_position_index

from mmsnnet.models.anchors.bias_table import TableLayout

# Deprecations inside timm's interpolation, which serves as the reference here.
pytestmark = pytest.mark.filterwarnings(r'ignore:::timm\.layers\.interpolate')


def random_table(grid: tuple[int, int], heads: int = 3) -> torch.Tensor:
    rows = (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3
    return torch.randn(rows, heads, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ('source', 'target'),
    [
        ((8, 8), (12, 12)),
        ((8, 8), (8, 12)),
        ((14, 14), (5, 9)),
        ((4, 7), (7, 4)),
        ((1, 1), (3, 3)),
        ((6, 6), (1, 20)),
        ((16, 16), (33, 32)),
    ],
)
def test_a_table_is_resampled_as_timm_does(source, target):
    table = random_table(source)
    rows = (2 * target[0] - 1) * (2 * target[1] - 1) + 3
    # timm takes a table for that of a square grid unless told otherwise
    source_size = {} if source[0] == source[1] else dict(old_window_size=source)
    if source_size and 'old_window_size' not in signature(resize_rel_pos_bias_table).parameters:
        pytest.skip('this timm resamples tables of square grids alone')
    expected = resize_rel_pos_bias_table(table, target, (rows, 3), **source_size)
    found = TableLayout.between(source, target, table.device).resample(table)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_rows_of_the_class_token_stay():
    table = random_table((4, 4))
    found = TableLayout.between((4, 4), (6, 5), table.device).resample(table)
    assert torch.equal(found[-3:], table[-3:])


def test_the_bias_of_a_pair_of_tokens_is_the_row_of_its_offset():
    table = random_table((4, 4))
    layout = TableLayout.between((4, 4), (3, 5), table.device)
    bias, rows = layout.bias(table), layout.resample(table)
    index = gen_relative_position_index((3, 5))
    assert bias.shape == (3, 16, 16)
    for query, key in ((0, 0), (0, 4), (5, 0), (1, 15), (7, 7)):
        assert torch.equal(bias[:, query, key], rows[index[query, key]])
