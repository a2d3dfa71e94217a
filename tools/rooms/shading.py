"""Light and colour of the points that the camera sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .geometry import SURFACE_COUNT, SURFACE_SIDES, Geometry
from .picture import PICTURES
from .primitive import BOX, FRUSTUM, surface_normal
from .texture import PATTERNS, SurfacePoints, as_column
from .visibility import View, lit

Coordinates = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
OFFSET = 2e-3
"""Distance by which points leave their surface before they look for the light, metres."""


@dataclass(frozen=True)
class Lighting:
    """Colours and strengths of the light, linear RGB.

    Args:
        key: (3,) light of the lamp or window that throws shadows, at one metre.
        fill: (3,) light that comes from everywhere.
        sky: (3,) further light on what looks upwards.
    """

    key: np.ndarray
    fill: np.ndarray
    sky: np.ndarray


def draw_lighting(rng: np.random.Generator) -> Lighting:
    """Warm to cool light, with deep to faint shadows."""
    warmth = rng.uniform(-0.12, 0.22)
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    fill = rng.uniform(0.22, 0.5)
    return Lighting(tint * rng.uniform(1.5, 3.2),
                    fill * np.array([1 - 0.3 * warmth, 1.0, 1 + 0.3 * warmth]),
                    np.full(3, rng.uniform(0.0, 0.15)))


def shade(geometry: Geometry, view: View, depth: np.ndarray, solid: np.ndarray,
          light: tuple[float, float, float], lighting: Lighting) -> np.ndarray:
    """Colours of a grid of rays that was traced.

    Args:
        geometry: The room.
        view: The rays.
        depth: (h, w) from ``trace``.
        solid: (h, w) from ``trace``.
        light: Place of the light.
        lighting: Its strength.

    Returns:
        (3, h, w) float32 linear RGB.
    """
    start = np.asarray(view.camera.position, np.float32)[:, None]
    directions = np.stack([axis.ravel() for axis in view.directions()])
    points = start + directions * depth.ravel()
    colors, normals, glow = _paint(geometry, view, points, directions, depth.ravel(),
                                   solid.ravel())
    to_light = np.asarray(light, np.float32)[:, None] - points
    square = _dot(to_light, to_light)
    distance = np.sqrt(square)
    facing = np.maximum(_dot(to_light, normals) / distance, 0)
    strength = facing / (0.35 + 0.3 * distance + 0.25 * square)
    strength *= _shadows(geometry, points + OFFSET * normals, light, facing, solid)
    open_air = _openness(geometry, points, normals, solid.ravel())
    upward = np.maximum(normals[2], 0)
    for plane, key, fill, sky in zip(colors, lighting.key, lighting.fill, lighting.sky):
        ambient = (np.float32(fill) + np.float32(sky) * upward) * open_air
        plane *= ambient + np.float32(key) * strength + glow
    return colors.reshape(3, *solid.shape)


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,) products of (3, N) vectors."""
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


def _paint(geometry: Geometry, view: View, points: np.ndarray, directions: np.ndarray,
           depth: np.ndarray, solid: np.ndarray
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours (3, N), unit normals (3, N) and emission (N,) of points, solid by solid."""
    order = np.argsort(solid.astype(np.int16), kind='stable')
    bounds = np.concatenate([[0], np.cumsum(np.bincount(solid, minlength=geometry.label.size))])
    points, directions = points.take(order, axis=1), directions.take(order, axis=1)
    depth = depth.take(order)
    colors, normals = np.empty_like(points), np.empty_like(points)
    glow = np.zeros(len(depth), np.float32)
    pixel = np.float32(abs(view.columns[1] - view.columns[0]) / view.camera.focal(view.size))
    for number in np.flatnonzero(np.diff(bounds)):
        rows = slice(bounds[number], bounds[number + 1])
        place = _surface_points if number < SURFACE_COUNT else _solid_points
        normal, coordinates = place(geometry, int(number), points[:, rows])
        slant = np.abs(_dot(directions[:, rows], normal))
        # A grazing view stretches a pixel along the surface; half the stretch blurs enough.
        footprint = pixel * depth[rows] * np.sqrt(1 / np.maximum(slant, 0.02))
        material = (geometry.surfaces[number] if number < SURFACE_COUNT
                    else geometry.materials[number - SURFACE_COUNT])
        pattern = PATTERNS.get(material.pattern) or PICTURES[material.pattern]
        colors[:, rows] = pattern(SurfacePoints(*coordinates, footprint), material)
        if 2 <= number < SURFACE_COUNT:
            colors[:, rows][:, points[2, rows] < 0.09] = as_column(material.colors[-1])
        normals[:, rows], glow[rows] = normal, material.emission
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return colors.take(back, axis=1), normals.take(back, axis=1), glow.take(back)


def _surface_points(geometry: Geometry, number: int, points: np.ndarray
                    ) -> tuple[np.ndarray, Coordinates]:
    """Normal and texture coordinates on a floor, ceiling or wall."""
    axis, end = SURFACE_SIDES[number]
    normal = np.zeros_like(points)
    normal[axis] = -1 if end else 1
    across, up = ((1, 2), (0, 2), (0, 1))[axis]
    u, v = points[across], points[up]
    un, vn = 2 * u / geometry.size[across] - 1, 2 * v / geometry.size[up] - 1
    return normal, (u, v, un, vn, np.ones(len(u), bool))


def _solid_points(geometry: Geometry, number: int, points: np.ndarray
                  ) -> tuple[np.ndarray, Coordinates]:
    """Unit normal and texture coordinates on a solid."""
    solid = number - SURFACE_COUNT
    shape, taper = geometry.shape[solid], geometry.taper[solid]
    unit = np.stack(geometry.local(solid, (points[0], points[1], points[2])))
    unit_normal = surface_normal(shape, taper, unit)
    normal = np.stack([_dot(column[:, None], unit_normal)
                       for column in geometry.inverse[solid].T.astype(np.float32)])
    normal /= np.sqrt(_dot(normal, normal))
    half = np.sqrt((geometry.axes[solid] ** 2).sum(axis=0)).astype(np.float32)
    metres = unit * half[:, None]
    if shape != BOX:
        level = np.abs(unit_normal[2]) > 0.999 if shape == FRUSTUM else False
        angle = np.arctan2(unit[1], unit[0])
        u = np.where(level, metres[0], angle * half[0])
        v = np.where(level, metres[1], metres[2])
        return normal, (u, v, angle / np.float32(np.pi), unit[2], np.ones(len(u), bool))
    # Upright faces run along x (or y) and up z; the upper face along x and y.
    side, flat = unit_normal[0] != 0, unit_normal[2] != 0
    u, un = np.where(side, metres[1], metres[0]), np.where(side, unit[1], unit[0])
    v, vn = np.where(flat, metres[1], metres[2]), np.where(flat, unit[1], unit[2])
    return normal, (u, v, un, vn, unit_normal[1] > 0)


def _shadows(geometry: Geometry, points: np.ndarray, light: tuple[float, float, float],
             facing: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """(N,) share of the light that arrives at (3, N) points of a grid of odd sides.

    Shadows are sought at every second point of every second row alone, smoothed over 3x3 of
    these and then spread, both within one solid.
    """
    middle = (slice(1, None, 2), slice(1, None, 2))
    chosen = np.arange(solid.size).reshape(solid.shape)[middle]
    height, width = chosen.shape
    # Four samples of the light by turns over 2x2 points, balanced under the weights 1 2 1.
    sample = (2 * (np.arange(height) % 2)[:, None] + np.arange(width) % 2).ravel()
    reached = np.zeros(chosen.size, np.float32)
    faces = np.flatnonzero(facing[chosen.ravel()] > 0)
    reached[faces] = lit(geometry, points.take(chosen.ravel()[faces], axis=1), light, sample[faces])
    coarse = _smooth(reached.reshape(chosen.shape), np.ones(chosen.shape, np.float32),
                     solid[middle])
    fine, known = np.zeros(solid.shape, np.float32), np.zeros(solid.shape, np.float32)
    fine[middle], known[middle] = coarse, 1
    return _smooth(fine, known, solid).ravel()


def _smooth(values: np.ndarray, known: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """Mean over the known 3x3 neighbours on the same solid, weights 1 2 1; 0.7 if none is."""
    height, width = solid.shape
    values, weights = np.pad(values * known, 1), np.pad(known, 1)
    numbers = np.pad(solid, 1, constant_values=-1)
    total, count = np.zeros(solid.shape, np.float32), np.zeros(solid.shape, np.float32)
    for row in range(3):
        for column in range(3):
            window = (slice(row, row + height), slice(column, column + width))
            same = (numbers[window] == solid) * np.float32((2 - abs(row - 1))
                                                           * (2 - abs(column - 1)))
            total += same * values[window]
            count += same * weights[window]
    return np.where(count > 0, total / np.maximum(count, 1), np.float32(0.7))


def _openness(geometry: Geometry, points: np.ndarray, normals: np.ndarray,
              solid: np.ndarray) -> np.ndarray:
    """(N,) how much of the surrounding light arrives: less in corners and near the floor."""
    low = 1 - 0.4 * np.exp(-np.maximum(points[2], 0) / 0.18)
    result = low * (0.82 + 0.18 * normals[2])
    room = np.flatnonzero(solid < SURFACE_COUNT)
    corner = np.ones(len(room), np.float32)
    for axis in range(3):
        place = points[axis, room]
        # Either wall counts, and neither where the surface is that wall itself.
        dark = np.float32(0.32) * (normals[axis, room] == 0)
        for gap in (place * 4, (np.float32(geometry.size[axis]) - place) * 4):
            corner *= 1 - dark / (1 + gap * gap)
    result[room] = corner
    return result
