"""Numbers of a route by which stitches are alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmsnnet.stitching import StitchSpace
from mmsnnet.stitching.route import Route

#: Relative depths at which the anchor that runs there is looked up.
DEPTHS = tuple((2 * number + 1) / 16 for number in range(8))


def route_features(space: StitchSpace, flops: Mapping[str, float]) -> np.ndarray:
    """Features of all stitches of a space, each of mean 0 and standard deviation 1.

    FLOPs and their logarithm, the share of each anchor's blocks that runs, the anchor at eight
    relative depths, the number of crossings, where the first and the last one are, and the anchors
    with which the route begins and ends, which is the family where there are two crossings at most.

    Args:
        space: The space.
        flops: FLOPs of each stitch by name.

    Returns:
        (S, F), in the order of the space; what is the same for all stitches is left out.
    """
    depths = [anchor.depth for anchor in space.anchors]
    most = max(flops[stitch.name] for stitch in space)
    rows = []
    for stitch in space:
        cost = flops[stitch.name] / most
        rows.append([cost, np.log(cost), *_of_route(stitch.route, depths)])
    features = np.array(rows, float)
    spread = features.std(0)
    kept = spread > 1e-9
    return (features[:, kept] - features[:, kept].mean(0)) / spread[kept]


def _of_route(route: Route, depths: Sequence[int]) -> list[float]:
    segments, last = route.segments, max(len(depths) - 1, 1)
    shares = [
        sum(len(segment) for segment in segments if segment.anchor == anchor) / depth
        for anchor, depth in enumerate(depths)
    ]
    starts = [segment.start / depths[segment.anchor] for segment in segments]
    # The last segment that begins before a depth is the one that runs there.
    at = [
        [segment.anchor for segment, start in zip(segments, starts) if start <= depth][-1] / last
        for depth in DEPTHS
    ]
    cuts = starts[1:] or [1.0]
    ends = [segments[0].anchor / last, segments[-1].anchor / last]
    return [*shares, *at, route.num_crossings, cuts[0], cuts[-1], *ends]
