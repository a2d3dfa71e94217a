"""The space of stitches found by trying every combination, without the code under test."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product
from math import floor

from mmsnnet.stitching import AnchorSpec, StitchSpace

#: Depths of the anchors of every space that the tests walk through.
DEPTHS = [
    (12, 12),
    (12, 24),
    (6, 12),
    (24, 24),
    (12, 36),
    (12, 18),
    (8, 12),
    (24, 40),
    (6, 12, 24),
    (8, 12, 24),
]


def tap_sets(depth):
    """Choices of taps for a largest anchor of a depth: spread, late, early, single and all."""
    quarter = depth // 4
    spread = (quarter - 1, 2 * quarter - 1, 3 * quarter - 1, depth - 1)
    late, early = tuple(range(depth - 4, depth)), (0, 1, 2, 3)
    return [spread, late, early, (0,), (depth - 1,), tuple(range(depth))]


def make_space(depths, taps=None, **kwargs):
    anchors = [AnchorSpec.plain_vit(depth, 64 * (i + 1)) for i, depth in enumerate(depths)]
    return StitchSpace(anchors, taps or tap_sets(depths[-1])[0], **kwargs)


def positions(depths):
    """Place of every boundary of every anchor among the blocks of the largest, rounded half up."""
    rows = [list(range(depths[-1] + 1))]
    for small, large in zip(depths[-2::-1], depths[:0:-1]):
        nearest = [floor(Fraction(k * large, small) + Fraction(1, 2)) for k in range(small + 1)]
        rows.insert(0, [rows[0][k] for k in nearest])
    return rows


def all_routes(depths, max_crossings=2, allowed=lambda a, b: abs(a - b) == 1):
    """Every route as ((anchor, start, stop), ...), by trying all cuts for all anchor sequences."""
    rows, found = positions(depths), []
    for length in range(1, max_crossings + 2):
        for anchors in product(range(len(depths)), repeat=length):
            if not all(allowed(a, b) for a, b in zip(anchors, anchors[1:])):
                continue
            for cuts in combinations(range(1, depths[-1]), length - 1):
                ends = (0, *cuts, depths[-1])
                spans = list(zip(anchors, ends, ends[1:]))
                if all(start in rows[a] and stop in rows[a] for a, start, stop in spans):
                    found.append(
                        tuple((a, rows[a].index(lo), rows[a].index(hi)) for a, lo, hi in spans)
                    )
    return found


def block_of_tap(depths, route, tap):
    """(anchor, block) that runs, on a brute-force route, while a tap of the largest passes."""
    rows = positions(depths)
    for anchor, start, stop in route:
        for block in range(start, stop):
            first, last = rows[anchor][block], rows[anchor][block + 1]
            if first <= tap < last:
                return anchor, block
    raise AssertionError(f'no block of {route} covers tap {tap}')


def as_tuples(route):
    return tuple((segment.anchor, segment.start, segment.stop) for segment in route.segments)
