"""Several sweeps in one picture, read back from the artists of the figure."""

from __future__ import annotations

import numpy as np
import pytest

from mmsnnet.evaluation.report.pareto_plot import to_svg
from mmsnnet.evaluation.report.sweep_plot import draw_sweeps
from mmsnnet.results.chooser import chooser_of_records
from tests.results_folder import record, write_latency

ONE = [record('S6', 1, 40.0), record('L12', 9, 50.0), record('S3-L6', 5, 49.0),
       record('L2-S5', 3, 39.0), record('L4-S4', 4, None)]  # fmt: skip
OTHER = [record('S6', 1, 41.0), record('L12', 9, 48.0), record('S3-L6', 5, 40.0)]


def choosers(rule='greater', latency=None):
    records = dict(one=ONE, other=OTHER)
    return {n: chooser_of_records(r, 'mIoU', rule, latency) for n, r in records.items()}


@pytest.mark.parametrize(
    ('rule', 'fronts'),
    [
        ('greater', [[(1, 40), (5, 49), (9, 50)], [(1, 41), (9, 48)]]),
        ('less', [[(1, 40), (3, 39)], [(1, 41), (5, 40)]]),
    ],
)
def test_each_sweep_has_a_front_in_a_colour_of_its_own(rule, fronts):
    axes = draw_sweeps(choosers(rule)).axes[0]
    lines = [[tuple(xy) for xy in line.get_xydata()] for line in axes.lines]
    assert lines == fronts
    assert len({line.get_color() for line in axes.lines}) == 2
    labels = [line.get_label() for line in axes.lines]
    assert labels[0] == f'one ({len(fronts[0])} of 4 on the front)'


def test_anchors_are_named_once_at_their_best():
    texts = draw_sweeps(choosers()).axes[0].texts
    assert {t.get_text(): t.xy for t in texts} == {'S6': (1.0, 41.0), 'L12': (9.0, 50.0)}


def test_the_axis_may_be_milliseconds(tmp_path):
    names = [r['name'] for r in ONE]
    latency = write_latency(tmp_path / 'l.json', {n: (10.0 + i, 1) for i, n in enumerate(names)})
    axes = draw_sweeps(choosers(latency=latency), 'ms').axes[0]
    assert axes.get_xlabel() == 'ms'
    assert [tuple(xy) for xy in axes.lines[1].get_xydata()] == [(10, 41), (11, 48)]


def test_one_sweep_alone_is_drawn_by_families():
    axes = draw_sweeps({'one': choosers()['one']}).axes[0]
    assert axes.get_xlabel() == 'GFLOPs'
    groups = {c.get_label(): np.asarray(c.get_offsets()).tolist() for c in axes.collections}
    assert groups == {'S-L (1)': [[5, 49]], 'L-S (1)': [[3, 39]],
                      'anchors': [[1, 40], [9, 50]]}  # fmt: skip


def test_an_svg_is_the_same_each_time():
    content = to_svg(draw_sweeps(choosers()))
    assert content.startswith(b'<?xml') and b'</svg>' in content
    assert content == to_svg(draw_sweeps(choosers()))


def test_sweeps_of_other_metrics_are_not_compared():
    sweeps = choosers() | {'third': chooser_of_records(OTHER, 'mIoU', 'less')}
    with pytest.raises(ValueError, match=r'one metric can be compared, got one: mIoU \(greater\)'):
        draw_sweeps(sweeps)
