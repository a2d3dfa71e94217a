"""Draws a whole room: size, surfaces, camera, openings, furniture, what hangs, and the light."""

from __future__ import annotations

import numpy as np

from . import camera, decor, material
from .footprint import Footprint
from .kinds import SCENES
from .material import pick
from .placement import at_wall, in_corner, under_ceiling
from .plan import Placed, Plan
from .recipes import RECIPES

SCENE_WEIGHTS = (0.25, 0.21, 0.16, 0.13, 0.13, 0.12)
"""How often each of ``SCENES`` is drawn: beds and sofas are in the first two alone."""


def furnish(rng: np.random.Generator) -> Plan:
    """A furnished room, drawn from ``rng``; the type of room is the first thing drawn."""
    plan = _empty(rng)
    if rng.random() < 0.6:
        _door(plan, rng)
    windows, day = [], bool(rng.random() < 0.82)
    for _ in range(int(rng.choice([0, 1, 2], p=[0.2, 0.5, 0.3]))):
        windows += _window(plan, rng, day)
    RECIPES[plan.scene](plan, rng)
    for _ in range(int(rng.choice([0, 1, 2], p=[0.2, 0.5, 0.3]))):
        in_corner(plan, rng, decor.plant(rng))
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.2, 0.35, 0.3, 0.15]))):
        piece = decor.painting(rng)
        at_wall(plan, rng, piece, float(rng.uniform(1.55, 1.75)) - piece.height / 2)
    if rng.random() < 0.15:
        at_wall(plan, rng, decor.wall_screen(rng), float(rng.uniform(0.95, 1.25)))
    _light(plan, rng, windows)
    return plan


def draw_scene(rng: np.random.Generator) -> str:
    """The type of room: the first draw of ``furnish``."""
    return pick(rng, SCENES, SCENE_WEIGHTS)


def _empty(rng: np.random.Generator) -> Plan:
    scene = draw_scene(rng)
    size = (float(rng.uniform(3.0, 5.2)), float(rng.uniform(3.0, 5.2)),
            float(rng.uniform(2.4, 3.0)))
    wall = material.wall_material(rng)
    walls = [wall] * 4
    if rng.random() < 0.2:
        walls[int(rng.integers(4))] = material.wall_material(rng)
    surfaces = (material.floor_material(rng), material.ceiling_material(rng), *walls)
    return Plan(scene, size, camera.stand(rng, size), surfaces)


def _door(plan: Plan, rng: np.random.Generator) -> None:
    """A door, with the floor before it kept free."""
    placed = at_wall(plan, rng, decor.door(rng), 0.0)
    if placed is not None:
        x, y = placed.point(0.0, placed.piece.half[1] + 0.3)
        plan.reserved.append(Footprint(x, y, placed.piece.half[0], 0.3, placed.yaw, 0.0, 2.0))


def _window(plan: Plan, rng: np.random.Generator, day: bool) -> list[Placed]:
    """A window, often between curtains."""
    piece = decor.windowpane(rng, day)
    room = plan.size[2] - piece.height
    placed = at_wall(plan, rng, piece, float(min(rng.uniform(0.75, 1.05), room - 0.15)))
    if placed is None:
        return []
    if rng.random() < 0.65:
        low = 0.04 if rng.random() < 0.6 else placed.z - 0.15
        wide = float(rng.uniform(0.3, 0.55))
        half = decor.curtain(rng, wide, placed.z + piece.height + 0.12 - low)
        for sign in (-1, 1):
            shift = sign * (piece.half[0] + wide * rng.uniform(0.0, 0.3))
            x, y = placed.point(shift, 0.095 - placed.piece.half[1])
            plan.try_add(half, x, y, low, placed.yaw, gap=0.0)
    return [placed]


def _light(plan: Plan, rng: np.random.Generator, windows: list[Placed]) -> None:
    """The light that throws shadows: a lamp on the ceiling, or a window by day."""
    width, length, height = plan.size
    lamp = None
    if rng.random() < 0.75:
        lamp = under_ceiling(plan, rng, (decor.pendant if rng.random() < 0.5
                                         else decor.ceiling_light)(rng))
    bright = [item for item in windows if item.piece.parts[0].material.emission > 0.5]
    if bright and rng.random() < 0.45:
        window = bright[int(rng.integers(len(bright)))]
        x, y = window.point(0.0, 0.35)
        plan.light = (x, y, min(window.z + 0.75 * window.piece.height, height - 0.2))
    elif lamp is not None:
        plan.light = (lamp.x, lamp.y, lamp.z - 0.06)
    else:
        plan.light = (float(rng.uniform(0.3, 0.7)) * width, float(rng.uniform(0.3, 0.7)) * length,
                      height - 0.15)
