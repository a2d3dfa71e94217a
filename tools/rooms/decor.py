"""Builders of lamps, plants, screens, rugs and what hangs on walls (see seating.py)."""

from __future__ import annotations

import numpy as np

from .material import (
    Material,
    cloth_color,
    hard_material,
    hsv,
    make,
    paint_color,
    shaded,
    wood_color,
)
from .piece import Piece, assemble
from .primitive import box, ellipsoid, frustum


def _shade(rng: np.random.Generator) -> Material:
    color = hsv(rng.uniform(0.05, 0.17), rng.uniform(0.05, 0.5), rng.uniform(0.8, 1.0))
    return make(rng, 'lampshade', color, emission=rng.uniform(0.4, 1.6))


def _metal(rng: np.random.Generator) -> Material:
    return make(rng, 'plain', hsv(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.1, 0.8)))


def floor_lamp(rng: np.random.Generator) -> Piece:
    """A standing lamp: foot, pole, shade."""
    metal, high = _metal(rng), rng.uniform(1.3, 1.75)
    wide, tall = rng.uniform(0.15, 0.26), rng.uniform(0.22, 0.36)
    parts = [frustum(0, 0, (0, 0.03), (0.15, 0.14), metal),
             frustum(0, 0, (0.03, high - 0.8 * tall), (0.018, 0.015), metal),
             frustum(0, 0, (high - tall, high), (wide, wide * rng.uniform(0.5, 0.95)),
                     _shade(rng), casts=False)]
    return assemble('lamp', parts)


def table_lamp(rng: np.random.Generator) -> Piece:
    """A small lamp: a bulging foot and a shade."""
    foot = make(rng, 'plain', cloth_color(rng))
    stem, wide = rng.uniform(0.16, 0.3), rng.uniform(0.1, 0.16)
    tall = rng.uniform(0.15, 0.24)
    if rng.random() < 0.5:
        base = ellipsoid((0, 0, 0.45 * stem), (0.07, 0.07, 0.45 * stem), foot)
    else:
        base = frustum(0, 0, (0, 0.9 * stem), (0.07, 0.03), foot)
    parts = [base, frustum(0, 0, (0.5 * stem, stem + 0.05), (0.012, 0.012), _metal(rng)),
             frustum(0, 0, (stem, stem + tall), (wide, wide * rng.uniform(0.5, 0.9)), _shade(rng),
                     casts=False)]
    return assemble('lamp', parts)


def pendant(rng: np.random.Generator) -> Piece:
    """A lamp that hangs from the ceiling: its top is the ceiling."""
    drop, wide = rng.uniform(0.35, 0.75), rng.uniform(0.14, 0.28)
    tall = rng.uniform(0.16, 0.28)
    shade = _shade(rng)
    if rng.random() < 0.4:
        body = ellipsoid((0, 0, tall / 2), (wide, wide, tall / 2), shade, casts=False)
    else:
        body = frustum(0, 0, (0, tall), (wide, 0.4 * wide), shade, casts=False)
    return assemble('lamp', [body, frustum(0, 0, (tall, drop), (0.008, 0.008), _metal(rng))])


def ceiling_light(rng: np.random.Generator) -> Piece:
    """A flat light on the ceiling, round or oblong."""
    glow = make(rng, 'plain', hsv(rng.uniform(0.08, 0.16), rng.uniform(0.0, 0.2), 1.0),
                emission=rng.uniform(1.2, 2.0))
    if rng.random() < 0.5:
        radius = rng.uniform(0.16, 0.32)
        return assemble('lamp', [frustum(0, 0, (0, 0.08), (0.8 * radius, radius), glow, False)])
    wide, deep = rng.uniform(0.3, 0.6), rng.uniform(0.08, 0.3)
    return assemble('lamp', [box((-wide, wide), (-deep, deep), (0, 0.06), glow, casts=False)])


def plant(rng: np.random.Generator) -> Piece:
    """A potted plant of 0.5 to 1.5 metres."""
    return _potted(rng, rng.uniform(0.9, 1.7))


def small_plant(rng: np.random.Generator) -> Piece:
    """A potted plant for a table."""
    return _potted(rng, rng.uniform(0.32, 0.5))


def _potted(rng: np.random.Generator, size: float) -> Piece:
    radius, tall = size * rng.uniform(0.12, 0.17), size * rng.uniform(0.24, 0.34)
    pot = make(rng, 'plain', paint_color(rng))
    green = hsv(rng.uniform(0.2, 0.42), rng.uniform(0.35, 0.8), rng.uniform(0.25, 0.7))
    if rng.random() < 0.12:
        green = cloth_color(rng)
    leaf = make(rng, 'leaves', shaded(green, 0.5), green)
    parts = [frustum(0, 0, (0, tall), (0.75 * radius, radius), pot)]
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(3, 6))):
            part = size * rng.uniform(0.12, 0.2)
            angle, reach = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.03, 0.13)
            center = (reach * np.cos(angle), reach * np.sin(angle),
                      rng.uniform(tall + part, size - 0.8 * part))
            parts.append(ellipsoid(center, (part, part, part * rng.uniform(0.8, 1.3)), leaf))
        parts.append(frustum(0, 0, (tall, 0.7 * size), (0.05 * radius, 0.05 * radius), pot))
        return assemble('plant', parts)
    for place in range(int(rng.integers(6, 10))):
        long, tilt = size * rng.uniform(0.22, 0.36), rng.uniform(0.15, 0.8)
        spin = 2.4 * place + rng.uniform(-0.4, 0.4)
        lean, rise = long * np.sin(tilt), long * np.cos(tilt)
        center = (lean * np.sin(spin), -lean * np.cos(spin), tall + 0.9 * rise)
        parts.append(ellipsoid(center, (0.05 * size, 0.015 * size, long), leaf, tilt=tilt,
                               spin=spin))
    return assemble('plant', parts)


def screen(rng: np.random.Generator) -> Piece:
    """A flat television or monitor on a foot; sometimes switched on."""
    wide, aspect = rng.uniform(0.24, 0.55), rng.uniform(0.54, 0.66)
    rim = hsv(rng.random(), rng.uniform(0, 0.2), float(rng.choice([0.08, 0.15, 0.8])))
    shown = [hsv(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.06, 0.2))] * 2
    on = rng.random() < 0.5
    if on:
        shown = [cloth_color(rng) for _ in range(3)]
    face = make(rng, 'display', rim, *shown, counts=tuple(int(n) for n in rng.integers(1, 4, 2)),
                emission=rng.uniform(0.3, 0.8) if on else 0.0)
    dark, foot = make(rng, 'plain', rim), rng.uniform(0.04, 0.12)
    parts = [box((-wide, wide), (-0.02, 0.02), (foot, foot + 2 * wide * aspect), face),
             box((-0.03, 0.03), (-0.03, 0.0), (0, foot + 0.1), dark),
             box((-0.4 * wide, 0.4 * wide), (-0.1, 0.1), (0, 0.015), dark)]
    return assemble('screen', parts)


def wall_screen(rng: np.random.Generator) -> Piece:
    """The panel of a screen, to hang on a wall."""
    return assemble('screen', [screen(rng).parts[0]])


def painting(rng: np.random.Generator) -> Piece:
    """A framed picture."""
    wide, high = rng.uniform(0.18, 0.6), rng.uniform(0.18, 0.42)
    frame = wood_color(rng) if rng.random() < 0.6 else paint_color(rng)
    colors = [cloth_color(rng) for _ in range(3)]
    border = int(rng.integers(1, 3))
    paper = hsv(rng.random(), 0.05, 0.95)
    art = make(rng, 'artwork', frame, *colors, paper, counts=(int(rng.integers(1, 3)), border))
    return assemble('painting', [box((-wide, wide), (0, 0.035), (-high, high), art)])


def rug(rng: np.random.Generator) -> Piece:
    """A flat rug, rectangular with a border or round."""
    one, two = cloth_color(rng), cloth_color(rng)
    if rng.random() < 0.25:
        radius = rng.uniform(0.6, 1.1)
        pattern = str(rng.choice(['mottled', 'stripes', 'checks']))
        material = make(rng, pattern, one, two, scale=rng.uniform(0.12, 0.4))
        return assemble('rug', [frustum(0, 0, (0, 0.012), (radius, radius), material)])
    pattern = str(rng.choice(['bordered', 'bordered', 'stripes', 'mottled', 'checks']))
    material = make(rng, pattern, one, two, scale=rng.uniform(0.2, 0.6))
    wide, deep = rng.uniform(0.7, 1.4), rng.uniform(0.5, 1.0)
    return assemble('rug', [box((-wide, wide), (-deep, deep), (0, 0.012), material)])


def door(rng: np.random.Generator) -> Piece:
    """A closed door in its casing."""
    wide, high = rng.uniform(0.38, 0.46), rng.uniform(1.95, 2.08)
    casing, leaf = hard_material(rng), hard_material(rng)
    if rng.random() < 0.5:
        casing = leaf
    style = (int(rng.integers(1, 3)), int(rng.integers(1, 4)))
    face = make(rng, 'panels', *leaf.colors[:2], leaf.colors[0], counts=style)
    if rng.random() < 0.3:
        face = leaf
    parts = [box((-wide, wide), (0, 0.025), (0, high), face)]
    for sign in (-1, 1):
        x = sorted((sign * wide, sign * (wide + 0.07)))
        parts.append(box((x[0], x[1]), (0, 0.045), (0, high + 0.07), casing))
    parts.append(box((-wide, wide), (0, 0.045), (high, high + 0.07), casing))
    x = float(rng.choice([-1, 1])) * (wide - 0.09)
    parts.append(box((x - 0.05, x + 0.05), (0.025, 0.045), (1.0, 1.04), _metal(rng)))
    return assemble('door', parts)


def windowpane(rng: np.random.Generator, day: bool) -> Piece:
    """A window with panes, by day or by night."""
    wide, high = rng.uniform(0.35, 0.85), rng.uniform(0.42, 0.75)
    frame = hsv(rng.random(), 0.05, 0.95) if rng.random() < 0.7 else wood_color(rng)
    if day:
        sky = hsv(rng.uniform(0.52, 0.64), rng.uniform(0.0, 0.5), 1.0)
        far = hsv(rng.uniform(0.08, 0.6), rng.uniform(0.1, 0.5), rng.uniform(0.4, 0.8))
        near = hsv(rng.uniform(0.08, 0.4), rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.7))
        glow = rng.uniform(0.8, 1.6)
    else:
        sky, far, near = (hsv(rng.uniform(0.55, 0.75), 0.5, rng.uniform(0.05, 0.25))
                          for _ in range(3))
        glow = 0.35
    glass = make(rng, 'panes', frame, sky, far, near,
                 counts=(int(rng.integers(1, 4)), int(rng.integers(1, 3))), emission=glow)
    edge = make(rng, 'plain', frame)
    parts = [box((-wide, wide), (0, 0.02), (-high, high), glass, casts=False),
             box((-wide - 0.06, wide + 0.06), (0, 0.05), (-high - 0.06, -high), edge),
             box((-wide - 0.06, wide + 0.06), (0, 0.03), (high, high + 0.06), edge)]
    for sign in (-1, 1):
        x = sorted((sign * wide, sign * (wide + 0.06)))
        parts.append(box((x[0], x[1]), (0, 0.03), (-high, high), edge))
    return assemble('windowpane', parts)


def curtain(rng: np.random.Generator, wide: float, high: float) -> Piece:
    """One half of a pair of curtains, ``wide`` and ``high`` in metres."""
    cloth = make(rng, 'folds', cloth_color(rng), cloth_color(rng), scale=rng.uniform(0.06, 0.13),
                 counts=(int(rng.random() < 0.25) + 1, 1))
    return assemble('curtain', [box((-wide / 2, wide / 2), (0.02, 0.08), (0, high), cloth)])
