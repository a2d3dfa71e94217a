"""What belongs into each type of room, in the order in which it is put there."""

from __future__ import annotations

from typing import Callable

import numpy as np

from . import decor, seating, storage
from .piece import Piece
from .placement import anywhere, as_rug, at_wall, facing, in_corner, on_top
from .plan import Placed, Plan

Builder = Callable[[np.random.Generator], Piece]


def _times(rng: np.random.Generator, low: int, high: int) -> range:
    """A range of low to high (both included) rounds."""
    return range(int(rng.integers(low, high + 1)))


def _walls(plan: Plan, rng: np.random.Generator, chance: float, *builders: Builder
           ) -> list[Placed]:
    """Each of the pieces at a wall, with a chance; returns those that found a place."""
    placed = [at_wall(plan, rng, builder(rng)) for builder in builders if rng.random() < chance]
    return [item for item in placed if item is not None]


def _dress(plan: Plan, rng: np.random.Generator, base: Placed | None, chance: float,
           *builders: Builder) -> None:
    """Each of the pieces on top of another one, with a chance."""
    for builder in builders:
        if base is not None and rng.random() < chance:
            on_top(plan, rng, builder(rng), base)


def _seats(plan: Plan, rng: np.random.Generator, table: Placed | None, builder: Builder,
           chance: float) -> None:
    """Seats of one design around a table."""
    if table is None:
        return
    piece = builder(rng)
    for side in range(4):
        rounds = 2 if table.piece.half[side % 2] > 0.6 else 1
        for _ in range(rounds):
            if rng.random() < chance:
                facing(plan, rng, piece, table, side)


def _soften(plan: Plan, rng: np.random.Generator, seat: Placed | None) -> None:
    """Cushions on a sofa or an armchair."""
    if seat is not None:
        for _ in _times(rng, 1, 3) if seat.piece.kind == 'sofa' else _times(rng, 0, 1):
            on_top(plan, rng, seating.cushion(rng), seat, yaw=0.0)


def bedroom(plan: Plan, rng: np.random.Generator) -> None:
    """Bed with pillows, nightstands with lamps, wardrobe, chair."""
    bed = at_wall(plan, rng, seating.bed(rng), tries=50)
    if bed is not None:
        for _ in _times(rng, 1, 4):
            on_top(plan, rng, seating.pillow(rng), bed)
        _dress(plan, rng, bed, 0.3, seating.cushion)
        stand = storage.nightstand(rng)
        for sign in (-1, 1):
            away = sign * (bed.piece.half[0] + stand.half[0] + rng.uniform(0.05, 0.15))
            x, y = bed.point(away, stand.half[1] - bed.piece.half[1])
            side = plan.try_add(stand, x, y, 0.0, bed.yaw, wall_gap=0.03)
            _dress(plan, rng, side, 0.65, decor.table_lamp)
    _walls(plan, rng, 0.75, storage.wardrobe)
    for low in _walls(plan, rng, 0.5, storage.sideboard):
        _dress(plan, rng, low, 0.35, decor.screen, decor.small_plant, storage.carton)
    for builder in (seating.chair, seating.armchair, seating.stool):
        if rng.random() < 0.4:
            anywhere(plan, rng, builder(rng))
    if rng.random() < 0.6:
        as_rug(plan, rng, decor.rug(rng), [bed] if bed else [])


def living_room(plan: Plan, rng: np.random.Generator) -> None:
    """Sofa with cushions, low table, armchairs, screen on a sideboard, shelf, floor lamp."""
    sofa = at_wall(plan, rng, seating.sofa(rng), tries=30)
    if sofa is None or rng.random() < 0.2:
        sofa = anywhere(plan, rng, seating.sofa(rng)) or sofa
    _soften(plan, rng, sofa)
    low = None
    if sofa is not None and rng.random() < 0.75:
        low = facing(plan, rng, storage.coffee_table(rng), sofa, 0)
    _dress(plan, rng, low, 0.3, decor.small_plant, storage.carton)
    for board in _walls(plan, rng, 0.75, storage.sideboard):
        _dress(plan, rng, board, 0.7, decor.screen)
        _dress(plan, rng, board, 0.3, decor.table_lamp, decor.small_plant)
    for _ in _times(rng, 0, 2):
        _soften(plan, rng, anywhere(plan, rng, seating.armchair(rng)))
    _walls(plan, rng, 0.55, storage.shelf)
    if rng.random() < 0.6:
        in_corner(plan, rng, decor.floor_lamp(rng))
    if rng.random() < 0.3:
        anywhere(plan, rng, seating.stool(rng))
    if rng.random() < 0.7:
        as_rug(plan, rng, decor.rug(rng), [item for item in (sofa, low) if item])


def dining_room(plan: Plan, rng: np.random.Generator) -> None:
    """Table with chairs or stools around it, sideboard, shelf."""
    table = anywhere(plan, rng, storage.table(rng))
    _seats(plan, rng, table, seating.chair if rng.random() < 0.8 else seating.stool, 0.85)
    _dress(plan, rng, table, 0.35, decor.small_plant, decor.table_lamp, storage.carton)
    for board in _walls(plan, rng, 0.6, storage.sideboard, storage.wardrobe):
        if board.piece.height < 1.2:
            _dress(plan, rng, board, 0.35, decor.small_plant, decor.table_lamp, storage.carton)
    _walls(plan, rng, 0.4, storage.shelf)
    if rng.random() < 0.5:
        as_rug(plan, rng, decor.rug(rng), [table] if table else [])


def office(plan: Plan, rng: np.random.Generator) -> None:
    """Desks with screens and chairs, shelves, cabinets, boxes."""
    for _ in _times(rng, 1, 3):
        desk = at_wall(plan, rng, storage.desk(rng))
        _dress(plan, rng, desk, 0.85, decor.screen)
        _dress(plan, rng, desk, 0.3, decor.table_lamp, storage.carton, decor.small_plant)
        if desk is not None and rng.random() < 0.85:
            facing(plan, rng, seating.chair(rng), desk, 0)
    _walls(plan, rng, 0.6, storage.shelf, storage.shelf, storage.wardrobe, storage.sideboard)
    for _ in _times(rng, 0, 2):
        anywhere(plan, rng, storage.carton(rng))


def study(plan: Plan, rng: np.random.Generator) -> None:
    """Desk with chair, many books, an armchair with a floor lamp."""
    desk = at_wall(plan, rng, storage.desk(rng))
    _dress(plan, rng, desk, 0.5, decor.screen, decor.table_lamp)
    if desk is not None:
        facing(plan, rng, seating.chair(rng), desk, 0)
    _walls(plan, rng, 0.75, storage.shelf, storage.shelf, storage.sideboard)
    chair = anywhere(plan, rng, seating.armchair(rng))
    _soften(plan, rng, chair)
    if rng.random() < 0.6:
        in_corner(plan, rng, decor.floor_lamp(rng))
    if rng.random() < 0.5:
        anywhere(plan, rng, seating.stool(rng))
    if rng.random() < 0.6:
        as_rug(plan, rng, decor.rug(rng), [item for item in (chair, desk) if item])


def home_storage(plan: Plan, rng: np.random.Generator) -> None:
    """Boxes on the floor and on each other, shelves, cabinets, a spare chair or table."""
    _walls(plan, rng, 0.75, storage.shelf, storage.wardrobe, storage.shelf, storage.sideboard)
    for _ in _times(rng, 3, 7):
        carton = storage.carton(rng)
        base = (at_wall if rng.random() < 0.4 else anywhere)(plan, rng, carton)
        for _ in _times(rng, 0, 2):
            smaller = storage.carton(rng)
            base = on_top(plan, rng, smaller, base) if base is not None else None
    for builder in (storage.table, seating.chair, seating.stool, seating.sofa):
        if rng.random() < 0.35:
            _dress(plan, rng, anywhere(plan, rng, builder(rng)), 0.5, storage.carton)
    if rng.random() < 0.25:
        as_rug(plan, rng, decor.rug(rng), [])


RECIPES: dict[str, Callable[[Plan, np.random.Generator], None]] = {
    'bedroom': bedroom, 'living_room': living_room, 'dining_room': dining_room,
    'office': office, 'study': study, 'home_storage': home_storage,
}
"""One recipe for each of ``SCENES``; each changes the plan it is given."""
