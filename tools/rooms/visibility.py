"""What each ray of the camera meets first, and what the light reaches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .camera import Camera
from .geometry import SURFACE_COUNT, SURFACE_SIDES, Geometry
from .primitive import Axes, Vector, intersect

NEAR = 0.02
LIGHT_RADIUS = 0.14


@dataclass(frozen=True)
class View:
    """The rays through a grid of picture points: direction = forward + x * right + y * up.

    Since forward has length 1, the ray parameter is the depth along the optical axis.

    Args:
        camera: Where the rays start.
        size: Height and width of the picture in pixels.
        columns: (w,) columns of the grid in pixels, 0 = centre of the first pixel.
        rows: (h,) rows of the grid in pixels.
    """

    camera: Camera
    size: tuple[int, int]
    columns: np.ndarray
    rows: np.ndarray

    @cached_property
    def basis(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Right, up and forward of the camera, (3,) each."""
        return self.camera.axes()

    @cached_property
    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """X (w,) and y (h,) of the rays, float32."""
        focal = self.camera.focal(self.size)
        x = (self.columns + 0.5 - self.size[1] / 2) / focal
        y = (self.size[0] / 2 - 0.5 - self.rows) / focal
        return x.astype(np.float32), y.astype(np.float32)

    def directions(self) -> Axes:
        """x, y, z of the rays' directions, (h, w) each."""
        return self.mapped(np.eye(3), slice(None), slice(None))

    def mapped(self, matrix: np.ndarray, rows: slice, columns: slice) -> Axes:
        """Directions of a part of the grid after a linear map, (h, w) each."""
        right, up, forward = ((matrix @ axis).astype(np.float32) for axis in self.basis)
        x, y = self.slopes[0][columns], self.slopes[1][rows]
        first, second, third = ((forward[k] + x * right[k])[None, :] + (y * up[k])[:, None]
                                for k in range(3))
        return first, second, third


def trace(geometry: Geometry, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Depth (metres, along the optical axis) and number of the nearest solid for a grid of rays.

    Returns:
        (h, w) float32 and (h, w) int32; every ray meets at least a surface of the room.
    """
    depth, solid = _trace_room(geometry.size, view)
    start = np.asarray(view.camera.position)
    for index, (rows, columns) in _windows(geometry, view):
        inverse = geometry.inverse[index]
        origin = tuple(np.float32(value) for value in inverse @ (start - geometry.center[index]))
        step = view.mapped(inverse, rows, columns)
        found = intersect(geometry.shape[index], geometry.taper[index], origin, step)
        part = depth[rows, columns]
        nearer = found < part
        part[nearer] = found[nearer]
        solid[rows, columns][nearer] = SURFACE_COUNT + index
    return depth, solid


def _trace_room(size: Vector, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Where rays from inside meet the room's own box."""
    numbers = {side: number for number, side in enumerate(SURFACE_SIDES)}
    depth, solid = None, None
    for axis, slope in enumerate(view.directions()):
        slope = np.where(np.abs(slope) < 1e-9, np.float32(1e-9), slope)
        ends = np.where(slope > 0, np.float32(size[axis]), np.float32(0))
        reach = (ends - np.float32(view.camera.position[axis])) / slope
        number = np.where(slope > 0, numbers[axis, 1], numbers[axis, 0]).astype(np.int32)
        if depth is None:
            depth, solid = reach, number
        else:
            solid = np.where(reach < depth, number, solid)
            depth = np.minimum(reach, depth)
    return depth, solid


def _windows(geometry: Geometry, view: View) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """The solids that may be seen, each with the part of the grid that its corners span."""
    column, row, depth = view.camera.project(geometry.corners(), view.size)
    crossing = depth.min(axis=1) < NEAR
    edges = []
    for values, grid in ((row, view.rows), (column, view.columns)):
        low = np.where(crossing, -np.inf, values.min(axis=1))
        high = np.where(crossing, np.inf, values.max(axis=1))
        edges.append((np.searchsorted(grid, low), np.searchsorted(grid, high, side='right')))
    (top, bottom), (left, right) = edges
    seen = (depth.max(axis=1) > NEAR) & (bottom > top) & (right > left)
    for index in np.flatnonzero(seen):
        yield int(index), (slice(top[index], bottom[index]), slice(left[index], right[index]))


def lit(geometry: Geometry, points: np.ndarray, light: Vector, sample: np.ndarray) -> np.ndarray:
    """Whether the light reaches points: False in shadow.

    The light is a disc of which every point sees one of four places, by its ``sample``; averaged
    over neighbours this gives soft edges.

    Args:
        geometry: The room.
        points: (3, N) float32, slightly off their surfaces.
        light: Centre of the light.
        sample: (N,) integers from 0 to 3.

    Returns:
        (N,) bool.
    """
    angle = 2 * np.pi * (np.arange(4) + 0.5) / 4
    places = np.array(light) + LIGHT_RADIUS * np.stack(
        [np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    start = tuple(points)
    way = tuple(places[sample, axis].astype(np.float32) - start[axis] for axis in range(3))
    reached = np.ones(points.shape[1], bool)
    for solid, near in _shadow_candidates(geometry, start, light):
        near = near[reached[near]]
        if not len(near):
            continue
        origin = geometry.local(solid, tuple(values.take(near) for values in start))
        step = geometry.local(solid, tuple(values.take(near) for values in way), direction=True)
        hit = intersect(geometry.shape[solid], geometry.taper[solid], origin, step)
        reached[near[hit < 1]] = False
    return reached


def _shadow_candidates(geometry: Geometry, points: Axes, light: Vector
                       ) -> Iterator[tuple[int, np.ndarray]]:
    """Solids that throw shadows, each with the points that may lie behind it.

    A solid shadows only points within the cone from the light around its bounding ball (widened
    by the radius of the light) and not nearer to the light than the ball.
    """
    offset = [points[axis] - np.float32(light[axis]) for axis in range(3)]
    distance = np.sqrt(offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2)
    offset = [values / distance for values in offset]
    to_center = geometry.center - np.asarray(light)
    away = np.linalg.norm(to_center, axis=1)
    radius = np.linalg.norm(geometry.corners() - geometry.center[:, None], axis=2).max(axis=1)
    radius = radius + LIGHT_RADIUS
    for solid in np.flatnonzero(geometry.casts):
        if away[solid] <= radius[solid]:
            yield int(solid), np.arange(len(distance))
            continue
        ahead = (to_center[solid] / away[solid]).astype(np.float32)
        bound = np.float32(np.sqrt(1 - (radius[solid] / away[solid]) ** 2))
        cosine = offset[0] * ahead[0] + offset[1] * ahead[1] + offset[2] * ahead[2]
        behind = (cosine > bound) & (distance > np.float32(away[solid] - radius[solid]))
        yield int(solid), np.flatnonzero(behind)
