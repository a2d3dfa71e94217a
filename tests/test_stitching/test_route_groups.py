"""Stitches that are trained in one step, because they share much of their beginnings."""

from __future__ import annotations

import pytest

from mmsnnet.stitching import AnchorSpec, CostTable, StitchSpace
from mmsnnet.stitching.route_groups import RouteGroups
from mmsnnet.stitching.route_tree import RouteTree
from mmsnnet.stitching.sampler import CostBinStitchSampler, UniformStitchSampler

SPACE = StitchSpace(
    [AnchorSpec.plain_vit(12, 384), AnchorSpec.plain_vit(24, 1024)], taps=(5, 11, 17, 23)
)
COSTS = CostTable(SPACE, 512)


def sampler(kind=UniformStitchSampler, **settings):
    return kind(SPACE, COSTS.flops, **settings)


@pytest.mark.parametrize('size', [1, 2, 4])
def test_a_group_is_of_different_stitches_with_the_samplers_own_first(size):
    drawn = sampler(seed=3)
    groups = RouteGroups(drawn, COSTS, size)
    for step in range(50):
        group = groups.sample(step)
        assert group[0] == drawn.sample(step)
        assert len({stitch.name for stitch in group}) == size


@pytest.mark.parametrize(('size', 'goal'), [(2, 0.75), (4, 0.55)])
def test_groups_take_less_than_their_stitches_apart(size, goal):
    drawn = sampler(CostBinStitchSampler, relative_bin_width=0.03)
    groups = RouteGroups(drawn, COSTS, size)
    together = apart = 0
    for step in range(100):
        programs = {stitch.name: SPACE.program(stitch) for stitch in groups.sample(step)}
        for visit in RouteTree(programs).visits:
            together += sum(map(COSTS.step_flops, programs[visit.name][visit.start :]))
            apart += COSTS[visit.name].flops
    assert together / apart < goal


def test_most_stitches_join_others_at_times():
    groups = RouteGroups(sampler(), COSTS, 2)
    joined = {groups.sample(step)[1].name for step in range(3000)}
    assert len(joined) > 0.8 * len(SPACE)


def test_groups_repeat_by_seed_and_step_and_differ_by_rank_where_the_sampler_does():
    one, same, other = (RouteGroups(sampler(seed=s), COSTS, 3) for s in (1, 1, 2))
    steps = range(20)
    assert [one.sample(i) for i in steps] == [same.sample(i, rank=1) for i in steps]
    assert [one.sample(i) for i in steps] != [other.sample(i) for i in steps]
    apart = RouteGroups(sampler(seed=1, per_rank=True), COSTS, 3)
    assert [apart.sample(i) for i in steps] == [one.sample(i) for i in steps]
    assert [apart.sample(i, rank=1) for i in steps] != [one.sample(i) for i in steps]


def test_only_stitches_of_the_sampler_join():
    listed = ['S12', 'S5-L14', 'S6-L12', 'L24']
    groups = RouteGroups(sampler(stitches=listed), COSTS, 4)
    assert {stitch.name for stitch in groups.sample(0)} == set(listed)


@pytest.mark.parametrize(
    ('size', 'error', 'said'),
    [
        (0, ValueError, 'routes_per_step must lie in 1 to 134'),
        (135, ValueError, 'got 135'),
        (2.0, TypeError, 'routes_per_step must be an integer, got 2.0'),
    ],
)
def test_impossible_sizes_are_refused(size, error, said):
    with pytest.raises(error, match=said):
        RouteGroups(sampler(), COSTS, size)
