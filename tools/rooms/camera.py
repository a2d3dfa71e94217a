"""The pinhole camera and where it stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .primitive import Vector

WALL_CLEARANCE = 0.45
"""Least distance of the camera from every wall, metres."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in the frame of the room (x, y along the walls, z up; metres).

    Args:
        position: Where it is.
        yaw: Direction of view in the floor plane, radians; 0 looks along +y, positive to the left.
        pitch: Upward angle of view in radians.
        roll: Rotation about the direction of view in radians.
        field: Angle of view across the longer side of the picture, radians.
    """

    position: Vector
    yaw: float
    pitch: float
    roll: float
    field: float

    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit vectors to the right, up and forward, (3,) each."""
        cos_y, sin_y = np.cos(self.yaw), np.sin(self.yaw)
        cos_p, sin_p = np.cos(self.pitch), np.sin(self.pitch)
        forward = np.array([-sin_y * cos_p, cos_y * cos_p, sin_p])
        right = np.array([cos_y, sin_y, 0.0])
        up = np.cross(right, forward)
        cos_r, sin_r = np.cos(self.roll), np.sin(self.roll)
        return cos_r * right + sin_r * up, cos_r * up - sin_r * right, forward

    def focal(self, size: tuple[int, int]) -> float:
        """Focal length in pixels of a picture of ``size`` (height, width)."""
        return max(size) / 2 / float(np.tan(self.field / 2))

    def project(self, points: np.ndarray, size: tuple[int, int]
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Columns, rows (pixels, centre of the first one at 0) and depths (metres) of points.

        Args:
            points: (..., 3) points in the room.
            size: Height and width of the picture.

        Returns:
            Three arrays of shape (...). Only points of positive depth are in front of the camera.
        """
        right, up, forward = self.axes()
        offset = points - np.asarray(self.position)
        depth = offset @ forward
        scale = self.focal(size) / np.where(np.abs(depth) < 1e-9, 1e-9, depth)
        column = (offset @ right) * scale + size[1] / 2 - 0.5
        row = size[0] / 2 - 0.5 - (offset @ up) * scale
        return column, row, depth


def stand(rng: np.random.Generator, size: Vector) -> Camera:
    """A camera near one side of a room of ``size`` that looks across it."""
    place = [0.0, 0.0]
    axis = int(rng.random() < size[1] / (size[0] + size[1]))
    near = rng.uniform(WALL_CLEARANCE, 0.25 * size[axis])
    place[axis] = near if rng.random() < 0.5 else size[axis] - near
    place[1 - axis] = rng.uniform(WALL_CLEARANCE + 0.05, size[1 - axis] - WALL_CLEARANCE - 0.05)
    aim = [size[axis_] * rng.uniform(0.3, 0.7) for axis_ in (0, 1)]
    yaw = np.arctan2(-(aim[0] - place[0]), aim[1] - place[1]) + rng.normal(0, 0.12)
    height = rng.uniform(1.0, 1.9)
    pitch = rng.uniform(-0.34, -0.02) - 0.18 * (height - 1.45)
    return Camera((float(place[0]), float(place[1]), float(height)), float(yaw), float(pitch),
                  float(rng.normal(0, 0.02)), float(np.radians(rng.uniform(58, 86))))
