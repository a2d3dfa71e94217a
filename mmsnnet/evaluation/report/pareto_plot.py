"""The picture of a sweep: every stitch over its cost, the anchors and the Pareto front."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmsnnet.results.pareto import Point, pareto_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, which the colour-blind can tell apart; markers tell further families.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
_MARKERS = ('o', 's', 'D', '^', 'v', 'P')
_MOST_LABELS = 20


def _draw_families(axes: Axes, points: Sequence[Point], families: Mapping[str, str]) -> None:
    """Draw the stitches that are no anchors, one colour and one legend entry a family."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(families[point.name], []).append(point)
    crossing = [family for family in groups if '-' in family]
    for number, family in enumerate(sorted(crossing, key=lambda f: f.count('-'))):
        group = groups[family]
        axes.scatter(
            [point.cost for point in group],
            [point.quality for point in group],
            s=26,
            color=COLOURS[number % len(COLOURS)],
            marker=_MARKERS[number // len(COLOURS) % len(_MARKERS)],
            alpha=0.75,
            linewidths=0,
            label=f'{family} ({len(group)})',
            zorder=2,
        )


def _draw_anchors(axes: Axes, anchors: Sequence[Point]) -> None:
    """Draw the anchors as stars."""
    axes.scatter(
        [point.cost for point in anchors],
        [point.quality for point in anchors],
        s=230,
        color='#222222',
        marker='*',
        edgecolors='white',
        linewidths=0.8,
        label='anchors',
        zorder=4,
    )


def _draw_front(axes: Axes, front: Sequence[Point]) -> None:
    """Draw the front as a line through ringed points."""
    axes.plot(
        [point.cost for point in front],
        [point.quality for point in front],
        color='#444444',
        linewidth=1.3,
        marker='o',
        markersize=7.5,
        markerfacecolor='none',
        markeredgewidth=1.1,
        label=f'Pareto front ({len(front)})',
        zorder=3,
    )


def label_points(axes: Axes, points: Sequence[Point], bold: set[str], upwards: bool) -> None:
    """Write names beside points, leaving out those that would run into one already written.

    Bold names (the anchors) come first; the others from cheap to costly.
    """
    from matplotlib.patheffects import withStroke

    width, height = axes.get_figure().get_size_inches() * 72  # in points, as font sizes are
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    taken: list[tuple[float, float, float]] = []
    for point in sorted(points, key=lambda point: (point.name not in bold, point.cost)):
        size = 10 if point.name in bold else 7.5
        x = (point.cost - left) / (right - left) * width
        y = (point.quality - low) / (high - low) * height
        length = 0.62 * size * len(point.name)
        # Texts end at x, so the right one of two reaches its own length to the left.
        if any(abs(y - v) < 10 and -length - 2 < u - x < w + 2 for u, v, w in taken):
            continue
        taken.append((x, y, length))
        axes.annotate(
            point.name,
            (point.cost, point.quality),
            xytext=(-4, 6 if upwards else -6),
            textcoords='offset points',
            ha='right',
            va='bottom' if upwards else 'top',
            fontsize=size,
            fontweight='bold' if point.name in bold else 'normal',
            color='#222222',
            path_effects=[withStroke(linewidth=2.5, foreground='white')],
            zorder=5,
        )


def style(axes: Axes, metric: str, direction: str, unit: str) -> None:
    """Name the axes and make the frame recede behind the points."""
    axes.set_xlabel(unit)
    axes.set_ylabel(f'{metric} ({"higher" if direction == "greater" else "lower"} is better)')
    axes.grid(True, color='#dddddd', linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    # Beside the axes, where it cannot hide stitches.
    axes.legend(loc='upper left', bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)


def draw(
    points: Sequence[Point],
    families: Mapping[str, str],
    metric: str,
    direction: str = 'greater',
    title: str | None = None,
    unit: str = 'GFLOPs',
) -> Figure:
    """Return a figure of the stitches in the plane of cost and metric.

    Args:
        points: One point a stitch; those of NaN quality are left out. Costs are in ``unit``, but
            in FLOPs where that is GFLOPs.
        families: Family of each stitch by name; one without a '-' is an anchor.
        metric: Label of the quality axis.
        direction: 'greater' or 'less', which quality is better.
        title: Heading; None for the size of the front.
        unit: Label of the cost axis.
    """
    # Not pyplot: it would keep the figure and look for a display.
    from matplotlib.figure import Figure

    scale = 1e9 if unit == 'GFLOPs' else 1
    shown = [Point(p.name, p.cost / scale, p.quality) for p in points if not math.isnan(p.quality)]
    front = pareto_front(shown, direction)
    anchors = [point for point in shown if '-' not in families[point.name]]
    figure = Figure(figsize=(8.4, 5.4), dpi=150, layout='constrained')
    axes = figure.add_subplot()
    _draw_families(axes, shown, families)
    _draw_front(axes, front)
    _draw_anchors(axes, anchors)
    axes.margins(x=0.06, y=0.1)
    few = front if len(front) <= _MOST_LABELS else []
    named = {point.name: point for point in (*anchors, *few)}
    bold = {point.name for point in anchors}
    label_points(axes, list(named.values()), bold, upwards=direction == 'greater')
    axes.set_title(title or f'{len(front)} of {len(points)} stitches on the Pareto front')
    style(axes, metric, direction, unit)
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


def plot_png(*arguments: Any, **named: Any) -> bytes:
    """Return the picture of :func:`draw`, which takes the arguments, as a PNG file."""
    return to_png(draw(*arguments, **named))


def plot_svg(*arguments: Any, **named: Any) -> bytes:
    """Return the picture of :func:`draw`, which takes the arguments, as an SVG file."""
    return to_svg(draw(*arguments, **named))
