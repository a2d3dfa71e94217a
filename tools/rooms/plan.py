"""A room while it is being furnished: its size, its camera, and what stands where."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from .camera import Camera
from .footprint import Footprint
from .material import Material
from .piece import Piece
from .primitive import Vector

CAMERA_GAP = 0.6
"""Least distance on the floor from the camera to any object but rugs, metres."""

TALL_GAP = 1.25
"""The same for objects in the field of view that rise near the height of the camera."""

WALL_GAP = 0.07
"""Gap between furniture and the wall behind it: what hangs flat on the wall fits in, metres."""


@dataclass(frozen=True)
class Placed:
    """A piece in the room: its origin (x, y, z), its yaw, its instance id (1, 2, ...).

    ``parent`` is the instance it stands on or belongs to, 0 for the room itself.
    """

    piece: Piece
    x: float
    y: float
    z: float
    yaw: float
    instance: int
    parent: int = 0

    @cached_property
    def footprint(self) -> Footprint:
        """Its rectangle on the floor and its heights."""
        return Footprint(self.x, self.y, self.piece.half[0], self.piece.half[1], self.yaw,
                         self.z, self.z + self.piece.height)

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Place in the room of (x, y) in the frame of the piece."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return self.x + cos * x - sin * y, self.y + sin * x + cos * y


@dataclass
class Plan:
    """A room and its furniture.

    Args:
        scene: One of ``SCENES``.
        size: Width along x, length along y, height; metres.
        camera: Where it is seen from.
        surfaces: Materials of floor, ceiling and the walls at y = 0, x = width, y = length, x = 0.
        light: Place of the light that throws shadows.
        placed: The objects, in the order of their instance ids.
        reserved: Free space that must stay free, such as that before a door.
    """

    scene: str
    size: Vector
    camera: Camera
    surfaces: tuple[Material, ...]
    light: Vector = (0.0, 0.0, 0.0)
    placed: list[Placed] = field(default_factory=list)
    reserved: list[Footprint] = field(default_factory=list)

    def in_view(self, x: float, y: float) -> bool:
        """Whether a place on the floor plan lies within the angle of view, with some margin."""
        place = self.camera.position
        angle = math.atan2(-(x - place[0]), y - place[1]) - self.camera.yaw
        angle = (angle + math.pi) % (2 * math.pi) - math.pi
        return abs(angle) < self.camera.field / 2 - 0.05

    def free(self, space: Footprint, gap: float = 0.03, parent: int = 0,
             wall_gap: float = 0.0) -> bool:
        """Whether an object may take this space: inside, clear of others and of the camera.

        The object it stands on (``parent``) and rugs do not count.
        """
        if not space.inside(self.size[0], self.size[1], wall_gap):
            return False
        if space.low < -1e-6 or space.high > self.size[2] + 1e-6 or not self._clear(space):
            return False
        if any(space.meets(other) for other in self.reserved):
            return False
        return not any(space.meets(other.footprint, gap) for other in self.placed
                       if other.piece.kind != 'rug' and other.instance != parent)

    def _clear(self, space: Footprint) -> bool:
        """Whether it leaves the camera room: nothing close by, nothing tall right before it."""
        x, y, z = self.camera.position
        distance = space.distance(x, y)
        if distance < CAMERA_GAP:
            return False
        tall = space.high > z - 0.45 and space.low < z + 0.3
        if not tall or distance >= TALL_GAP:
            return True
        places = [(space.x, space.y), *space.corners]
        return not any(self.in_view(u, v) for u, v in places)

    def add(self, piece: Piece, x: float, y: float, z: float, yaw: float,
            parent: int = 0) -> Placed:
        """Puts a piece into the room (unchecked) and gives it the next instance id."""
        placed = Placed(piece, x, y, z, yaw, len(self.placed) + 1, parent)
        self.placed.append(placed)
        return placed

    def try_add(self, piece: Piece, x: float, y: float, z: float, yaw: float, parent: int = 0,
                gap: float = 0.03, wall_gap: float = 0.0) -> Placed | None:
        """Puts a piece into the room if its space is free; None if not."""
        space = Footprint(x, y, piece.half[0], piece.half[1], yaw, z, z + piece.height)
        if not self.free(space, gap, parent, wall_gap):
            return None
        return self.add(piece, x, y, z, yaw, parent)
