"""Ways to put a piece into a room: at a wall, on a wall, free, around or on another, as a rug.

Every function draws from the generator it is given, changes the plan it is given, and returns
what it placed, or None when it found no place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .footprint import Footprint
from .piece import Piece
from .plan import WALL_GAP, Placed, Plan

TRIES = 14
SIDES = (0.0, math.pi / 2, math.pi, -math.pi / 2)
"""Yaw that turns the front of a piece into the room, from the walls y=0, x=width, y=length, x=0."""


def beside_wall(plan: Plan, wall: int, along: float, away: float) -> tuple[float, float]:
    """Place at ``along`` of a wall's length and ``away`` from it, metres."""
    width, length = plan.size[:2]
    return ((along, away), (width - away, along), (along, length - away), (away, along))[wall]


def at_wall(plan: Plan, rng: np.random.Generator, piece: Piece, height: float | None = None,
            tries: int = TRIES) -> Placed | None:
    """Puts a piece with its back to a wall: on the floor, or hung at ``height`` (its lower edge).

    Places that the camera sees are tried first; only some pieces go where it does not look.
    """
    distance = WALL_GAP if height is None else 0.002
    for attempt in range(tries):
        side = int(rng.integers(4))
        span = plan.size[side % 2] - 2 * piece.half[0] - 0.1
        along = piece.half[0] + 0.05 + rng.random() * max(span, 0.0)
        x, y = beside_wall(plan, side, along, distance + piece.half[1])
        if span < 0 or (attempt < tries - 3 and not plan.in_view(x, y)):
            continue
        placed = plan.try_add(piece, x, y, height or 0.0, SIDES[side])
        if placed is not None:
            return placed
    return None


def anywhere(plan: Plan, rng: np.random.Generator, piece: Piece) -> Placed | None:
    """Puts a piece on the floor away from the walls, turned at will."""
    for attempt in range(TRIES):
        x, y = rng.uniform(0.4, plan.size[0] - 0.4), rng.uniform(0.4, plan.size[1] - 0.4)
        if attempt < TRIES - 3 and not plan.in_view(x, y):
            continue
        yaw = float(rng.uniform(-math.pi, math.pi))
        if rng.random() < 0.6:
            yaw = SIDES[int(rng.integers(4))] + float(rng.normal(0, 0.08))
        placed = plan.try_add(piece, float(x), float(y), 0.0, yaw, wall_gap=WALL_GAP)
        if placed is not None:
            return placed
    return None


def in_corner(plan: Plan, rng: np.random.Generator, piece: Piece) -> Placed | None:
    """Puts a piece on the floor near a corner of the room, or along a side wall."""
    for attempt in range(TRIES):
        margin = max(piece.half) + WALL_GAP + rng.uniform(0.0, 0.25)
        x = margin if rng.random() < 0.5 else plan.size[0] - margin
        y = margin if rng.random() < 0.5 else plan.size[1] - margin
        if rng.random() < 0.4:
            y = rng.uniform(margin, plan.size[1] - margin)
        if attempt < TRIES - 3 and not plan.in_view(x, y):
            continue
        placed = plan.try_add(piece, float(x), float(y), 0.0, float(rng.uniform(-3.1, 3.1)),
                              wall_gap=0.02)
        if placed is not None:
            return placed
    return None


def facing(plan: Plan, rng: np.random.Generator, piece: Piece, target: Placed,
           side: int) -> Placed | None:
    """Puts a piece before one side (0 front, 1 left, 2 back, 3 right) of another, facing it."""
    turn = SIDES[side]
    depth = target.piece.half[side % 2 == 0] + piece.half[1] + rng.uniform(0.04, 0.16)
    slack = max(target.piece.half[side % 2] - piece.half[0], 0.0)
    shift = rng.uniform(-1, 1) * slack
    x = shift * math.cos(turn) - depth * math.sin(turn)
    y = shift * math.sin(turn) + depth * math.cos(turn)
    u, v = target.point(float(x), float(y))
    yaw = target.yaw + turn + math.pi + float(rng.normal(0, 0.12))
    return plan.try_add(piece, u, v, 0.0, yaw, gap=0.01, wall_gap=0.02)


def on_top(plan: Plan, rng: np.random.Generator, piece: Piece, base: Placed,
           yaw: float | None = None) -> Placed | None:
    """Puts a piece on the top of another one, within its edges."""
    if base.piece.top is None:
        return None
    x0, x1, y0, y1, level = base.piece.top
    angle = float(rng.normal(0, 0.15)) if yaw is None else yaw
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    half_x = cos * piece.half[0] + sin * piece.half[1] + 0.01
    half_y = sin * piece.half[0] + cos * piece.half[1] + 0.01
    if x1 - x0 < 2 * half_x or y1 - y0 < 2 * half_y:
        return None
    for _ in range(4):
        u, v = base.point(float(rng.uniform(x0 + half_x, x1 - half_x)),
                          float(rng.uniform(y0 + half_y, y1 - half_y)))
        placed = plan.try_add(piece, u, v, base.z + level + 0.001, base.yaw + angle,
                              parent=base.instance, gap=0.01)
        if placed is not None:
            return placed
    return None


def as_rug(plan: Plan, rng: np.random.Generator, piece: Piece,
           under: Sequence[Placed]) -> Placed | None:
    """Lays a rug, by preference under or before one of the given objects."""
    for _ in range(TRIES // 2):
        if under and rng.random() < 0.8:
            target = under[int(rng.integers(len(under)))]
            u, v = target.point(0.0, float(rng.uniform(0, target.piece.half[1] + 0.3)))
            yaw = target.yaw
        else:
            u, v = (float(rng.uniform(0.3, 0.7)) * plan.size[axis] for axis in (0, 1))
            yaw = SIDES[int(rng.integers(4))] + float(rng.normal(0, 0.1))
        space = Footprint(u, v, piece.half[0], piece.half[1], yaw, 0.0, piece.height)
        others = (other.footprint for other in plan.placed if other.piece.kind == 'rug')
        if space.inside(plan.size[0], plan.size[1], 0.02) and not any(map(space.meets, others)):
            return plan.add(piece, u, v, 0.0, yaw)
    return None


def under_ceiling(plan: Plan, rng: np.random.Generator, piece: Piece) -> Placed | None:
    """Hangs a lamp from the ceiling, near the middle of the room."""
    for _ in range(TRIES // 2):
        x, y = (float(rng.uniform(0.35, 0.65)) * plan.size[axis] for axis in (0, 1))
        placed = plan.try_add(piece, x, y, plan.size[2] - piece.height - 0.001,
                              SIDES[int(rng.integers(2))])
        if placed is not None:
            return placed
    return None
