"""One picture of one room: colour, labels, depth and instances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import Camera
from .furnish import draw_scene, furnish
from .geometry import build
from .plan import Plan
from .shading import draw_lighting, shade
from .visibility import View, trace

SPLITS = ('train', 'val')
SMALLEST = 32
DEPTH_LIMIT = 65535


@dataclass(frozen=True)
class RoomImage:
    """What was rendered.

    Args:
        rgb: (H, W, 3) uint8.
        label: (H, W) uint8, values of ``LABELS``.
        depth_mm: (H, W) uint16, depth along the optical axis in millimetres.
        instance: (H, W) uint16, 0 on walls, floor and ceiling, else unique per object.
        scene: The type of room, one of ``SCENES``.
        camera: Where it was seen from.
        objects: Instance id -> kind, of the objects that can be seen.
    """

    rgb: np.ndarray
    label: np.ndarray
    depth_mm: np.ndarray
    instance: np.ndarray
    scene: str
    camera: Camera
    objects: dict[int, str]


def render_room(seed: int, split: str, index: int, size: tuple[int, int] = (96, 96)) -> RoomImage:
    """Renders picture ``index`` of a split: a pure function of its arguments.

    The room depends on (seed, split, index) alone, so other sizes show the same room; splits and
    indices draw from independent streams (``numpy.random.SeedSequence``), so no room is in both.

    Args:
        seed: Seed of the data set, >= 0.
        split: 'train' or 'val'.
        index: Number of the picture, >= 0.
        size: Height and width in pixels, both >= 32.

    Raises:
        ValueError: A value is out of range.
    """
    height, width = size
    if min(height, width) < SMALLEST:
        raise ValueError(f'size {height}x{width} is too small: both sides must be at least '
                         f'{SMALLEST} pixels')
    room, sensor = _generators(seed, split, index)
    return render_plan(furnish(room), size, room, sensor)


def scene_of(seed: int, split: str, index: int) -> str:
    """The type of room that ``render_room`` gives for these arguments, without rendering."""
    return draw_scene(_generators(seed, split, index)[0])


def plan_room(seed: int, split: str, index: int) -> Plan:
    """The furnished room of ``render_room``, without rendering."""
    return furnish(_generators(seed, split, index)[0])


def _generators(seed: int, split: str, index: int
                ) -> tuple[np.random.Generator, np.random.Generator]:
    """Independent generators of the room and of the sensor's noise."""
    if split not in SPLITS:
        raise ValueError(f'split must be one of {SPLITS}, not {split!r}')
    if seed < 0 or index < 0:
        raise ValueError(f'seed and index must not be negative: seed {seed}, index {index}')
    source = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index))
    room, sensor = source.spawn(2)
    return np.random.Generator(np.random.PCG64(room)), np.random.Generator(np.random.PCG64(sensor))


def render_plan(plan: Plan, size: tuple[int, int], room: np.random.Generator,
                sensor: np.random.Generator) -> RoomImage:
    """Renders a room that is already furnished.

    Labels, depth and instances are those of the ray through the middle of each pixel. Colours are
    a tent-weighted mean of the 3x3 rays at half-pixel steps around it, which smooths edges.

    Args:
        plan: The room.
        size: Height and width in pixels.
        room: Draws the lighting (the same for every size).
        sensor: Draws exposure and noise.
    """
    height, width = size
    view = View(plan.camera, size, np.arange(2 * width + 1) / 2 - 0.5,
                np.arange(2 * height + 1) / 2 - 0.5)
    geometry = build(plan)
    depth, solid = trace(geometry, view)
    fine = shade(geometry, view, depth, solid, plan.light, draw_lighting(room))
    rgb = develop(_tent(fine), sensor)
    middle = (slice(1, None, 2), slice(1, None, 2))
    number = solid[middle]
    millimetres = np.rint(depth[middle] * 1000).clip(1, DEPTH_LIMIT).astype(np.uint16)
    instance = geometry.instance[number]
    kinds = {placed.instance: placed.piece.kind for placed in plan.placed}
    objects = {int(key): kinds[int(key)] for key in np.unique(instance) if key}
    return RoomImage(rgb, geometry.label[number], millimetres, instance, plan.scene, plan.camera,
                     objects)


def _tent(fine: np.ndarray) -> np.ndarray:
    """Halves both sides with the weights 1 2 1: (3, 2H + 1, 2W + 1) -> (3, H, W)."""
    rows = 0.25 * (fine[:, :-2:2] + fine[:, 2::2]) + 0.5 * fine[:, 1::2]
    return 0.25 * (rows[..., :-2:2] + rows[..., 2::2]) + 0.5 * rows[..., 1::2]


def develop(linear: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposure, colour balance, display gamma and sensor noise.

    Args:
        linear: (3, H, W) linear RGB.
        rng: Draws the exposure, the balance and the noise.

    Returns:
        (H, W, 3) uint8.
    """
    exposure = rng.uniform(0.2, 0.36) / max(float(np.median(linear)), 1e-3)
    balance = 1 + rng.uniform(-0.06, 0.06, 3)
    noise = rng.uniform(0.004, 0.02)
    bright = linear * (exposure * balance).astype(np.float32)[:, None, None]
    # A soft shoulder keeps bright walls and lamps from clipping at once.
    bright = bright * (1 + bright / 6) / (1 + bright / 1.6 + bright * bright / 6)
    display = np.clip(bright * 1.35, 0, 1) ** np.float32(1 / 2.2)
    display += np.float32(noise) * rng.standard_normal(linear.shape, np.float32)
    pixels = (np.clip(display, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
