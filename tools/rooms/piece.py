"""A piece: one object of several parts in a frame of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import add

from .primitive import Part


@dataclass(frozen=True)
class Piece:
    """An object before it is put into a room: x right, y to its front, z up, metres.

    Its footprint is centred on the origin and it stands on z = 0.

    Args:
        kind: A key of ``LABELS``.
        parts: Its solids.
        half: Half its footprint along x and y.
        height: Its top.
        top: Where things can be put on it: (x0, x1, y0, y1, z), or None.
    """

    kind: str
    parts: tuple[Part, ...]
    half: tuple[float, float]
    height: float
    top: tuple[float, float, float, float, float] | None = None


def assemble(kind: str, parts: Sequence[Part],
             top: tuple[float, float, float, float, float] | None = None) -> Piece:
    """A piece whose footprint is measured from its parts and moved onto the origin."""
    lows, highs = zip(*(part.bounds() for part in parts))
    low = [min(values) for values in zip(*lows)]
    high = [max(values) for values in zip(*highs)]
    shift = (-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, -low[2])
    moved = tuple(replace(part, center=tuple(map(add, part.center, shift))) for part in parts)
    if top is not None:
        top = (top[0] + shift[0], top[1] + shift[0], top[2] + shift[1], top[3] + shift[1],
               top[4] + shift[2])
    half = ((high[0] - low[0]) / 2, (high[1] - low[1]) / 2)
    return Piece(kind, moved, half, high[2] - low[2], top)
