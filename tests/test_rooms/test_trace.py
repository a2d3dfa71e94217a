"""Rays and shadows against distances worked out by hand and against points tested one by one."""

from __future__ import annotations

import numpy as np
import pytest
from rooms import LABELS, plan_room, render_plan, render_room
from rooms.camera import Camera
from rooms.geometry import SURFACE_COUNT, build
from rooms.material import Material
from rooms.piece import assemble
from rooms.plan import Plan
from rooms.primitive import BOX, ELLIPSOID, box, ellipsoid, frustum
from rooms.visibility import LIGHT_RADIUS, lit

GREY = Material('plain', ((0.5, 0.5, 0.5),))
SIZE = (48, 64)


def bare_room(*parts, at=(2.0, 3.0), pitch=0.0, yaw=0.0):
    """A room 4 x 5 x 3 m seen from (2, 1, 1.5) along +y, with one piece standing at ``at``."""
    camera = Camera((2.0, 1.0, 1.5), yaw, pitch, 0.0, np.radians(80))
    plan = Plan('study', (4.0, 5.0, 3.0), camera, (GREY,) * 6, light=(2.0, 2.5, 2.8))
    if parts:
        plan.add(assemble('box', parts), at[0], at[1], 0.0, 0.0)
    return plan


def picture(plan, size=SIZE):
    return render_plan(plan, size, np.random.default_rng(0), np.random.default_rng(1))


def slopes(size=SIZE):
    """Rightward and upward slope of the ray through the middle of each pixel."""
    focal = size[1] / 2 / np.tan(np.radians(40))
    x = (np.arange(size[1]) + 0.5 - size[1] / 2) / focal
    y = (size[0] / 2 - np.arange(size[0]) - 0.5) / focal
    return np.meshgrid(x, y)


def inside(geometry, solid, points):
    """Whether (N, 3) points lie in a solid, tested on the points alone."""
    unit = (points - geometry.center[solid]) @ geometry.inverse[solid].T
    if geometry.shape[solid] == BOX:
        return (np.abs(unit) <= 1).all(axis=1)
    if geometry.shape[solid] == ELLIPSOID:
        return (unit ** 2).sum(axis=1) <= 1
    low, high = geometry.taper[solid]
    radius = low + (high - low) * (unit[:, 2] + 1) / 2
    return (np.abs(unit[:, 2]) <= 1) & (np.hypot(unit[:, 0], unit[:, 1]) <= radius)


def test_depth_of_an_empty_room_is_that_of_its_walls_floor_and_ceiling():
    x, y = slopes()
    wall = np.full(SIZE, 4.0)
    side = 2.0 / np.abs(x)
    level = 1.5 / np.abs(y)
    expected = np.minimum(np.minimum(wall, side), level)
    image = picture(bare_room())
    np.testing.assert_allclose(image.depth_mm, 1000 * expected, atol=0.51)
    names = np.where(level < np.minimum(wall, side), np.where(y < 0, 4, 6), 1)
    np.testing.assert_array_equal(image.label, names)


def test_depth_is_measured_along_the_optical_axis_of_a_tilted_camera():
    pitch, yaw = -0.3, 0.4
    x, y = slopes()
    forward = np.array([-np.sin(yaw) * np.cos(pitch), np.cos(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.cos(yaw), np.sin(yaw), 0])
    up = np.array([np.sin(yaw) * np.sin(pitch), -np.cos(yaw) * np.sin(pitch), np.cos(pitch)])
    rays = forward + x[..., None] * right + y[..., None] * up
    start, size = np.array([2.0, 1.0, 1.5]), np.array([4.0, 5.0, 3.0])
    reach = np.where(rays > 0, size - start, -start) / rays
    image = picture(bare_room(pitch=pitch, yaw=yaw))
    np.testing.assert_allclose(image.depth_mm, 1000 * reach.min(axis=-1), atol=0.51)


def test_a_box_stands_where_it_was_put():
    image = picture(bare_room(box((-0.5, 0.5), (-0.25, 0.25), (0, 2), GREY)))
    x, y = slopes()
    depth = 2.0 - 0.25
    face = (np.abs(x * depth) < 0.5) & (y * depth < 0.5) & (y * depth > -1.5)
    np.testing.assert_array_equal(image.label == LABELS['box'], face)
    assert set(image.depth_mm[face]) == {1750}
    assert set(image.instance[face]) == {1}
    assert set(image.instance[~face]) == {0}
    assert image.objects == {1: 'box'}


def test_depth_of_a_ball_solves_its_quadratic():
    image = picture(bare_room(ellipsoid((0, 0, 0), (0.6, 0.6, 0.6), GREY)))
    x, y = slopes()
    rays = np.stack([x, np.ones_like(x), y], axis=-1)
    offset = np.array([0, -2.0, 1.5 - 0.6])
    half_b = rays @ offset
    root = half_b ** 2 - (rays ** 2).sum(-1) * (offset @ offset - 0.36)
    hit = root > 1e-3
    depth = (-half_b - np.sqrt(np.maximum(root, 0))) / (rays ** 2).sum(-1)
    assert hit.sum() > 200
    np.testing.assert_allclose(image.depth_mm[hit], 1000 * depth[hit], atol=0.6)
    assert (image.instance[hit] == 1).all()
    assert (image.instance[root < -1e-3] == 0).all()


def test_a_cylinder_shows_its_mantle_at_the_right_distance():
    image = picture(bare_room(frustum(0, 0, (0, 2.5), (0.5, 0.5), GREY)))
    x, _ = slopes()
    half_b, square = -2.0, 1 + x ** 2
    root = half_b ** 2 - square * (4 - 0.25)
    hit = root > 1e-3
    depth = (2.0 - np.sqrt(np.maximum(root, 0))) / square
    row = SIZE[0] // 2
    np.testing.assert_allclose(image.depth_mm[row][hit[row]], 1000 * depth[row][hit[row]], atol=0.6)
    assert (image.instance[row] == hit[row]).all()


@pytest.mark.parametrize('radii', [(0.7, 0.3), (0.3, 0.7), (0.5, 0.5)])
def test_a_frustum_shows_mantle_and_lid_where_steps_along_the_rays_meet_it(radii):
    plan = bare_room(frustum(0, 0, (0, 0.8), radii, GREY), pitch=-0.4)
    image, geometry = picture(plan, (48, 48)), build(plan)
    right, up, forward = plan.camera.axes()
    place = (np.arange(48) - 23.5) / 24 * np.tan(np.radians(40))
    rays = forward + place[:, None] * right - place[:, None, None] * up
    steps = np.arange(1.0, 3.2, 0.004)
    points = plan.camera.position + steps[:, None] * rays[..., None, :]
    met = inside(geometry, 0, points.reshape(-1, 3)).reshape(48, 48, -1)
    # A grazed edge may fall between two steps, and light rounding may decide it either way.
    assert np.mean(met.any(axis=-1) == (image.instance == 1)) > 0.995
    both = met.any(axis=-1) & (image.instance == 1)
    off = 1000 * steps[met.argmax(axis=-1)] - image.depth_mm
    assert both.sum() > 100
    assert off[both].min() > -1 and off[both].max() < 5


@pytest.mark.parametrize('index', [3, 8, 21])
def test_rays_end_at_the_first_solid_of_a_furnished_room(index):
    plan = plan_room(0, 'train', index)
    image, geometry = render_room(0, 'train', index, (64, 64)), build(plan)
    rng = np.random.default_rng(index)
    right, up, forward = plan.camera.axes()
    focal = 32 / np.tan(plan.camera.field / 2)
    for _ in range(60):
        row, column = rng.integers(64, size=2)
        ray = forward + (column - 31.5) / focal * right + (31.5 - row) / focal * up
        depth = image.depth_mm[row, column] / 1000
        before = plan.camera.position + np.linspace(0, depth - 0.002, 400)[:, None] * ray
        assert (before >= 0).all() and (before <= plan.size).all()
        solids = range(len(geometry.shape))
        assert not any(inside(geometry, solid, before).any() for solid in solids)
        behind = plan.camera.position + np.linspace(depth, depth + 0.003, 40)[:, None] * ray
        owners = {int(geometry.instance[SURFACE_COUNT + solid])
                  for solid in solids if inside(geometry, solid, behind).any()}
        outside = ((behind < 0) | (behind > plan.size)).any()
        instance = int(image.instance[row, column])
        assert instance in owners if instance else outside


def test_shadows_are_where_a_solid_lies_between_the_point_and_the_light():
    plan = plan_room(0, 'train', 4)
    geometry = build(plan)
    rng = np.random.default_rng(0)
    points = rng.uniform((0.1, 0.1, 0.003), (plan.size[0] - 0.1, plan.size[1] - 0.1, 0.003),
                         (300, 3)).astype(np.float32)
    sample = rng.integers(4, size=300)
    angle = np.pi / 2 * (sample + 0.5)
    lights = np.array(plan.light) + LIGHT_RADIUS * np.stack(
        [np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    steps = np.linspace(0.001, 0.999, 1500)[:, None]
    free = []
    for point, light in zip(points, lights):
        way = point + steps * (light - point)
        free.append(not any(inside(geometry, solid, way).any()
                            for solid in np.flatnonzero(geometry.casts)))
    found = lit(geometry, points.T.copy(), plan.light, sample)
    assert 0.05 < np.mean(found) < 0.95
    # Steps of some millimetres may jump over a grazed edge.
    assert np.mean(found == np.array(free)) > 0.985


def test_what_stands_in_shadow_is_darker():
    open_floor = picture(bare_room(pitch=-0.5)).rgb.astype(float)
    slab = box((-0.6, 0.6), (-0.6, 0.6), (1.8, 1.85), GREY)
    foot = box((-0.01, 0.01), (0.59, 0.6), (0, 1.8), GREY)
    image = picture(bare_room(slab, foot, at=(2.0, 2.5), pitch=-0.5))
    floor = image.label == LABELS['floor']
    ratio = image.rgb.astype(float).mean(-1)[floor] / open_floor.mean(-1)[floor]
    assert np.percentile(ratio, 5) < 0.8 * np.percentile(ratio, 95)
