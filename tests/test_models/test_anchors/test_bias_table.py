"""Resampled tables of relative position bias against timm's own."""

from __future__ import annotations

from inspect import signature

import pytest
import torch
from timm.layers import resize_rel_pos_bias_table
from timm.models.beit import gen_relative_position_index
from torch._subclasses.fake_tensor import FakeTensorMode

from mmsnnet.models import AnchorConfig, build_anchor
from mmsnnet.models.anchors.bias_table import TableLayout
from tests.builders import random_images, tiny_anchor

TENSOR = torch.tensor

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


def test_layouts_of_a_size_are_built_once_for_all_forwards(monkeypatch):
    anchor = build_anchor(AnchorConfig.parse(tiny_anchor(3, 48, 'two tables')), (64, 64))
    images = random_images(1, 40, 72)
    tokens, made = anchor.embed(images), []
    before = {name: value.clone() for name, value in anchor.state_dict().items()}
    modules = len(list(anchor.modules())), sorted(vars(anchor))
    for _ in range(3):
        calls = []

        def counted(*args, calls=calls, **settings):
            calls.append(args)
            return TENSOR(*args, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(torch, 'tensor', counted)
            context = anchor.context((5, 9))
            for index in range(3):
                anchor.run_block(tokens, index, context)
        made.append(len(calls))
    assert made[1:] == [0, 0]
    assert (len(list(anchor.modules())), sorted(vars(anchor))) == modules
    assert all(torch.equal(value, before[name]) for name, value in anchor.state_dict().items())


def test_a_layout_first_asked_for_in_inference_serves_training():
    cpu = torch.device('cpu')
    with torch.inference_mode():
        layout = TableLayout.between((4, 4), (3, 7), cpu)
    table = torch.randn(7 * 7 + 3, 2, requires_grad=True)
    layout.bias(table).square().sum().backward()
    assert table.grad.abs().sum() > 0
    assert TableLayout.between((4, 4), (3, 7), cpu) is layout


def test_layouts_without_values_are_not_kept():
    cpu = torch.device('cpu')
    for first in (True, False):
        target = (3, 5 + first)
        if not first:
            TableLayout.between((4, 4), target, cpu)
        with FakeTensorMode():
            assert TableLayout.between((4, 4), target, cpu).bias(torch.empty(52, 2)).ndim == 3
        layout = TableLayout.between((4, 4), target, cpu)
        assert type(layout.index) is torch.Tensor and torch.isfinite(layout.bias(
            torch.zeros(52, 2))).all()
