"""Footprints: turned rectangles on the floor with a range of heights, and when they collide.

Plain Python on purpose: a room needs thousands of tests of two rectangles, where numpy is slower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Footprint:
    """A rectangle of half extents (half_x, half_y) at (x, y), turned by ``yaw``, z in [low, high).

    Lengths in metres, ``yaw`` in radians.
    """

    x: float
    y: float
    half_x: float
    half_y: float
    yaw: float
    low: float
    high: float

    @cached_property
    def corners(self) -> list[tuple[float, float]]:
        """Its four corners."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return [(self.x + cos * u - sin * v, self.y + sin * u + cos * v)
                for u, v in ((-self.half_x, -self.half_y), (self.half_x, -self.half_y),
                             (self.half_x, self.half_y), (-self.half_x, self.half_y))]

    def inside(self, width: float, length: float, gap: float = 0.0) -> bool:
        """Whether it lies within the floor [0, width] x [0, length], ``gap`` from the walls."""
        return all(gap <= x <= width - gap and gap <= y <= length - gap
                   for x, y in self.corners)

    def distance(self, x: float, y: float) -> float:
        """Distance on the floor from (x, y) to the rectangle, 0 within it."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        u = abs(cos * (x - self.x) + sin * (y - self.y)) - self.half_x
        v = abs(cos * (y - self.y) - sin * (x - self.x)) - self.half_y
        return math.hypot(max(u, 0.0), max(v, 0.0))

    def meets(self, other: Footprint, gap: float = 0.0) -> bool:
        """Whether the two come closer than ``gap`` on the floor while their heights overlap.

        Separating axes of the two rectangles (exact but for the corners of the gap).
        """
        if self.low >= other.high or other.low >= self.high:
            return False
        reach = (math.hypot(self.half_x, self.half_y) + math.hypot(other.half_x, other.half_y)
                 + gap)
        if (self.x - other.x) ** 2 + (self.y - other.y) ** 2 >= reach * reach:
            return False
        return not (self._parts(other, gap) or other._parts(self, gap))

    def _parts(self, other: Footprint, gap: float) -> bool:
        """Whether one of the two own axes separates it from the other."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        points = [(x - self.x, y - self.y) for x, y in other.corners]
        along = [cos * x + sin * y for x, y in points]
        across = [cos * y - sin * x for x, y in points]
        for values, half in ((along, self.half_x), (across, self.half_y)):
            if min(values) >= half + gap or max(values) <= -half - gap:
                return True
        return False
