"""The pictures, read back from the artists of the figure and from the file."""

from __future__ import annotations

import math
import random
import struct

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

from mmsnnet.evaluation.report.pareto_plot import draw_sweeps, to_png, to_svg
from mmsnnet.results.candidate import Candidate
from mmsnnet.results.chooser import Chooser, chooser_of_records
from mmsnnet.results.pareto import Point, pareto_front
from tests.results_folder import record, write_latency
from tests.test_evaluation.test_report.published_ade20k import published_records

ONE = [record('S6', 1, 40.0), record('L12', 9, 50.0), record('S3-L6', 5, 49.0),
       record('L2-S5', 3, 39.0), record('L4-S4', 4, None)]  # fmt: skip
OTHER = [record('S6', 1, 41.0), record('L12', 9, 48.0), record('S3-L6', 5, 40.0)]


def draw(points, families, metric, rule='greater', **options):
    """Figure of points whose costs are FLOPs."""
    candidates = [Candidate(p.name, families[p.name], p.cost, 1, p.quality) for p in points]
    return draw_sweeps({'sweep': Chooser(candidates, metric, rule)}, **options)


def plot_png(*arguments, **options):
    return to_png(draw(*arguments, **options))


def make_space(count=60, seed=1):
    """Two anchors and stitches of two families, one of them without a quality."""
    rng = random.Random(seed)
    points = [Point('S12', 30e9, 45.0), Point('L24', 400e9, 51.0)]
    families = {'S12': 'S', 'L24': 'L'}
    for i in range(count - 2):
        points.append(Point(f'p{i}', rng.uniform(60e9, 390e9), rng.uniform(40, 50)))
        families[f'p{i}'] = 'L-S-L' if i % 3 else 'S-L'
    points[7] = Point(points[7].name, points[7].cost, math.nan)
    return points, families


def drawn(direction='greater'):
    points, families = make_space()
    return points, families, draw(points, families, 'mIoU', direction).axes[0]


def groups(axes):
    """Positions of the scattered points by legend label without its count."""
    return {c.get_label().split(' (')[0]: np.asarray(c.get_offsets()) for c in axes.collections}


def positions(points):
    return np.array([(point.cost / 1e9, point.quality) for point in points])


@pytest.mark.parametrize('direction', ['greater', 'less'])
def test_the_line_is_the_front_in_gflops(direction):
    points, _, axes = drawn(direction)
    (line,) = axes.lines
    assert np.array_equal(line.get_xydata(), positions(pareto_front(points, direction)))


def test_each_family_holds_its_stitches_in_a_colour_of_its_own():
    points, families, axes = drawn()
    for family in ('S-L', 'L-S-L'):
        own = [p for p in points if families[p.name] == family and p.quality == p.quality]
        assert np.array_equal(groups(axes)[family], positions(own))
    colours = {tuple(c.get_facecolor()[0]) for c in axes.collections}
    assert len(colours) == len(axes.collections) == 3


def test_stars_are_at_the_anchors_and_bear_their_names():
    points, _, axes = drawn()
    assert np.array_equal(groups(axes)['anchors'], positions(points[:2]))
    bold = {t.get_text(): t.xy for t in axes.texts if t.get_fontweight() == 'bold'}
    assert bold == {'S12': (30.0, 45.0), 'L24': (400.0, 51.0)}


def test_axes_name_their_units_and_the_better_side():
    axes = drawn()[2]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        'GFLOPs of the whole model', 'mIoU (higher is better)'
    )
    assert drawn('less')[2].get_ylabel() == 'mIoU (lower is better)'


def boxes_of(figure):
    """Extents in pixels of the texts inside of the axes, as they are drawn into a file."""
    to_png(figure)
    return {t.get_text(): Text.get_window_extent(t) for t in figure.axes[0].texts}


def assert_apart(boxes):
    names = list(boxes)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[:i] if boxes[a].overlaps(boxes[b])]
    assert pairs == []


def test_names_do_not_run_into_each_other():
    points = [Point(f'S{i}-L{i}-S{i}', (300 + i % 3) * 1e9, 40 + i / 9) for i in range(15)]
    points += [Point('S12', 100e9, 30), Point('L24', 400e9, 50)]
    points = [Point(p.name, p.cost + 1e6 * p.quality, p.quality) for p in points]
    families = {p.name: p.name.translate({ord(d): None for d in '0123456789'}) for p in points}
    boxes = boxes_of(draw(points, families, 'mIoU'))
    assert len(boxes) >= 3
    assert_apart(boxes)


@pytest.mark.parametrize('from_zero', [False, True])
def test_the_whole_front_of_134_published_stitches_is_named_and_legible(from_zero):
    records = published_records()
    chooser = chooser_of_records(records, 'mIoU')
    figure = draw_sweeps({'ADE20K': chooser}, from_zero=from_zero)
    boxes = boxes_of(figure)
    front = pareto_front(chooser.points())
    assert len(records) == 134 and len(front) == 13
    assert boxes.keys() == {point.name for point in front}
    assert_apart(boxes)
    axes = figure.axes[0]
    frame = axes.get_window_extent()
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 and b.y1 <= frame.y1 for b in boxes.values())
    spots = [axes.transData.transform((p.cost, p.quality)) for p in chooser.points()]
    covered = {name for name, b in boxes.items() if any(b.contains(*spot) for spot in spots)}
    assert not covered


def test_names_do_not_change_the_layout_that_they_were_placed_by():
    figure = draw(*make_space()[:2], 'mIoU')
    before = figure.axes[0].transData.transform([(100, 45), (300, 40)])
    to_png(figure)
    assert np.allclose(figure.axes[0].transData.transform([(100, 45), (300, 40)]), before)


def test_axes_may_begin_at_zero():
    points, families = make_space()
    limits = draw(points, families, 'mIoU', from_zero=True).axes[0].axis()
    assert limits[0] == limits[2] == 0 and limits[1] > 400 and limits[3] > 51
    assert draw(points, families, 'mIoU').axes[0].get_ylim()[0] > 35


def test_families_beyond_the_colours_differ_by_marker():
    names = [f'A-{letter}' for letter in 'BCDEFGHIJ']
    points = [Point(name, i + 1.0, i) for i, name in enumerate(names)]
    axes = draw(points, {name: name for name in names}, 'mIoU').axes[0]
    looks = {
        (tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes())
        for c in axes.collections
        if c.get_label() != 'anchors'
    }
    assert len(looks) == 9


@pytest.mark.parametrize('qualities', [[0.2], [math.nan], [0.2, 0.2]])
def test_degenerate_sets_of_points_are_drawn(qualities):
    points = [Point(f'S{i}', 1e9, quality) for i, quality in enumerate(qualities)]
    assert plot_png(points, {point.name: 'S' for point in points}, 'mIoU')[:4] == b'\x89PNG'


def test_the_png_is_readable_wide_enough_and_not_blank(tmp_path):
    content = plot_png(*make_space(134), 'mIoU', title='rooms')
    width, height = struct.unpack('>II', content[16:24])
    assert width >= 1200 and height >= 700
    (tmp_path / 'x.png').write_bytes(content)
    pixels = imread(tmp_path / 'x.png')
    assert 0.01 < (pixels[..., :3].min(axis=-1) < 0.8).mean() < 0.3


def test_the_same_points_give_the_same_bytes():
    assert plot_png(*make_space(), 'mIoU') == plot_png(*make_space(), 'mIoU')


def test_no_figure_of_pyplot_is_left_open():
    before = plt.get_fignums()
    plot_png(*make_space(), 'mIoU')
    assert plt.get_fignums() == before


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
    assert axes.get_xlabel() == 'GFLOPs of the whole model'
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
