"""Which boundaries of two anchors face each other."""

from __future__ import annotations

from collections.abc import Sequence


def neighbor_boundary(boundary: int, small_depth: int, large_depth: int) -> int:
    """Boundary of the larger anchor that faces ``boundary`` of the smaller one.

    It is ``boundary * large_depth / small_depth`` rounded half up.
    """
    return (2 * boundary * large_depth + small_depth) // (2 * small_depth)


class Alignment:
    """Boundaries of anchors of non-decreasing depth on one common scale, the largest's.

    Maps between anchors that are not neighbors are composed from those of neighbors, so three
    anchors never disagree about where a cut lies.

    Args:
        depths: Number of blocks of each anchor, non-decreasing.
    """

    def __init__(self, depths: Sequence[int]) -> None:
        self._depths = tuple(depths)
        maps: list[tuple[int, ...]] = [tuple(range(self._depths[-1] + 1))]
        for small, large in reversed(list(zip(self._depths, self._depths[1:]))):
            upper = maps[0]
            maps.insert(
                0, tuple(upper[neighbor_boundary(k, small, large)] for k in range(small + 1))
            )
        self._positions = tuple(maps)
        self._boundaries = tuple(
            {position: boundary for boundary, position in enumerate(row)} for row in maps
        )

    def position(self, anchor: int, boundary: int) -> int:
        """Place of a boundary (0..depth) of an anchor on the scale of the largest anchor."""
        return self._positions[anchor][boundary]

    def facing(self, source: int, boundary: int, target: int) -> int | None:
        """Boundary of ``target`` that faces ``boundary`` of ``source``; None if there is none."""
        return self._boundaries[target].get(self._positions[source][boundary])

    def cuts(self, first: int, second: int) -> tuple[tuple[int, int], ...]:
        """Inner boundaries (of first, of second) at which features can cross, in order."""
        pairs = (
            (boundary, self.facing(first, boundary, second))
            for boundary in range(1, self._depths[first])
        )
        return tuple((mine, other) for mine, other in pairs if other is not None)

    def tap_block(self, anchor: int, tap: int) -> int:
        """Block of an anchor that stands for block ``tap`` of the largest.

        The block whose span [position of its start, position of its stop) holds ``tap``.
        """
        inner = self._positions[anchor][1:-1]
        return sum(position <= tap for position in inner)
