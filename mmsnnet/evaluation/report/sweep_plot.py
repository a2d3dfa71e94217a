"""Several sweeps in one picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mmsnnet.results.candidate import UNITS
from mmsnnet.results.chooser import Chooser
from mmsnnet.results.pareto import Point, pareto_front

from .pareto_plot import COLOURS, draw, label_points, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _draw_sweep(axes: Axes, name: str, chooser: Chooser, axis: str, colour: str) -> list[Point]:
    """Draw stitches faintly, their front as a line, anchors as stars; returns the anchors."""
    points = [point for point in chooser.points(axis) if point.quality == point.quality]
    front = pareto_front(points, chooser.rule)
    anchors = [point for point in points if '-' not in chooser[point.name].family]

    def place(some: list[Point]) -> tuple[list[float], list[float]]:
        return [point.cost for point in some], [point.quality for point in some]

    axes.scatter(*place(points), s=16, color=colour, alpha=0.3, linewidths=0, zorder=2)
    label = f'{name} ({len(front)} of {len(points)} on the front)'
    axes.plot(*place(front), color=colour, marker='o', markersize=5, label=label, zorder=3)
    axes.scatter(
        *place(anchors), s=210, color=colour, marker='*', edgecolors='white', linewidths=0.8,
        zorder=4,
    )  # fmt: skip
    return anchors


def _draw_alone(chooser: Chooser, axis: str, title: str | None) -> Figure:
    """Figure of one sweep by families."""
    scale = 1e9 if axis == 'gflops' else 1
    points = [Point(p.name, p.cost * scale, p.quality) for p in chooser.points(axis)]
    families = {one.name: one.family for one in chooser.candidates}
    return draw(points, families, chooser.metric, chooser.rule, title, UNITS[axis])


def draw_sweeps(
    sweeps: Mapping[str, Chooser], axis: str = 'gflops', title: str | None = None
) -> Figure:
    """Return a figure of one or several sweeps in the plane of a cost and their metric.

    One sweep alone is drawn by families, as in its report; of several each has a colour.

    Args:
        sweeps: Stitches by name of the sweep.
        axis: 'gflops', 'params', 'ms' or 'mb'.
        title: Heading; None for one that says what is seen.

    Raises:
        ValueError: If there are no sweeps, their metrics or rules differ, or a cost is unknown.
    """
    from matplotlib.figure import Figure

    metrics = {(chooser.metric, chooser.rule) for chooser in sweeps.values()}
    if len(metrics) != 1:
        told = ', '.join(f'{n}: {c.metric} ({c.rule})' for n, c in sweeps.items())
        raise ValueError(f'Sweeps of one metric can be compared, got {told or "none"}.')
    metric, rule = metrics.pop()
    if len(sweeps) == 1:
        return _draw_alone(next(iter(sweeps.values())), axis, title)
    figure = Figure(figsize=(8.4, 5.4), dpi=150, layout='constrained')
    axes = figure.add_subplot()
    anchors = []
    for number, (name, chooser) in enumerate(sweeps.items()):
        anchors += _draw_sweep(axes, name, chooser, axis, COLOURS[number % len(COLOURS)])
    axes.margins(x=0.06, y=0.1)
    # An anchor of several sweeps is named once, at its best.
    anchors.sort(key=lambda point: point.quality, reverse=rule == 'less')
    named = {point.name: point for point in anchors}
    label_points(axes, list(named.values()), set(named), upwards=rule == 'greater')
    axes.set_title(title or f'{len(sweeps)} sweeps')
    style(axes, metric, rule, UNITS[axis])
    return figure
