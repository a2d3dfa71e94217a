"""A route: the segments of anchors that one sub-network runs, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .alignment import Alignment
from .scheme import Scheme


@dataclass(frozen=True)
class Segment:
    """Blocks [start, stop) of one anchor."""

    anchor: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Route:
    """Segments in the order in which they run; neighboring segments are of different anchors."""

    segments: tuple[Segment, ...]

    @property
    def anchors(self) -> tuple[int, ...]:
        """Anchor of each segment."""
        return tuple(segment.anchor for segment in self.segments)

    @property
    def num_crossings(self) -> int:
        """How often features cross from one anchor to another."""
        return len(self.segments) - 1

    def name(self, labels: Sequence[str]) -> str:
        """Label and number of blocks of each segment, such as ``S5-L14``."""
        return '-'.join(f'{labels[segment.anchor]}{len(segment)}' for segment in self.segments)

    def family(self, labels: Sequence[str]) -> str:
        """Labels of the segments, such as ``S-L``."""
        return '-'.join(labels[anchor] for anchor in self.anchors)


def _extend(
    done: tuple[Segment, ...],
    anchor: int,
    start: int,
    depths: Sequence[int],
    alignment: Alignment,
    scheme: Scheme,
) -> Iterator[Route]:
    """Routes that begin with ``done`` and go on in ``anchor`` at boundary ``start``."""
    yield Route((*done, Segment(anchor, start, depths[anchor])))
    if len(done) == scheme.max_crossings:
        return
    for target in range(len(depths)):
        if not scheme.allows(anchor, target):
            continue
        for stop, entry in alignment.cuts(anchor, target):
            if stop > start and entry < depths[target]:
                segment = Segment(anchor, start, stop)
                yield from _extend((*done, segment), target, entry, depths, alignment, scheme)


def _enumeration_key(route: Route) -> tuple:
    """Order of the enumeration: anchors first, then by crossings, family and cuts.

    Families of equally many crossings are ordered by the anchor they end in, the costliest
    first (then by the one before it, and so on): S-L, L-S, then L-S-L, S-L-S. The anchors alone
    go from cheap to costly.
    """
    if route.num_crossings == 0:
        return (0, route.anchors)
    ends_first = tuple(-anchor for anchor in reversed(route.anchors))
    return (route.num_crossings, ends_first, tuple(s.stop for s in route.segments))


def enumerate_routes(
    depths: Sequence[int], alignment: Alignment, scheme: Scheme, limit: int = 100_000
) -> tuple[Route, ...]:
    """All routes of anchors of the given depths that a scheme allows, in the order of their ids.

    Raises:
        ValueError: If there are more than ``limit``.
    """
    routes: list[Route] = []
    for anchor in range(len(depths)):
        for route in _extend((), anchor, 0, depths, alignment, scheme):
            routes.append(route)
            if len(routes) > limit:
                raise ValueError(
                    f'The space has more than {limit} routes; lower max_crossings='
                    f'{scheme.max_crossings} or restrict directions or pairs.'
                )
    return tuple(sorted(routes, key=_enumeration_key))
