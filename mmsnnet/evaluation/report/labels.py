"""Names beside the points of a plot, where they collide neither with each other nor with points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mmsnnet.results.pareto import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

#: (left, bottom, right, top) in pixels.
Box = tuple[float, float, float, float]

_GAPS = (5, 13, 24, 38)  # between point and name, in points; beyond the first a line joins them
_DIRECTIONS = ((-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0))
_POINT_RADIUS = 3.5  # in points


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _places(
    x: float, y: float, size: tuple[float, float], gap: float, upwards: bool
) -> Iterator[Box]:
    """Boxes of a text of a size (width, height) around a point, the best direction first."""
    width, height = size
    for right, up in _DIRECTIONS:
        up = up if upwards else -up
        left = x + right * gap - (width, width / 2, 0)[right + 1]
        bottom = y + up * gap - (height, height / 2, 0)[up + 1]
        yield left, bottom, left + width, bottom + height


def _write(axes: Axes, point: Point, bold: bool) -> Annotation:
    from matplotlib.patheffects import withStroke

    text = axes.annotate(
        point.name,
        (point.cost, point.quality),
        xytext=(0, 0),
        textcoords='offset points',
        fontsize=10 if bold else 7.5,
        fontweight='bold' if bold else 'normal',
        color='#222222',
        path_effects=[withStroke(linewidth=2.5, foreground='white')],
        arrowprops=dict(arrowstyle='-', color='#888888', linewidth=0.6, shrinkA=0, shrinkB=3),
        annotation_clip=False,
        zorder=5,
    )
    text.set_in_layout(False)
    return text


def _marks(axes: Axes, points: Sequence[Point], radius: float) -> list[Box]:
    spots = [axes.transData.transform((point.cost, point.quality)) for point in points]
    return [(x - radius, y - radius, x + radius, y + radius) for x, y in spots]


def label_points(
    axes: Axes, points: Sequence[Point], bold: set[str], others: Sequence[Point], upwards: bool
) -> None:
    """Write the names of points beside them, last of all that is drawn.

    Of the places around a point that are free of names the one is taken that covers the fewest
    points, of equals the nearest; a name without a free place is left out.

    Args:
        axes: With all points, limits, legend and title, since sizes in pixels must be final.
        points: Whose names are written.
        bold: Names (of the anchors) that are set in bold and find their places first.
        others: All points of the plot, to keep clear of.
        upwards: Whether names are best above the points, where better stitches would be.
    """
    from matplotlib.text import Text

    axes.get_figure().draw_without_rendering()  # lays the figure out
    scale = axes.get_figure().dpi / 72
    frame: Box = tuple(axes.get_window_extent().extents)
    marks, taken = _marks(axes, others, _POINT_RADIUS * scale), []
    for point in sorted(points, key=lambda p: (p.name not in bold, p.cost)):
        text = _write(axes, point, point.name in bold)
        x, y = axes.transData.transform((point.cost, point.quality))
        extent = Text.get_window_extent(text)  # an Annotation's own would include the line
        size = extent.width + 2, extent.height + 2
        free = [
            (sum(_overlap(box, mark) for mark in marks), number, box)
            for number, gap in enumerate(_GAPS)
            for box in _places(x, y, size, gap * scale, upwards)
            if _inside(box, frame) and not any(_overlap(box, other) for other in taken)
        ]
        if not free:
            text.remove()
            continue
        _, number, box = min(free, key=lambda entry: entry[:2])
        text.set_position(((box[0] + 1 - x) / scale, (box[1] + 1 - y) / scale))
        if number == 0:
            text.arrow_patch.set_visible(False)
        taken.append(box)


def _inside(box: Box, frame: Box) -> bool:
    return (
        box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]
    )
