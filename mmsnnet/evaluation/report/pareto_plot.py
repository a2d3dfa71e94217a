"""The picture of sweeps: every stitch over its cost, the anchors and the Pareto front."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mmsnnet.results.chooser import Chooser
from mmsnnet.results.pareto import Point, pareto_front

from .labels import label_points
from .quantities import AXIS_LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, which the colour-blind can tell apart; markers tell further families.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
_MARKERS = ('o', 's', 'D', '^', 'v', 'P')


def _place(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.cost for point in points], [point.quality for point in points]


def _scored(chooser: Chooser, axis: str) -> tuple[list[Point], list[Point]]:
    """Points that have a quality, and those of them that are anchors alone."""
    points = [point for point in chooser.points(axis) if point.quality == point.quality]
    return points, [point for point in points if '-' not in chooser[point.name].family]


def _draw_stars(axes: Axes, anchors: Sequence[Point], colour: str, label: str | None) -> None:
    axes.scatter(
        *_place(anchors),
        s=220,
        color=colour,
        marker='*',
        edgecolors='white',
        linewidths=0.8,
        label=label,
        zorder=4,
    )


def _draw_whiskers(axes: Axes, chooser: Chooser, points: Sequence[Point]) -> None:
    """Draw the interval of each point whose certainty is known."""
    known = {} if chooser.certainty is None else chooser.certainty.stitches
    shown = [point for point in points if point.name in known]
    if shown:
        axes.vlines(
            [point.cost for point in shown],
            [known[point.name].low for point in shown],
            [known[point.name].high for point in shown],
            color='#777777',
            linewidth=0.9,
            alpha=0.7,
            label=f'{chooser.certainty.confidence:.0%} interval',
            zorder=1.5,
        )


def _opacity(chooser: Chooser, points: Sequence[Point], axis: str) -> float | list[float]:
    """How solid points are: by the probability of being on the front, where it is known.

    The probability is of the front over FLOPs alone.
    """
    if chooser.certainty is None or axis != 'gflops':
        return 0.75
    known = chooser.certainty.stitches
    return [0.2 + 0.7 * known[p.name].on_front if p.name in known else 0.2 for p in points]


def _draw_families(axes: Axes, chooser: Chooser, points: Sequence[Point], axis: str) -> None:
    """Draw the stitches that are no anchors, one colour and one legend entry a family."""
    from matplotlib.colors import to_rgba_array

    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(chooser[point.name].family, []).append(point)
    crossing = [family for family in groups if '-' in family]
    for number, family in enumerate(sorted(crossing, key=lambda f: f.count('-'))):
        opacity = _opacity(chooser, groups[family], axis)
        axes.scatter(
            *_place(groups[family]),
            s=26,
            color=to_rgba_array(COLOURS[number % len(COLOURS)], opacity),
            marker=_MARKERS[number // len(COLOURS) % len(_MARKERS)],
            linewidths=0,
            label=f'{family} ({len(groups[family])})',
            zorder=2,
        )


def _draw_one(axes: Axes, chooser: Chooser, axis: str) -> tuple[list[Point], list[Point]]:
    """Draw a sweep by families; returns the points to name, anchors and front, and all points."""
    points, anchors = _scored(chooser, axis)
    front = pareto_front(points, chooser.rule)
    _draw_families(axes, chooser, points, axis)
    if chooser.certainty is not None:
        _draw_whiskers(axes, chooser, list(dict.fromkeys((*front, *anchors))))
    axes.plot(
        *_place(front),
        color='#444444',
        linewidth=1.3,
        marker='o',
        markersize=7.5,
        markerfacecolor='none',
        markeredgewidth=1.1,
        label=f'Pareto front ({len(front)})',
        zorder=3,
    )
    _draw_stars(axes, anchors, '#222222', 'anchors')
    axes.set_title(f'{len(front)} of {len(chooser.candidates)} stitches on the Pareto front')
    return list({point.name: point for point in (*anchors, *front)}.values()), points


def _draw_several(
    axes: Axes, sweeps: Mapping[str, Chooser], axis: str
) -> tuple[list[Point], list[Point]]:
    """Draw sweeps, each in a colour; returns the anchors, to be named, and all points."""
    drawn, named = [], []
    for number, (name, chooser) in enumerate(sweeps.items()):
        colour = COLOURS[number % len(COLOURS)]
        points, anchors = _scored(chooser, axis)
        front = pareto_front(points, chooser.rule)
        axes.scatter(*_place(points), s=16, color=colour, alpha=0.3, linewidths=0, zorder=2)
        label = f'{name} ({len(front)} of {len(points)} on the front)'
        axes.plot(*_place(front), color=colour, marker='o', markersize=5, label=label, zorder=3)
        _draw_stars(axes, anchors, colour, None)
        drawn += points
        named += anchors
    axes.set_title(f'{len(sweeps)} sweeps')
    # An anchor of several sweeps is named once, at its best.
    named.sort(key=lambda point: point.quality, reverse=chooser.rule == 'less')
    return list({point.name: point for point in named}.values()), drawn


def _style(axes: Axes, metric: str, rule: str, label: str, from_zero: bool) -> None:
    """Name the axes, set their limits and make the frame recede behind the points."""
    from matplotlib.collections import PathCollection

    axes.set_xlabel(label)
    axes.set_ylabel(f'{metric} ({"higher" if rule == "greater" else "lower"} is better)')
    axes.grid(True, color='#dddddd', linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    axes.margins(x=0.06, y=0.1)
    if from_zero:
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.08 * axes.dataLim.y1)
    # Beside the axes, where it cannot hide stitches.
    legend = axes.legend(loc='upper left', bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    for mark in legend.legend_handles:
        if isinstance(mark, PathCollection):  # else as pale as the first of its points
            red, green, blue, alpha = mark.get_facecolor()[0]
            mark.set_facecolor((red, green, blue, max(alpha, 0.75)))


def _common_metric(sweeps: Mapping[str, Chooser]) -> tuple[str | None, str]:
    metrics = {(chooser.metric, chooser.rule) for chooser in sweeps.values()}
    if len(metrics) != 1:
        found = ', '.join(f'{n}: {c.metric} ({c.rule})' for n, c in sweeps.items())
        raise ValueError(f'Sweeps of one metric can be compared, got {found or "none"}.')
    return metrics.pop()


def draw_sweeps(
    sweeps: Mapping[str, Chooser],
    axis: str = 'gflops',
    title: str | None = None,
    from_zero: bool = False,
) -> Figure:
    """Return a figure of one or several sweeps in the plane of a cost and their metric.

    One sweep alone is drawn by families; of several each has a colour. Stitches without a
    quality are left out.

    Args:
        sweeps: Stitches by name of the sweep.
        axis: 'gflops', 'params', 'ms' or 'mb'.
        title: Heading; None for one that says what is seen.
        from_zero: Let both axes begin at 0, so that lengths can be compared by eye.

    Raises:
        ValueError: If there are no sweeps, their metrics or rules differ, or a cost is unknown.
    """
    # Not pyplot: it would keep the figure and look for a display.
    from matplotlib.figure import Figure

    metric, rule = _common_metric(sweeps)
    figure = Figure(figsize=(8.4, 5.4), dpi=150, layout='constrained')
    axes = figure.add_subplot()
    if len(sweeps) == 1:
        named, drawn = _draw_one(axes, next(iter(sweeps.values())), axis)
    else:
        named, drawn = _draw_several(axes, sweeps, axis)
    if title:
        axes.set_title(title)
    _style(axes, metric, rule, AXIS_LABELS[axis], from_zero)
    families = {one.name: one.family for c in sweeps.values() for one in c.candidates}
    bold = {point.name for point in named if '-' not in families[point.name]}
    label_points(axes, named, bold, drawn, upwards=rule == 'greater')
    return figure


def to_png(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file; no display is needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content, metadata={'Software': None})
    return content.getvalue()


def to_svg(figure: Figure) -> bytes:
    """Return a figure as the content of an SVG file, the same for the same figure."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    content = io.BytesIO()
    with rc_context({'svg.hashsalt': 'mmsnnet'}):
        FigureCanvasSVG(figure).print_svg(content, metadata={'Date': None, 'Creator': None})
    return content.getvalue()
