"""The solids that everything is built of: boxes, cone frusta (cylinders too) and ellipsoids.

Each solid is a unit solid inside the cube [-1, 1]^3 under an affine map, so one ray test per
shape is enough: unit cube; x^2 + y^2 <= r(z)^2 with r linear in z; unit ball.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .material import Material

BOX, FRUSTUM, ELLIPSOID = 0, 1, 2
Vector = tuple[float, float, float]
Axes = tuple[np.ndarray, np.ndarray, np.ndarray]
CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


@dataclass(frozen=True)
class Part:
    """One solid in the frame of its piece (x right, y to the front, z up; metres).

    Args:
        shape: ``BOX``, ``FRUSTUM`` or ``ELLIPSOID``.
        center: Its centre.
        half: Half its extents along its own axes.
        material: How it looks.
        tilt: Rotation about its own x axis in radians; positive leans the top backwards.
        spin: Rotation about z in radians, after the tilt.
        taper: Radii at the bottom and at the top of a frustum, as fractions of ``half``.
        casts: Whether it throws a shadow (what glows does not).
    """

    shape: int
    center: Vector
    half: Vector
    material: Material
    tilt: float = 0.0
    spin: float = 0.0
    taper: tuple[float, float] = (1.0, 1.0)
    casts: bool = True

    def axes(self) -> np.ndarray:
        """Columns: the images of the unit axes, (3, 3), metres."""
        cos_t, sin_t = np.cos(self.tilt), np.sin(self.tilt)
        cos_s, sin_s = np.cos(self.spin), np.sin(self.spin)
        tilt = np.array([[1, 0, 0], [0, cos_t, -sin_t], [0, sin_t, cos_t]])
        spin = np.array([[cos_s, -sin_s, 0], [sin_s, cos_s, 0], [0, 0, 1]])
        return spin @ tilt * np.asarray(self.half)

    def bounds(self) -> tuple[Vector, Vector]:
        """Lowest and highest x, y, z of the box around it, in the frame of the piece."""
        reach = self.half
        if self.tilt or self.spin:
            reach = tuple(np.abs(self.axes()).sum(axis=1).tolist())
        return (tuple(middle - half for middle, half in zip(self.center, reach)),
                tuple(middle + half for middle, half in zip(self.center, reach)))


def box(x: tuple[float, float], y: tuple[float, float], z: tuple[float, float],
        material: Material, tilt: float = 0.0, spin: float = 0.0, casts: bool = True) -> Part:
    """A box from its ranges along x, y and z."""
    center = ((x[0] + x[1]) / 2, (y[0] + y[1]) / 2, (z[0] + z[1]) / 2)
    half = ((x[1] - x[0]) / 2, (y[1] - y[0]) / 2, (z[1] - z[0]) / 2)
    return Part(BOX, center, half, material, tilt, spin, casts=casts)


def frustum(x: float, y: float, z: tuple[float, float], radii: tuple[float, float],
            material: Material, casts: bool = True) -> Part:
    """An upright cone frustum; ``radii`` at the bottom and at the top."""
    radius = max(radii)
    return Part(FRUSTUM, (x, y, (z[0] + z[1]) / 2), (radius, radius, (z[1] - z[0]) / 2),
                material, taper=(radii[0] / radius, radii[1] / radius), casts=casts)


def ellipsoid(center: Vector, half: Vector, material: Material, tilt: float = 0.0,
              spin: float = 0.0, casts: bool = True) -> Part:
    """An ellipsoid."""
    return Part(ELLIPSOID, center, half, material, tilt, spin, casts=casts)


def intersect(shape: int, taper: tuple[float, float], origin: Axes, step: Axes) -> np.ndarray:
    """Where rays enter a unit solid from outside.

    Args:
        shape: ``BOX``, ``FRUSTUM`` or ``ELLIPSOID``.
        taper: Radii of a frustum at z = -1 and z = 1.
        origin: x, y, z of the rays' starts in the frame of the solid (any broadcastable shape).
        step: x, y, z of their directions.

    Returns:
        The smallest parameter t > 0 with origin + t * step on the solid, inf where there is none.
    """
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        if shape == BOX:
            return _enter_cube(origin, step)
        if shape == ELLIPSOID:
            return _enter_ball(origin, step)
        return _enter_frustum(taper, origin, step)


def _enter_cube(origin: Axes, step: Axes) -> np.ndarray:
    near, far = None, None
    for start, slope in zip(origin, step):
        # Parallel rays would give 0 * inf; a slope of 1e-9 moves no hit by a visible amount.
        inverse = 1.0 / (slope + np.float32(1e-9))
        middle, reach = -start * inverse, np.abs(inverse)
        near = middle - reach if near is None else np.maximum(near, middle - reach)
        far = middle + reach if far is None else np.minimum(far, middle + reach)
    return np.where((near <= far) & (near > 0), near, np.float32(np.inf))


def _enter_ball(origin: Axes, step: Axes) -> np.ndarray:
    square = step[0] * step[0] + step[1] * step[1] + step[2] * step[2]
    half_b = origin[0] * step[0] + origin[1] * step[1] + origin[2] * step[2]
    rest = origin[0] * origin[0] + origin[1] * origin[1] + origin[2] * origin[2] - 1.0
    root = half_b * half_b - square * rest
    entry = (-half_b - np.sqrt(np.maximum(root, 0))) / square
    return np.where((root > 0) & (entry > 0), entry, np.float32(np.inf))


def _enter_frustum(taper: tuple[float, float], origin: Axes, step: Axes) -> np.ndarray:
    mean, slope = (taper[0] + taper[1]) / 2, (taper[1] - taper[0]) / 2
    radius = mean + slope * origin[2]
    growth = slope * step[2]
    square = step[0] * step[0] + step[1] * step[1] - growth * growth
    half_b = origin[0] * step[0] + origin[1] * step[1] - growth * radius
    rest = origin[0] * origin[0] + origin[1] * origin[1] - radius * radius
    root = half_b * half_b - square * rest
    spread = np.sqrt(np.maximum(root, 0))
    best = np.float32(np.inf)
    for sign in (-1.0, 1.0):
        entry = (-half_b + sign * spread) / square
        height = origin[2] + entry * step[2]
        valid = (root > 0) & (entry > 0) & (np.abs(height) <= 1) & (mean + slope * height >= 0)
        best = np.minimum(best, np.where(valid, entry, np.float32(np.inf)))
    for level, cap in zip((-1.0, 1.0), taper):
        entry = (level - origin[2]) / step[2]
        across, along = origin[0] + entry * step[0], origin[1] + entry * step[1]
        valid = (entry > 0) & (across * across + along * along <= cap * cap)
        best = np.minimum(best, np.where(valid, entry, np.float32(np.inf)))
    return best


def surface_normal(shape: int, taper: tuple[float, float], points: np.ndarray) -> np.ndarray:
    """Outward normals of a unit solid, not scaled to length 1.

    Args:
        shape: ``BOX``, ``FRUSTUM`` or ``ELLIPSOID``.
        taper: Radii of a frustum at z = -1 and z = 1.
        points: (3, N) points on its surface.

    Returns:
        (3, N) normals in the frame of the solid.
    """
    if shape == ELLIPSOID:
        return points
    if shape == BOX:
        size = np.abs(points)
        return np.where(size == size.max(axis=0), np.sign(points), np.float32(0))
    mean, slope = (taper[0] + taper[1]) / 2, (taper[1] - taper[0]) / 2
    radius = mean + slope * points[2]
    # A point lies on a cap when it is nearer to the cap's plane than to the mantle.
    mantle = np.sqrt(points[0] * points[0] + points[1] * points[1])
    cap = 1 - np.abs(points[2]) < radius - mantle
    upward = np.where(cap, np.sign(points[2]), -slope * radius)
    outward = np.where(cap, np.float32(0), points[:2])
    return np.concatenate([outward, upward[None]]).astype(np.float32)
