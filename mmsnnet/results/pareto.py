"""The trade-off of cost against quality: Pareto front, hypervolume and choice by budget.

Lower cost is better. Whether quality is better when greater or less is its direction. A point
whose quality is NaN offers nothing: any point with a quality dominates it, so it is never on the
front, never chosen, and adds no hypervolume. A NaN cost is a mistake and refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Point:
    """One stitch in the plane of cost and quality.

    Attributes:
        name: Name of the stitch.
        cost: What it costs, in any one unit (FLOPs, milliseconds, ...).
        quality: Value of the metric; NaN when it has none.
    """

    name: str
    cost: float
    quality: float


def _sign(direction: str) -> int:
    """Return the factor that turns quality into 'greater is better'."""
    signs = {'greater': 1, 'less': -1}
    if direction not in signs:
        raise ValueError(f"direction must be 'greater' or 'less', got {direction!r}.")
    return signs[direction]


def _checked(points: Iterable[Point]) -> list[Point]:
    """Return the points as a list.

    Raises:
        ValueError: If a cost is NaN.
    """
    points = list(points)
    for point in points:
        if math.isnan(point.cost):
            raise ValueError(f'The cost of {point.name!r} is NaN.')
    return points


def _ranked(points: Iterable[Point], sign: int) -> list[Point]:
    """Return points of a quality from cheap to costly, and from good to bad where costs tie."""
    usable = [point for point in _checked(points) if not math.isnan(point.quality)]
    return sorted(usable, key=lambda point: (point.cost, -sign * point.quality))


def dominates(one: Point, other: Point, direction: str = 'greater') -> bool:
    """Tell whether a point is nowhere worse than another and somewhere better."""
    sign = _sign(direction)
    if math.isnan(one.quality) or math.isnan(other.quality):
        return not math.isnan(one.quality)
    gain = sign * one.quality, sign * other.quality
    return (
        one.cost <= other.cost
        and gain[0] >= gain[1]
        and (one.cost < other.cost or gain[0] > gain[1])
    )


def pareto_front(points: Iterable[Point], direction: str = 'greater') -> list[Point]:
    """Return the points that no other dominates, from cheap to costly.

    Cost and quality both improve or worsen strictly along the front: of points with equal cost
    and equal quality only the first given one is kept.

    Args:
        points: In any order.
        direction: 'greater' or 'less', which quality is better.
    """
    sign = _sign(direction)
    front: list[Point] = []
    for point in _ranked(points, sign):
        if not front or sign * point.quality > sign * front[-1].quality:
            front.append(point)
    return front


def dominated(points: Iterable[Point], direction: str = 'greater') -> list[Point]:
    """Return, in the given order, the points that some other one dominates.

    A duplicate of a point of the front is neither on the front nor dominated.
    """
    points = _checked(points)
    front = pareto_front(points, direction)
    # Whatever is dominated is dominated by a point of the front, for domination is transitive.
    return [point for point in points if any(dominates(f, point, direction) for f in front)]


def hypervolume(points: Iterable[Point], *, max_cost: float, worst: float, best: float) -> float:
    """Return the share in [0, 1] of the cost-quality rectangle that the points dominate.

    Cost is divided by ``max_cost`` and quality mapped so that ``worst`` is 0 and ``best`` is 1; the
    reference point is (1, worst). With points ordered along the front, x their cost and y their
    quality so normalised, this is the sum over i of (x[i+1] - x[i]) * y[i], where x past the last
    is 1. So the costliest stitch adds nothing by itself, and 1 would take a perfect stitch that
    costs nothing.

    Args:
        points: In any order; no points have volume 0. Qualities worse than ``worst`` count as it.
        max_cost: Cost of the costliest stitch of the whole space, evaluated or not.
        worst: Worst possible quality (0 for mIoU), or the worst that matters if unbounded.
        best: Best possible quality (100 for mIoU in percent, 0 for an error). It is less than
            ``worst`` where less is better.

    Raises:
        ValueError: If the bounds are not finite or do not differ, ``max_cost`` is not positive, or
            a point costs more than ``max_cost`` or is better than ``best``.
    """
    if not (math.isfinite(worst) and math.isfinite(best) and worst != best):
        raise ValueError(f'worst and best must be finite and differ, got {worst} and {best}.')
    if not 0 < max_cost < math.inf:
        raise ValueError(f'max_cost must be positive and finite, got {max_cost}.')
    front = pareto_front(points, 'greater' if best > worst else 'less')
    volume = 0.0
    for index, point in enumerate(front):
        if point.cost > max_cost * (1 + _TOLERANCE):
            raise ValueError(f'{point.name!r} costs {point.cost}, more than max_cost={max_cost}.')
        gain = (point.quality - worst) / (best - worst)
        if gain > 1 + _TOLERANCE:
            raise ValueError(f'{point.name!r} has quality {point.quality}, beyond best={best}.')
        until = front[index + 1].cost if index + 1 < len(front) else max_cost
        width = max(0.0, (until - point.cost) / max_cost)
        volume += width * min(1.0, max(0.0, gain))
    return min(1.0, volume)


def best_under(points: Iterable[Point], max_cost: float, direction: str = 'greater') -> Point:
    """Return the best point that costs at most ``max_cost``; of equals the cheaper, then the first.

    Raises:
        ValueError: If none is that cheap; the message tells the least cost there is.
    """
    front = pareto_front(points, direction)
    if not front:
        raise ValueError('There are no points with a quality to choose from.')
    affordable = [point for point in front if point.cost <= max_cost]
    if not affordable:
        low = front[0]
        raise ValueError(f'None costs at most {max_cost}; the least is {low.cost} ({low.name}).')
    return affordable[-1]


def cheapest_above(
    points: Iterable[Point], min_quality: float, direction: str = 'greater'
) -> Point:
    """Return the cheapest point at least as good as ``min_quality``; of equals the better one.

    Args:
        points: In any order.
        min_quality: Threshold that the quality reaches: from above, or with direction 'less'
            from below.
        direction: 'greater' or 'less', which quality is better.

    Raises:
        ValueError: If none is that good; the message tells the best quality there is.
    """
    sign = _sign(direction)
    front = pareto_front(points, direction)
    if not front:
        raise ValueError('There are no points with a quality to choose from.')
    for point in front:
        if sign * point.quality >= sign * min_quality:
            return point
    top = front[-1]
    raise ValueError(f'None is as good as {min_quality}; the best is {top.quality} ({top.name}).')


def knee_point(points: Iterable[Point], direction: str = 'greater') -> Point:
    """Return the knee of the front: where further cost begins to buy less than its share.

    The front is scaled to the unit square, cost x and quality y from 0 at its ends to 1, and the
    knee is the point farthest above the chord between the ends, that of the greatest y - x: the
    difference curve of Kneedle (Satopaa et al., "Finding a 'Kneedle' in a Haystack", ICDCS
    workshops 2011, section III), unsmoothed, at its global maximum. Of equals it is the cheapest,
    so a front of one or two points, or one that bends the other way, has its cheapest point.

    Args:
        points: In any order.
        direction: 'greater' or 'less', which quality is better.

    Raises:
        ValueError: If no point has a quality.
    """
    front = pareto_front(points, direction)
    if not front:
        raise ValueError('There are no points with a quality to choose from.')
    low, high = front[0], front[-1]
    if len(front) < 3:
        return low
    width, height = high.cost - low.cost, high.quality - low.quality

    def above_chord(point: Point) -> float:
        return (point.quality - low.quality) / height - (point.cost - low.cost) / width

    return max(front, key=above_chord)
