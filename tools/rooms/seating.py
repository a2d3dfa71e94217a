"""Builders of things to sit and lie on, with their cushions and pillows.

Every builder draws its sizes and materials from the generator it is given and returns a new piece.
"""

from __future__ import annotations

import numpy as np

from .material import Material, hard_material, soft_material
from .piece import Piece, assemble
from .primitive import Part, box, ellipsoid, frustum


def legs(rng: np.random.Generator, x: float, y: float, height: float, material: Material,
         thick: float) -> list[Part]:
    """Four legs at (+-x, +-y): square or turned."""
    corners = [(side * x, way * y) for side in (-1, 1) for way in (-1, 1)]
    if rng.random() < 0.5:
        return [box((u - thick, u + thick), (v - thick, v + thick), (0, height), material)
                for u, v in corners]
    return [frustum(u, v, (0, height), (0.6 * thick, 1.2 * thick), material) for u, v in corners]


def chair(rng: np.random.Generator) -> Piece:
    """A chair: seat, legs, and a back of one board, of rails or of slats."""
    wood = hard_material(rng)
    seat = soft_material(rng) if rng.random() < 0.5 else wood
    wide, deep = rng.uniform(0.2, 0.26), rng.uniform(0.2, 0.25)
    level, back = rng.uniform(0.42, 0.5), rng.uniform(0.8, 1.1)
    parts = legs(rng, wide - 0.03, deep - 0.03, level, wood, 0.02)
    parts.append(box((-wide, wide), (-deep, deep), (level - 0.03, level + 0.03), seat))
    style = rng.integers(3)
    if style == 0:
        parts.append(box((-wide, wide), (-deep, -deep + 0.05), (level + 0.03, back), seat))
        return assemble('chair', parts)
    for side in (-1, 1):
        x = side * (wide - 0.02)
        parts.append(box((x - 0.02, x + 0.02), (-deep, -deep + 0.04), (level, back), wood))
    if style == 1:
        for height in (back - 0.08, (back + level) / 2):
            parts.append(box((-wide, wide), (-deep, -deep + 0.03), (height - 0.05, height + 0.05),
                             wood))
    else:
        parts.append(box((-wide, wide), (-deep, -deep + 0.03), (back - 0.09, back), wood))
        for x in (-0.33 * wide, 0.33 * wide):
            parts.append(box((x - 0.03, x + 0.03), (-deep, -deep + 0.03), (level, back), wood))
    return assemble('chair', parts)


def stool(rng: np.random.Generator) -> Piece:
    """A stool: a round or square seat on four legs, or a padded drum."""
    radius, level = rng.uniform(0.16, 0.22), rng.uniform(0.42, 0.7)
    wood, seat = hard_material(rng), soft_material(rng)
    if rng.random() < 0.35:
        radius, level = rng.uniform(0.22, 0.32), rng.uniform(0.36, 0.46)
        return assemble('stool', [frustum(0, 0, (0, level), (0.92 * radius, radius), seat)])
    parts = legs(rng, 0.7 * radius, 0.7 * radius, level, wood, 0.018)
    parts.append(frustum(0, 0, (level, level + 0.05), (radius, radius), seat))
    ring = 0.72 * radius
    parts.append(box((-ring, ring), (-0.015, 0.015), (0.35 * level, 0.35 * level + 0.03), wood))
    return assemble('stool', parts)


def _upholstered(rng: np.random.Generator, kind: str, wide: float, seats: int) -> Piece:
    cloth = soft_material(rng)
    pads = cloth if rng.random() < 0.7 else soft_material(rng)
    deep, arm = rng.uniform(0.38, 0.45), rng.uniform(0.09, 0.17)
    level, back, side = rng.uniform(0.36, 0.44), rng.uniform(0.72, 0.92), rng.uniform(0.52, 0.64)
    foot, inner = 0.08, wide - 2 * rng.uniform(0.09, 0.12)
    parts = legs(rng, wide - 0.06, deep - 0.06, foot, hard_material(rng), 0.025)
    parts.append(box((-wide, wide), (-deep, deep), (foot, level - 0.12), cloth))
    parts.append(box((-wide, wide), (-deep, -deep + 0.2), (level - 0.12, back), cloth))
    for sign in (-1, 1):
        outer = sorted((sign * wide, sign * (wide - arm)))
        parts.append(box((outer[0], outer[1]), (-deep, deep), (foot, side), cloth))
    inner = wide - arm
    step = 2 * inner / seats
    for place in range(seats):
        x0 = -inner + place * step
        parts.append(box((x0 + 0.01, x0 + step - 0.01), (-deep + 0.2, deep + 0.01),
                         (level - 0.12, level), pads))
    return assemble(kind, parts, (-inner, inner, -deep + 0.21, -deep + 0.53, level))


def sofa(rng: np.random.Generator) -> Piece:
    """A sofa for two or three; its seat takes cushions."""
    seats = int(rng.integers(2, 4))
    return _upholstered(rng, 'sofa', rng.uniform(0.34, 0.38) * seats + 0.12, seats)


def armchair(rng: np.random.Generator) -> Piece:
    """A sofa for one."""
    return _upholstered(rng, 'armchair', rng.uniform(0.38, 0.46), 1)


def bed(rng: np.random.Generator) -> Piece:
    """A bed: frame, mattress, cover and headboard; its upper end takes pillows."""
    wood, sheet, cover = hard_material(rng), soft_material(rng), soft_material(rng)
    wide, long = rng.uniform(0.48, 0.95), rng.uniform(0.98, 1.05)
    base, level = rng.uniform(0.12, 0.3), rng.uniform(0.45, 0.6)
    parts = legs(rng, wide - 0.06, long - 0.06, base, wood, 0.035)
    parts.append(box((-wide, wide), (-long, long), (base, base + 0.12), wood))
    parts.append(box((-wide + 0.03, wide - 0.03), (-long + 0.02, long - 0.03),
                     (base + 0.12, level), sheet))
    fold = rng.uniform(-0.45, 0.1) * long
    parts.append(box((-wide - 0.01, wide + 0.01), (fold, long + 0.01),
                     (level - rng.uniform(0.12, 0.25), level + 0.03), cover))
    if rng.random() < 0.85:
        parts.append(box((-wide, wide), (-long - 0.07, -long), (0, level + rng.uniform(0.2, 0.6)),
                         wood if rng.random() < 0.6 else cover))
    return assemble('bed', parts, (-wide + 0.05, wide - 0.05, -long + 0.04, -long + 0.52, level))


def cushion(rng: np.random.Generator) -> Piece:
    """A square cushion that leans back."""
    half, tilt = rng.uniform(0.17, 0.23), rng.uniform(0.15, 0.45)
    part = box((-half, half), (-0.06, 0.06), (-half, half), soft_material(rng), tilt=tilt,
               spin=rng.uniform(-0.25, 0.25))
    return assemble('cushion', [part])


def pillow(rng: np.random.Generator) -> Piece:
    """A flat, rounded pillow."""
    half = (rng.uniform(0.25, 0.36), rng.uniform(0.17, 0.22), rng.uniform(0.07, 0.11))
    return assemble('pillow', [ellipsoid((0, 0, 0), half, soft_material(rng),
                                         tilt=-rng.uniform(0.05, 0.3))])
