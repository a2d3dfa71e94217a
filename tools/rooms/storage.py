"""Builders of tables, cabinets, shelves and boxes (see seating.py for how they work)."""

from __future__ import annotations

import numpy as np

from .material import cloth_color, hard_material, hsv, make, paint_color, shaded, wood_color
from .piece import Piece, assemble
from .primitive import box, frustum
from .seating import legs


def table(rng: np.random.Generator) -> Piece:
    """A dining table: rectangular on four legs, or round on a post."""
    wood, level = hard_material(rng), rng.uniform(0.68, 0.78)
    plate = wood if rng.random() < 0.7 else hard_material(rng)
    if rng.random() < 0.35:
        radius = rng.uniform(0.42, 0.62)
        parts = [frustum(0, 0, (0, 0.04), (0.55 * radius, 0.5 * radius), wood),
                 frustum(0, 0, (0.04, level), (0.06, 0.05), wood),
                 frustum(0, 0, (level, level + 0.04), (radius, radius), plate)]
        inner = 0.65 * radius
        return assemble('table', parts, (-inner, inner, -inner, inner, level + 0.04))
    wide, deep = rng.uniform(0.5, 0.9), rng.uniform(0.36, 0.5)
    return _four_legged(rng, wide, deep, level)


def coffee_table(rng: np.random.Generator) -> Piece:
    """A low table, sometimes with a lower board."""
    return _four_legged(rng, rng.uniform(0.35, 0.6), rng.uniform(0.25, 0.4),
                        rng.uniform(0.34, 0.46))


def _four_legged(rng: np.random.Generator, wide: float, deep: float, level: float) -> Piece:
    wood = hard_material(rng)
    plate = wood if rng.random() < 0.7 else hard_material(rng)
    thick = rng.uniform(0.022, 0.04)
    parts = legs(rng, wide - 0.07, deep - 0.07, level, wood, thick)
    parts.append(box((-wide, wide), (-deep, deep), (level, level + 0.045), plate))
    if rng.random() < 0.4:
        parts.append(box((-wide + 0.08, wide - 0.08), (-deep + 0.06, deep - 0.06),
                         (level - 0.09, level), wood))
    if level < 0.5 and rng.random() < 0.4:
        parts.append(box((-wide + 0.07, wide - 0.07), (-deep + 0.07, deep - 0.07),
                         (0.12, 0.15), wood))
    return assemble('table', parts, (-wide, wide, -deep, deep, level + 0.045))


def desk(rng: np.random.Generator) -> Piece:
    """A desk: a plate on side boards, with or without a block of drawers."""
    wood, level = hard_material(rng), rng.uniform(0.7, 0.76)
    wide, deep = rng.uniform(0.55, 0.85), rng.uniform(0.3, 0.4)
    parts = [box((-wide, wide), (-deep, deep), (level, level + 0.04), wood)]
    for sign in (-1, 1):
        x = sorted((sign * (wide - 0.02), sign * (wide - 0.06)))
        parts.append(box((x[0], x[1]), (-deep + 0.02, deep - 0.02), (0, level), wood))
    parts.append(box((-wide + 0.06, wide - 0.06), (-deep + 0.02, -deep + 0.04),
                     (0.3, level), wood))
    if rng.random() < 0.6:
        front = make(rng, 'panels', *wood.colors[:2], paint_color(rng), counts=(1, 3))
        parts.append(box((wide - 0.46, wide - 0.06), (-deep + 0.04, deep - 0.03),
                         (0.1, level), front))
    return assemble('table', parts, (-wide, wide, -deep, deep, level + 0.04))


def _cabinet(rng: np.random.Generator, wide: float, deep: float, high: float,
             columns: int, rows: int) -> Piece:
    wood = hard_material(rng)
    front = make(rng, 'panels', *wood.colors[:2], paint_color(rng), counts=(columns, rows))
    foot = rng.uniform(0.03, 0.14)
    if foot > 0.09:
        parts = legs(rng, wide - 0.05, deep - 0.05, foot, wood, 0.022)
    else:
        parts = [box((-wide + 0.02, wide - 0.02), (-deep + 0.02, deep - 0.04), (0, foot), wood)]
    parts.append(box((-wide, wide), (-deep, deep), (foot, high - 0.03), front))
    parts.append(box((-wide - 0.015, wide + 0.015), (-deep, deep + 0.015), (high - 0.03, high),
                     wood))
    return assemble('cabinet', parts, (-wide, wide, -deep, deep, high))


def sideboard(rng: np.random.Generator) -> Piece:
    """A wide low cabinet with doors or drawers."""
    return _cabinet(rng, rng.uniform(0.45, 0.85), rng.uniform(0.2, 0.26), rng.uniform(0.5, 0.95),
                    int(rng.integers(2, 5)), int(rng.integers(1, 4)))


def wardrobe(rng: np.random.Generator) -> Piece:
    """A tall cabinet with two to four doors."""
    doors = int(rng.integers(2, 5))
    return _cabinet(rng, rng.uniform(0.23, 0.27) * doors, rng.uniform(0.26, 0.31),
                    rng.uniform(1.7, 2.2), doors, int(rng.integers(1, 3)))


def nightstand(rng: np.random.Generator) -> Piece:
    """A small cabinet with one to three drawers."""
    return _cabinet(rng, rng.uniform(0.2, 0.28), rng.uniform(0.18, 0.22), rng.uniform(0.42, 0.62),
                    1, int(rng.integers(1, 4)))


def shelf(rng: np.random.Generator) -> Piece:
    """An open shelf with rows of books and some gaps."""
    wood = hard_material(rng)
    wide, deep = rng.uniform(0.3, 0.7), rng.uniform(0.13, 0.18)
    high, rows = rng.uniform(1.0, 2.15), int(rng.integers(3, 6))
    parts = [box((-wide, wide), (-deep, -deep + 0.02), (0, high), wood)]
    for sign in (-1, 1):
        x = sorted((sign * wide, sign * (wide - 0.035)))
        parts.append(box((x[0], x[1]), (-deep, deep), (0, high), wood))
    step = (high - 0.06) / rows
    for row in range(rows + 1):
        z = 0.06 + row * step
        parts.append(box((-wide, wide), (-deep, deep), (z - 0.035, z), wood))
        if row == rows or rng.random() < 0.2:
            continue
        colors = [cloth_color(rng) for _ in range(5)]
        backs = make(rng, 'books', *colors, scale=rng.uniform(0.035, 0.07))
        start, stop = sorted(rng.uniform(-wide + 0.04, wide - 0.04, 2))
        if stop - start < 0.7 * wide:
            start, stop = -wide + 0.04, wide - 0.04
        parts.append(box((start, stop), (-deep + 0.02, deep - 0.05),
                         (z, z + step * rng.uniform(0.6, 0.85)), backs))
    return assemble('shelf', parts, (-wide, wide, -deep, deep, parts[-1].center[2] + 0.0175))


def carton(rng: np.random.Generator) -> Piece:
    """A box: a carton with tape, or a painted chest with a lid."""
    wide, deep = rng.uniform(0.14, 0.32), rng.uniform(0.12, 0.24)
    high = rng.uniform(0.18, 0.5)
    if rng.random() < 0.7:
        color = hsv(rng.uniform(0.06, 0.11), rng.uniform(0.3, 0.55), rng.uniform(0.45, 0.85))
        if rng.random() < 0.3:
            color = paint_color(rng)
        material = make(rng, 'parcel', color, shaded(color, rng.choice([0.55, 1.6])))
        return assemble('box', [box((-wide, wide), (-deep, deep), (0, high), material)],
                        (-wide, wide, -deep, deep, high))
    body = make(rng, 'plain', paint_color(rng), wood_color(rng))
    lid = make(rng, 'plain', shaded(body.colors[0], 0.7), wood_color(rng))
    parts = [box((-wide, wide), (-deep, deep), (0, 0.8 * high), body),
             box((-wide - 0.01, wide + 0.01), (-deep - 0.01, deep + 0.01), (0.8 * high, high), lid)]
    return assemble('box', parts, (-wide, wide, -deep, deep, high))
