"""Where furniture and camera may be, checked on the solids and on sampled points."""

from __future__ import annotations

import numpy as np
import pytest
from rooms import plan_room
from rooms.footprint import Footprint
from rooms.geometry import SURFACE_COUNT, build

COUNT = 120


@pytest.fixture(scope='module')
def plans():
    return [plan_room(9, 'train', index) for index in range(COUNT)]


def contains(item, points):
    """Whether (N, 2) points of the floor plan lie within the footprint of a placed piece."""
    cos, sin = np.cos(item.yaw), np.sin(item.yaw)
    local = (points - (item.x, item.y)) @ np.array([[cos, -sin], [sin, cos]])
    return (np.abs(local) < np.array(item.piece.half) - 1e-6).all(axis=1)


def samples(item, count=15):
    """Points spread over the footprint of a placed piece, its corners included."""
    u, v = np.meshgrid(*(np.linspace(-half, half, count) for half in item.piece.half))
    cos, sin = np.cos(item.yaw), np.sin(item.yaw)
    local = np.stack([u.ravel(), v.ravel()], axis=1)
    return local @ np.array([[cos, sin], [-sin, cos]]) + (item.x, item.y)


def test_every_solid_lies_within_the_room(plans):
    for plan in plans:
        corners = build(plan).corners()
        assert corners.min() > -1e-6
        assert (corners <= np.array(plan.size) + 1e-6).all()


def test_every_solid_lies_within_the_footprint_of_its_object(plans):
    for plan in plans:
        geometry = build(plan)
        for item in plan.placed:
            solids = np.flatnonzero(geometry.instance[SURFACE_COUNT:] == item.instance)
            corners = geometry.corners()[solids].reshape(-1, 3)
            cos, sin = np.cos(item.yaw), np.sin(item.yaw)
            local = (corners[:, :2] - (item.x, item.y)) @ np.array([[cos, -sin], [sin, cos]])
            assert (np.abs(local) <= np.array(item.piece.half) + 1e-6).all()
            assert corners[:, 2].min() == pytest.approx(item.z, abs=1e-6)
            assert corners[:, 2].max() == pytest.approx(item.z + item.piece.height, abs=1e-6)


def test_no_two_objects_share_space(plans):
    for plan in plans:
        items = [item for item in plan.placed if item.piece.kind != 'rug']
        for first in items:
            for second in items:
                apart = (first.z + first.piece.height <= second.z
                         or second.z + second.piece.height <= first.z)
                related = second.instance == first.parent or first.instance == second.parent
                if first is not second and not apart and not related:
                    assert not contains(second, samples(first)).any()


def test_what_stands_on_something_stands_over_it_at_its_top(plans):
    stacked = [(item, plan.placed[item.parent - 1]) for plan in plans for item in plan.placed
               if item.parent]
    assert len(stacked) > COUNT
    for item, base in stacked:
        assert contains(base, samples(item) * 0.999 + 0.001 * np.array([base.x, base.y])).all()
        assert item.z == pytest.approx(base.z + base.piece.top[4], abs=0.005)


def test_all_else_stands_on_the_floor_or_hangs(plans):
    hung = {'windowpane', 'painting', 'curtain', 'lamp', 'screen'}
    for plan in plans:
        for item in plan.placed:
            assert item.parent or item.z == 0 or item.piece.kind in hung


def test_nothing_is_near_the_camera(plans):
    for plan in plans:
        place = np.array(plan.camera.position)
        assert (place[:2] >= 0.45 - 1e-9).all()
        assert (place[:2] <= np.array(plan.size[:2]) - 0.45 + 1e-9).all()
        assert 0.9 < place[2] < plan.size[2] - 0.3
        for item in plan.placed:
            if item.piece.kind != 'rug':
                gaps = np.linalg.norm(samples(item, 60) - place[:2], axis=1)
                assert gaps.min() >= 0.6 - 1e-6


def test_doors_can_be_reached(plans):
    for plan in plans:
        for door in (item for item in plan.placed if item.piece.kind == 'door'):
            cos, sin = np.cos(door.yaw), np.sin(door.yaw)
            before = np.array([(door.x - sin * way, door.y + cos * way)
                               for way in np.linspace(0.1, 0.5, 9)])
            for item in plan.placed:
                if item.piece.kind not in ('rug', 'door') and item.z < 1.9:
                    assert not contains(item, before).any()


def test_rooms_are_furnished(plans):
    counts = [len(plan.placed) for plan in plans]
    assert min(counts) >= 3
    assert np.median(counts) >= 9


def test_ids_count_the_objects_from_one(plans):
    for plan in plans:
        assert [item.instance for item in plan.placed] == list(range(1, len(plan.placed) + 1))


def test_footprints_meet_exactly_when_points_are_shared():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 45)] * 2), axis=-1).reshape(-1, 2)
    met = 0
    for _ in range(150):
        first, second = (Footprint(*rng.uniform(-1, 1, 2), *rng.uniform(0.1, 0.8, 2),
                                   rng.uniform(-3, 3), 0.0, 1.0) for _ in range(2))
        cos, sin = np.cos(first.yaw), np.sin(first.yaw)
        points = (grid * (first.half_x, first.half_y)) @ np.array([[cos, sin], [-sin, cos]])
        distance = min(second.distance(x + first.x, y + first.y) for x, y in points)
        if first.meets(second):
            met += 1
            assert distance < 0.08
        else:
            assert distance > 0
    assert 25 < met < 125
