"""Texture patterns: colours of surface points, computed from their place on the surface.

Colours are linear RGB, planes first, (3, N) float32. A pattern fades to its mean colour where its
period falls under two pixels, so that distant floors do not glitter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np

from .material import Color, Material

NOISE_SIZE = 512
TABLE_SIZE = 1024


@dataclass(frozen=True)
class SurfacePoints:
    """N points of one solid, as the patterns need them.

    Args:
        u: (N,) place along the surface, in metres, horizontal on upright faces.
        v: (N,) place across it, in metres, upwards on upright faces.
        un: (N,) the same as ``u``, from -1 to 1 over the face.
        vn: (N,) the same as ``v``, from -1 to 1 over the face.
        front: (N,) whether the point is on the face that looks to the piece's front.
        footprint: (N,) size of a pixel on the surface, in metres.
    """

    u: np.ndarray
    v: np.ndarray
    un: np.ndarray
    vn: np.ndarray
    front: np.ndarray
    footprint: np.ndarray


def _smooth_noise() -> tuple[np.ndarray, np.ndarray]:
    """Two periodic pictures of noise in [0, 1]: soft clouds, and clouds with fine grain."""
    rng = np.random.Generator(np.random.PCG64(20240229))
    frequency = np.hypot(np.fft.fftfreq(NOISE_SIZE)[:, None], np.fft.fftfreq(NOISE_SIZE)) * 512
    layers = []
    for power, corner in ((2.6, 6.0), (1.1, 12.0)):
        spectrum = np.fft.fft2(rng.standard_normal((NOISE_SIZE, NOISE_SIZE)))
        layer = np.fft.ifft2(spectrum / (1 + frequency / corner) ** power).real
        layer = (layer - layer.mean()) / layer.std()
        layers.append(np.clip(0.5 + 0.22 * layer, 0, 1).astype(np.float32))
    return layers[0], layers[1]


CLOUDS, GRAIN = _smooth_noise()
TABLE = np.random.Generator(np.random.PCG64(7)).random(TABLE_SIZE).astype(np.float32)


def noise(picture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Noise at (u, v) in units of 1/64 of the picture's side."""
    column = np.floor(u * (NOISE_SIZE / 64)).astype(np.int32) & (NOISE_SIZE - 1)
    row = np.floor(v * (NOISE_SIZE / 64)).astype(np.int32) & (NOISE_SIZE - 1)
    return picture.ravel().take(row * NOISE_SIZE + column)


def chance(column: np.ndarray, row: np.ndarray, salt: float) -> np.ndarray:
    """A fixed random number in [0, 1) for each cell (column, row) of a grid."""
    cell = column.astype(np.int32) * 73 + row.astype(np.int32) * 179 + int(salt * 1000)
    return TABLE.take((cell ^ (cell >> 5)) & (TABLE_SIZE - 1))


def as_column(color: Color) -> np.ndarray:
    """(3, 1) float32 of a colour."""
    return np.asarray(color, np.float32)[:, None]


def mix(material: Material, weight: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Colours between the first (weight 0) and the second (weight 1), times ``gain``: (3, N)."""
    first, second = as_column(material.colors[0]), as_column(material.colors[1])
    return (first + weight * (second - first)) * gain


def fade(points: SurfacePoints, period: float) -> np.ndarray:
    """(N,) how much of a pattern of this period can be seen: 1 near, 0 under two pixels."""
    return np.clip(1.6 - 3.2 * points.footprint / period, 0, 1)


def _mottle(points: SurfacePoints, material: Material, amount: float) -> np.ndarray:
    shift_u, shift_v = material.offset
    value = noise(CLOUDS, points.u * 16 + shift_u * 7, points.v * 16 + shift_v * 7)
    return 1 + amount * (value - 0.5)


def plain(points: SurfacePoints, material: Material) -> np.ndarray:
    """One colour, a little uneven."""
    return as_column(material.colors[0]) * _mottle(points, material, 0.16)


def mottled(points: SurfacePoints, material: Material) -> np.ndarray:
    """Fine speckles of two colours: carpet, wool, speckled board."""
    weight = noise(GRAIN, points.u * 60 + material.offset[0], points.v * 60 + material.offset[1])
    weight = 0.3 + (1.6 * weight - 0.8) * fade(points, 0.05)
    return mix(material, np.clip(weight, 0, 1), _mottle(points, material, 0.2))


def grain(points: SurfacePoints, material: Material) -> np.ndarray:
    """Wood grain along u."""
    value = noise(GRAIN, points.u * 4 + material.offset[0], points.v * 70 + material.offset[1])
    visible = fade(points, 0.04)
    return mix(material, np.clip(0.35 + (value - 0.5) * 1.3 * visible, 0, 1),
               _mottle(points, material, 0.15))


def planks(points: SurfacePoints, material: Material) -> np.ndarray:
    """Boards along u, ``scale`` wide and eight times as long, each with its own tone."""
    width = material.scale
    row = np.floor(points.v / width)
    along = points.u / (8 * width) + chance(row, row, material.offset[1])
    column = np.floor(along)
    tone = chance(column, row, material.offset[0])
    visible = fade(points, width)
    value = noise(GRAIN, points.u * 4 + 9 * tone, points.v * 70)
    weight = 0.3 + visible * (0.5 * (tone - 0.5) + 0.6 * (value - 0.5))
    seam = np.abs(points.v / width - row - 0.5) > 0.47
    seam |= np.abs(along - column - 0.5) > 0.494
    return mix(material, np.clip(weight, 0, 1), 1 - 0.45 * seam * visible)


def _grid(points: SurfacePoints, material: Material, joint: float, aspect: float = 1.0,
          shift: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells of a grid: which points are on joints, and the column and row of each."""
    across = (points.v + material.offset[1]) / (material.scale * aspect)
    row = np.floor(across)
    along = (points.u + material.offset[0]) / material.scale + shift * (row % 2)
    column = np.floor(along)
    joints = np.abs(along - column - 0.5) > 0.5 - joint
    joints |= np.abs(across - row - 0.5) > 0.5 - joint / aspect
    return joints, column, row


def tiles(points: SurfacePoints, material: Material) -> np.ndarray:
    """Square tiles with joints of the second colour."""
    joints, column, row = _grid(points, material, 0.035)
    visible = fade(points, material.scale)
    tone = 1 + 0.18 * (chance(column, row, material.offset[0]) - 0.5) * visible
    return mix(material, 0.05 + (0.95 * joints - 0.03) * visible, tone)


def chequer(points: SurfacePoints, material: Material) -> np.ndarray:
    """Square tiles of two colours by turns."""
    _, column, row = _grid(points, material, 0.0)
    visible = fade(points, 2 * material.scale)
    weight = 0.5 + ((column + row) % 2 - 0.5) * visible
    return mix(material, weight, _mottle(points, material, 0.1))


def brick(points: SurfacePoints, material: Material) -> np.ndarray:
    """Bricks in stretcher bond."""
    joints, column, row = _grid(points, material, 0.04, aspect=0.33, shift=0.5)
    visible = fade(points, material.scale / 3)
    tone = 1 + 0.5 * (chance(column, row, material.offset[0]) - 0.5) * visible
    return mix(material, 0.2 + (0.8 * joints - 0.15) * visible, tone)


def stripes(points: SurfacePoints, material: Material) -> np.ndarray:
    """Upright stripes of two colours."""
    place = (points.u + material.offset[0]) / material.scale
    band = (place - np.floor(place)) < 0.45
    weight = 0.45 + (band - 0.45) * fade(points, material.scale)
    return mix(material, weight, _mottle(points, material, 0.12))


def checks(points: SurfacePoints, material: Material) -> np.ndarray:
    """Crossing stripes, as on a woven cloth."""
    place_u = (points.u + material.offset[0]) / material.scale
    place_v = (points.v + material.offset[1]) / material.scale
    weight = 0.5 * ((place_u - np.floor(place_u)) < 0.5) + 0.5 * ((place_v - np.floor(place_v))
                                                                  < 0.5)
    weight = 0.5 + (weight - 0.5) * fade(points, material.scale)
    return mix(material, weight, _mottle(points, material, 0.12))


def dots(points: SurfacePoints, material: Material) -> np.ndarray:
    """Round dots on a plain ground."""
    place_u = (points.u + material.offset[0]) / material.scale
    place_v = (points.v + material.offset[1]) / material.scale
    off_u, off_v = place_u - np.floor(place_u) - 0.5, place_v - np.floor(place_v) - 0.5
    inside = off_u * off_u + off_v * off_v < 0.28 ** 2
    weight = 0.25 + (inside - 0.25) * fade(points, material.scale)
    return mix(material, weight, _mottle(points, material, 0.12))


def diamonds(points: SurfacePoints, material: Material) -> np.ndarray:
    """A soft lattice of lozenges."""
    turn = 2 * np.pi / material.scale
    wave = np.cos(turn * (points.u + material.offset[0])) + np.cos(0.6 * turn * points.v)
    weight = 0.5 + np.clip(0.8 * wave, -0.5, 0.5) * fade(points, material.scale)
    return mix(material, weight, _mottle(points, material, 0.1))


PATTERNS: dict[str, Callable[[SurfacePoints, Material], np.ndarray]] = {
    'plain': plain, 'mottled': mottled, 'grain': grain, 'planks': planks, 'tiles': tiles,
    'chequer': chequer, 'brick': brick, 'stripes': stripes, 'checks': checks, 'dots': dots,
    'diamonds': diamonds,
}
