"""A plan as arrays: every solid of the room with its map to the unit solid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .kinds import LABELS
from .material import Material
from .plan import Plan
from .primitive import CORNERS, Axes, Vector

SURFACE_COUNT = 6
SURFACE_NAMES = ('floor', 'ceiling', 'wall', 'wall', 'wall', 'wall')
# Axis of the normal and which end of it, for floor, ceiling, walls y=0, x=width, y=length, x=0.
SURFACE_SIDES = ((2, 0), (2, 1), (1, 0), (0, 1), (1, 1), (0, 0))


@dataclass(frozen=True)
class Geometry:
    """P solids and the six surfaces of the room, which is the box [0, size].

    Solid p has the number 6 + p in pictures of solids; 0..5 are floor, ceiling and walls.

    Args:
        size: Width, length, height of the room.
        surfaces: Materials of the six surfaces.
        center: (P, 3) centres of the solids.
        axes: (P, 3, 3) columns are the images of the unit axes, metres.
        inverse: (P, 3, 3) their inverses.
        shape: P times ``BOX``, ``FRUSTUM`` or ``ELLIPSOID``.
        taper: P pairs of radii, for frusta.
        materials: P materials.
        casts: (P,) whether a solid throws a shadow.
        label: (6 + P,) label values of surfaces and solids.
        instance: (6 + P,) instance ids, 0 for surfaces.
    """

    size: Vector
    surfaces: tuple[Material, ...]
    center: np.ndarray
    axes: np.ndarray
    inverse: np.ndarray
    shape: tuple[int, ...]
    taper: tuple[tuple[float, float], ...]
    materials: tuple[Material, ...]
    casts: np.ndarray
    label: np.ndarray
    instance: np.ndarray

    def corners(self) -> np.ndarray:
        """(P, 8, 3) corners of the boxes around the solids."""
        return np.einsum('pij,kj->pki', self.axes, CORNERS) + self.center[:, None]

    def local(self, solid: int, points: Axes, direction: bool = False) -> Axes:
        """x, y, z arrays of points (or directions) in the frame of a solid."""
        rows = self.inverse[solid].astype(np.float32)
        if not direction:
            center = self.center[solid].astype(np.float32)
            points = (points[0] - center[0], points[1] - center[1], points[2] - center[2])
        x, y, z = (row[0] * points[0] + row[1] * points[1] + row[2] * points[2] for row in rows)
        return x, y, z


def build(plan: Plan) -> Geometry:
    """The arrays of a plan."""
    rows = [(placed, part) for placed in plan.placed for part in placed.piece.parts]
    center, axes = np.zeros((len(rows), 3)), np.zeros((len(rows), 3, 3))
    for index, (placed, part) in enumerate(rows):
        cos, sin = np.cos(placed.yaw), np.sin(placed.yaw)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        center[index] = turn @ np.asarray(part.center) + (placed.x, placed.y, placed.z)
        axes[index] = turn @ part.axes()
    return Geometry(
        plan.size, plan.surfaces, center, axes,
        np.linalg.inv(axes) if rows else axes,
        tuple(part.shape for _, part in rows), tuple(part.taper for _, part in rows),
        tuple(part.material for _, part in rows),
        np.array([part.casts for _, part in rows], bool),
        np.array([LABELS[name] for name in SURFACE_NAMES]
                 + [LABELS[placed.piece.kind] for placed, _ in rows], np.uint8),
        np.array([0] * SURFACE_COUNT + [placed.instance for placed, _ in rows], np.uint16))
