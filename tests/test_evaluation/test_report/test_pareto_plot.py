"""The picture, read back from the artists of the figure and from the file."""

from __future__ import annotations

import math
import random
import struct

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.image import imread

from mmsnnet.evaluation.report.pareto_plot import draw, plot_png
from mmsnnet.results.pareto import Point, pareto_front


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
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('GFLOPs', 'mIoU (higher is better)')
    assert drawn('less')[2].get_ylabel() == 'mIoU (lower is better)'


def test_names_do_not_run_into_each_other():
    points = [Point(f'S{i}-L{i}-S{i}', (300 + i % 3) * 1e9, 40 + i / 9) for i in range(15)]
    points += [Point('S12', 100e9, 30), Point('L24', 400e9, 50)]
    points = [Point(p.name, p.cost + 1e6 * p.quality, p.quality) for p in points]
    figure = draw(points, {p.name: p.name.translate({ord(d): None for d in '0123456789'})
                           for p in points}, 'mIoU')  # fmt: skip
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) >= 3
    overlaps = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert overlaps == []


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


@pytest.mark.parametrize('qualities', [[0.2], [math.nan], [0.2, 0.2], []])
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
