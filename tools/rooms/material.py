"""Materials: a texture pattern with colours, and how they are drawn at random.

Colours are drawn per object from ranges that overlap between kinds, so that a colour alone
does not tell what a thing is.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    Args:
        pattern: A key of ``PATTERNS`` in texture.py or of ``PICTURES`` in picture.py.
        colors: Linear RGB in [0, 1]; how many are needed depends on the pattern.
        scale: Size of the pattern's period in metres.
        offset: Where the pattern starts, (u, v) in metres; it also picks its random numbers.
        counts: Divisions of the face (columns, rows), for panels, panes and books.
        emission: Radiance that the surface gives off, as a multiple of its colour.
    """

    pattern: str
    colors: tuple[Color, ...]
    scale: float = 0.3
    offset: tuple[float, float] = (0.0, 0.0)
    counts: tuple[int, int] = (1, 1)
    emission: float = 0.0


def hsv(hue: float, saturation: float, value: float) -> Color:
    """Linear RGB of a colour given in HSV of display values (gamma 2.2), all in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return red ** 2.2, green ** 2.2, blue ** 2.2


def shaded(color: Color, factor: float) -> Color:
    """The colour times a factor, at most 1 in each channel."""
    return tuple(min(1.0, channel * factor) for channel in color)  # type: ignore[return-value]


def wood_color(rng: np.random.Generator) -> Color:
    """A wood tone, from pale birch to dark walnut."""
    return hsv(rng.uniform(0.05, 0.12), rng.uniform(0.2, 0.65), rng.uniform(0.25, 0.9))


def paint_color(rng: np.random.Generator) -> Color:
    """A paint: half of them greys and off-whites, half of any hue."""
    if rng.random() < 0.5:
        return hsv(rng.random(), rng.uniform(0.0, 0.12), rng.uniform(0.3, 0.97))
    return hsv(rng.random(), rng.uniform(0.12, 0.55), rng.uniform(0.3, 0.95))


def cloth_color(rng: np.random.Generator) -> Color:
    """A dyed cloth of any hue."""
    return hsv(rng.random(), rng.uniform(0.0, 0.65), rng.uniform(0.15, 0.95))


def make(rng: np.random.Generator, pattern: str, *colors: Color, scale: float = 0.3,
         counts: tuple[int, int] = (1, 1), emission: float = 0.0) -> Material:
    """A material with a random start of its pattern."""
    offset = (float(rng.uniform(0, 10)), float(rng.uniform(0, 10)))
    return Material(pattern, tuple(colors), float(scale), offset, counts, emission)


def pick(rng: np.random.Generator, options: tuple[str, ...], weights: tuple[float, ...]) -> str:
    """One of the options, by weights that sum to 1."""
    draw, total = rng.random(), 0.0
    for option, weight in zip(options, weights):
        total += weight
        if draw < total:
            return option
    return options[-1]


def hard_material(rng: np.random.Generator) -> Material:
    """What furniture is built of: wood, paint or a speckled board."""
    pattern = pick(rng, ('grain', 'plain', 'mottled'), (0.5, 0.38, 0.12))
    color = wood_color(rng) if pattern == 'grain' else paint_color(rng)
    return make(rng, pattern, color, shaded(color, rng.uniform(0.4, 0.8)),
                scale=rng.uniform(0.08, 0.3))


def soft_material(rng: np.random.Generator) -> Material:
    """What is upholstered or woven: plain, mottled, striped, checked or dotted cloth."""
    pattern = pick(rng, ('plain', 'mottled', 'stripes', 'checks', 'dots'),
                   (0.42, 0.22, 0.14, 0.12, 0.1))
    return make(rng, pattern, cloth_color(rng), cloth_color(rng), scale=rng.uniform(0.08, 0.25))


def wall_material(rng: np.random.Generator) -> Material:
    """Paint, wall paper, brick or boards."""
    pattern = pick(rng, ('plain', 'stripes', 'dots', 'diamonds', 'brick', 'planks'),
                   (0.5, 0.15, 0.1, 0.1, 0.08, 0.07))
    base = hsv(rng.random(), rng.uniform(0.0, 0.35), rng.uniform(0.5, 0.97))
    second = shaded(base, rng.uniform(0.55, 0.9))
    if pattern == 'brick':
        base, second = hsv(rng.uniform(0.0, 0.1), 0.5, rng.uniform(0.4, 0.8)), paint_color(rng)
    if pattern == 'planks':
        base, second = wood_color(rng), wood_color(rng)
    skirting = hsv(rng.random(), rng.uniform(0.0, 0.3), rng.uniform(0.3, 0.97))
    return make(rng, pattern, base, second, skirting, scale=rng.uniform(0.12, 0.4))


def floor_material(rng: np.random.Generator) -> Material:
    """Boards, tiles, a chequer of tiles, or carpet."""
    pattern = pick(rng, ('planks', 'tiles', 'chequer', 'mottled', 'plain'),
                   (0.45, 0.2, 0.1, 0.17, 0.08))
    if pattern == 'planks':
        base = wood_color(rng)
        return make(rng, pattern, base, shaded(base, rng.uniform(0.5, 0.8)),
                    scale=rng.uniform(0.09, 0.22))
    base = paint_color(rng)
    second = paint_color(rng) if pattern == 'chequer' else shaded(base, rng.uniform(0.4, 0.75))
    return make(rng, pattern, base, second, scale=rng.uniform(0.25, 0.6))


def ceiling_material(rng: np.random.Generator) -> Material:
    """Mostly white plaster; sometimes boards or square panels."""
    pattern = pick(rng, ('plain', 'planks', 'tiles'), (0.78, 0.1, 0.12))
    base = hsv(rng.random(), rng.uniform(0.0, 0.12), rng.uniform(0.75, 1.0))
    if pattern == 'planks' and rng.random() < 0.5:
        base = wood_color(rng)
    return make(rng, pattern, base, shaded(base, 0.75), scale=rng.uniform(0.15, 0.6))
