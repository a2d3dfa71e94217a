"""Patterns that fill one face: panels, curtain folds, books, leaves, pictures, panes, screens."""

from __future__ import annotations

from typing import Callable

import numpy as np

from . import texture
from .material import Material
from .texture import CLOUDS, GRAIN, SurfacePoints, as_column, chance, fade, mix, noise


def panels(points: SurfacePoints, material: Material) -> np.ndarray:
    """Grooved fronts in ``counts`` columns and rows with a knob each; other faces are wood."""
    base = texture.grain(points, material)
    columns, rows = material.counts
    across, up = (points.un + 1) * columns / 2, (points.vn + 1) * rows / 2
    column, row = np.floor(across), np.floor(up)
    off_u, off_v = np.abs(across - column - 0.5), np.abs(up - row - 0.5)
    edge = np.maximum(off_u, off_v)
    groove = points.front & (edge > 0.455)
    inner = points.front & (edge > 0.34) & (edge < 0.375)
    side = np.where((column % 2) == 0, 0.33, -0.33) if columns > 1 else np.float32(0)
    knob = points.front & (np.abs(across - column - 0.5 - side) < 0.07) & (off_v < 0.09)
    gain = 1 - 0.6 * groove - 0.22 * inner
    base = base * gain
    base[:, knob] = as_column(material.colors[-1])
    return base


def folds(points: SurfacePoints, material: Material) -> np.ndarray:
    """Hanging cloth in soft upright folds, plain or striped."""
    warp = noise(CLOUDS, points.u * 4 + material.offset[0], points.v * 0.7)
    phase = points.u / material.scale + 0.5 * warp + material.offset[0]
    wave = np.cos(2 * np.pi * phase) * fade(points, material.scale)
    place = np.floor(points.u / (material.scale * 1.7) + material.offset[1])
    weight = (place % 2) * (material.counts[0] > 1)
    return mix(material, weight, 0.72 + 0.3 * wave)


def books(points: SurfacePoints, material: Material) -> np.ndarray:
    """Backs of books of many colours and heights, a dark gap above them."""
    place = (points.u + material.offset[0]) / material.scale
    column = np.floor(place + 0.35 * np.sin(5 * place))
    zero = np.zeros_like(column)
    which = chance(column, zero, material.offset[0]) * len(material.colors)
    colors = np.asarray(material.colors, np.float32).T.take(which.astype(np.int32), axis=1)
    tall = 0.2 + 0.75 * chance(column, zero + 3, material.offset[1])
    gain = 0.7 + 0.5 * chance(column, zero + 5, material.offset[1])
    gain = np.where(points.vn > tall, 0.08, gain)
    return colors * gain.astype(np.float32)


def leaves(points: SurfacePoints, material: Material) -> np.ndarray:
    """Foliage: bright and dark leaves with deep gaps."""
    spot_u = points.u * 30 + material.offset[0] * 9
    spot_v = points.v * 30 + material.offset[1] * 9
    value = noise(GRAIN, spot_u, spot_v)
    blade = noise(CLOUDS, spot_v * 2.3, spot_u * 2.3)
    gain = np.where(blade < 0.38, 0.25, 1.0) * (0.65 + 0.7 * value)
    return mix(material, np.clip(2.5 * (value - 0.3), 0, 1), gain)


def artwork(points: SurfacePoints, material: Material) -> np.ndarray:
    """A picture in a frame: a landscape (``counts[0]`` = 1) or flat shapes; first colour: frame."""
    colors = np.asarray(material.colors, np.float32).T
    shift_u, shift_v = material.offset
    soft = noise(CLOUDS, points.un * 9 + shift_u * 5, points.vn * 9 + shift_v * 5)
    if material.counts[0] == 1:
        level = points.vn * 1.3 + 2.2 * (soft - 0.5) + 0.2
        index = 1 + (level < 0.3) + (level < -0.4).astype(np.int32)
        gain = 0.8 + 0.4 * noise(GRAIN, points.un * 14, points.vn * 14)
    else:
        index = 1 + np.clip((soft - 0.2) * 5, 0, 2.99).astype(np.int32)
        gain = np.ones_like(soft)
    color = colors.take(index, axis=1) * gain
    edge = np.maximum(np.abs(points.un), np.abs(points.vn))
    color[:, (edge > 0.76) & (edge < 0.87) & (material.counts[1] > 1)] = colors[:, -1:]
    color[:, (edge > 0.87) | ~points.front] = colors[:, :1]
    return color


def panes(points: SurfacePoints, material: Material) -> np.ndarray:
    """A window in ``counts`` panes: frame, sky, horizon, ground (the four colours)."""
    frame, sky, far, near = (as_column(color) for color in material.colors)
    soft = noise(CLOUDS, points.un * 6 + material.offset[0] * 5, points.vn * 6)
    height = points.vn + 0.9 * (soft - 0.5) - (material.offset[1] - 5) * 0.08
    up = np.clip(0.5 + 0.5 * points.vn, 0, 1)
    color = sky * (1.15 - 0.3 * up + 0.5 * (soft - 0.4))
    color = np.where(height < -0.25, far, color)
    color = np.where(height < -0.6, near, color)
    columns, rows = material.counts
    across, up_n = (points.un + 1) * columns / 2, (points.vn + 1) * rows / 2
    bar = np.abs(across - np.floor(across) - 0.5) > 0.5 - 0.045 * columns
    bar |= np.abs(up_n - np.floor(up_n) - 0.5) > 0.5 - 0.04 * rows
    return np.where(bar | ~points.front, frame * 0.35, color)


def display(points: SurfacePoints, material: Material) -> np.ndarray:
    """A screen with a dark rim: first colour the rim, then what it shows."""
    colors = np.asarray(material.colors, np.float32).T
    across = np.floor((points.un + 1) * material.counts[0] / 2)
    up = np.floor((points.vn + 1) * material.counts[1] / 2)
    which = chance(across, up, material.offset[0]) * (colors.shape[1] - 1)
    color = colors.take(1 + which.astype(np.int32), axis=1)
    color = color * (0.9 + 0.25 * points.un - 0.2 * points.vn)
    edge = np.maximum(np.abs(points.un), np.abs(points.vn))
    color[:, (edge > 0.93) | ~points.front] = colors[:, :1]
    return color


def lampshade(points: SurfacePoints, material: Material) -> np.ndarray:
    """Lit cloth, brightest in the middle of its height."""
    gain = 1.0 - 0.45 * points.vn * points.vn
    return as_column(material.colors[0]) * gain


def bordered(points: SurfacePoints, material: Material) -> np.ndarray:
    """A rug: two bands of the second colour along its edge, lozenges inside."""
    edge = np.maximum(np.abs(points.un), np.abs(points.vn))
    inner = texture.diamonds(points, material)
    inner[:, edge > 0.82] = as_column(material.colors[0])
    inner[:, ((edge > 0.72) & (edge < 0.82)) | (edge > 0.93)] = as_column(material.colors[1])
    speckle = noise(GRAIN, points.u * 60, points.v * 60)
    return inner * (0.8 + 0.4 * speckle)


def parcel(points: SurfacePoints, material: Material) -> np.ndarray:
    """A carton: plain board with a strip of tape and a dark seam."""
    color = texture.plain(points, material)
    color[:, np.abs(points.un) < 0.13] = as_column(material.colors[1])
    color[:, np.abs(points.un) < 0.02] *= 0.6
    return color


PICTURES: dict[str, Callable[[SurfacePoints, Material], np.ndarray]] = {
    'panels': panels, 'folds': folds, 'books': books, 'leaves': leaves, 'artwork': artwork,
    'panes': panes, 'display': display, 'lampshade': lampshade, 'bordered': bordered,
    'parcel': parcel,
}
