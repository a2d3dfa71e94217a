"""Steps that routes do at once, against routes walked one by one."""

from __future__ import annotations

import pytest

from mmsnnet.stitching import AnchorSpec, Block, BlockCost, StitchSpace
from mmsnnet.stitching.route_batches import RouteBatches


def space_of(depths, **settings):
    anchors = [
        AnchorSpec(width=16 * n, blocks=(BlockCost(n, 1, 1),) * depth, patch_size=8,
                   prefix_tokens=1, embed_params=1)
        for n, depth in enumerate(depths, 1)
    ]  # fmt: skip
    return StitchSpace(anchors, (depths[-1] // 2, depths[-1] - 1), **settings)


@pytest.fixture(params=[(3, 6), (4, 4), (2, 3, 7)], ids=str)
def programs(request):
    space = space_of(request.param, scheme=dict(max_crossings=2))
    return {stitch.name: space.program(stitch) for stitch in space}


def test_every_step_comes_once_and_each_beginning_before_it(programs):
    batches = RouteBatches(programs)
    plan = batches.plan(programs)
    steps = [step for step, _ in plan]
    assert sorted(map(repr, steps)) == sorted({repr(s) for p in programs.values() for s in p})
    reached = {0}
    for _, places in plan:
        assert reached.issuperset(batches.parents[place] for place in places)
        reached.update(places)
    beginnings = {p[:n] for p in programs.values() for n in range(len(p) + 1)}
    assert len(reached) == len(beginnings) == sum(len(places) for _, places in plan) + 1


def test_places_tell_beginnings_apart_and_lead_through_the_program(programs):
    batches = RouteBatches(programs)
    beginning_of = {}
    for name, program in programs.items():
        path = batches.paths[name]
        assert len(path) == len(program) + 1
        for steps, place in enumerate(path):
            assert beginning_of.setdefault(place, program[:steps]) == program[:steps]
    steps = {place: step for step, places in batches.plan(programs) for place in places}
    assert all(steps[p] == b[-1] for p, b in beginning_of.items() if b)


def test_known_places_and_what_lies_before_them_are_left_out(programs):
    batches = RouteBatches(programs)
    name, other = list(programs)[-2:]
    known = batches.paths[name][4]
    places = {place for _, batch in batches.plan([name], [known]) for place in batch}
    assert places == set(batches.paths[name][5:])
    both = [step for step, _ in batches.plan([name, other], batches.paths[name])]
    fresh = set(batches.paths[other]) - set(batches.paths[name])
    assert len(both) == len(fresh)


def test_blocks_that_routes_share_wait_for_all_of_them():
    space = space_of((3, 6))
    programs = {name: space.program(name) for name in ('L6', 'S1-L4', 'S2-L2')}
    plan = dict(RouteBatches(programs).plan(programs))
    sizes = [len(plan[Block(1, index)]) for index in range(6)]
    assert sizes == [1, 1, 2, 2, 3, 3]
