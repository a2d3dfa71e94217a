"""The tree of routes, against sets of prefixes and against every order of a few routes."""

from __future__ import annotations

from itertools import permutations

import pytest

from mmsnnet.stitching import Block
from mmsnnet.stitching.route_tree import RouteTree
from tests.test_stitching.brute_force import DEPTHS, make_space


def programs_of(space, names=None):
    return {name: space.program(name) for name in names or space.names}


def distinct_blocks(programs):
    """Blocks that differ in themselves or in anything that ran before them."""
    prefixes = {p[:stop] for p in programs for stop in range(1, len(p) + 1)}
    return sum(isinstance(prefix[-1], Block) for prefix in prefixes)


def shared(one, other):
    stops = (i for i, (a, b) in enumerate(zip(one, other)) if a != b)
    return next(stops, min(len(one), len(other)))


def held_after(order, programs):
    """Lengths of the prefixes of each route at which some later route leaves it, by definition."""
    walks = [programs[name] for name in order]
    return [
        {shared(walk, later) for later in walks[i + 1 :]} - {0} for i, walk in enumerate(walks)
    ]


def blocks_run(order, programs):
    """Blocks of an order in which each route takes up where it leaves the one before."""
    walks = [programs[name] for name in order]
    starts = [0, *map(shared, walks, walks[1:])]
    return sum(isinstance(s, Block) for walk, start in zip(walks, starts) for s in walk[start:])


@pytest.mark.parametrize('depths', DEPTHS, ids=str)
def test_every_common_beginning_is_run_once(depths):
    programs = programs_of(make_space(depths))
    tree = RouteTree(programs)
    assert tree.num_blocks == distinct_blocks(programs.values())
    assert tree.num_blocks_apart == sum(
        isinstance(step, Block) for program in programs.values() for step in program
    )


def test_all_134_stitches_of_12_and_24_blocks_take_894_blocks_instead_of_2412():
    tree = RouteTree(programs_of(make_space((12, 24))))
    assert (len(tree), tree.num_blocks, tree.num_blocks_apart) == (134, 894, 2412)


@pytest.mark.parametrize('depths', [(12, 24), (8, 12), (6, 12, 24)], ids=str)
def test_two_states_are_enough_for_two_crossings(depths):
    assert RouteTree(programs_of(make_space(depths))).peak_states == 2


def test_one_state_is_enough_for_one_crossing():
    assert RouteTree(programs_of(make_space((12, 24), scheme='one_way'))).peak_states == 1


@pytest.mark.parametrize('depths', [(12, 24), (8, 12), (6, 12, 24)], ids=str)
def test_states_are_those_that_a_later_route_leaves_from(depths):
    programs = programs_of(make_space(depths))
    tree = RouteTree(programs)
    expected = held_after(tree.order, programs)
    assert [{steps for steps, _ in visit.holds} for visit in tree.visits] == expected
    walks = [programs[name] for name in tree.order]
    starts = [0, *map(shared, walks, walks[1:])]
    assert [visit.start for visit in tree.visits] == starts


@pytest.mark.parametrize('depths', [(12, 24), (6, 12, 24)], ids=str)
def test_uses_of_a_state_are_the_routes_that_start_from_it(depths):
    visits = RouteTree(programs_of(make_space(depths))).visits
    for number, visit in enumerate(visits):
        for steps, uses in visit.holds:
            later = [other.start for other in visits[number + 1 :]]
            until = next((i for i, start in enumerate(later) if start < steps), len(later))
            assert uses == later[:until].count(steps) > 0


SUBSETS = [
    ('S12', 'L24', 'S5-L14', 'S5-L8-S3', 'S4-L16', 'S5-L10-S2'),
    ('S1-L22', 'S2-L20', 'S3-L18', 'S12', 'L2-S11', 'L2-S5-L12'),
    ('L4-S3-L14', 'L4-S10', 'L4-S5-L10', 'L24', 'L8-S8', 'L8-S2-L12'),
]


@pytest.mark.parametrize('names', SUBSETS)
def test_no_order_of_a_subset_is_cheaper_or_as_cheap_with_fewer_states(names):
    programs = programs_of(make_space((12, 24)), names)
    tree = RouteTree(programs)
    found = {
        order: (blocks_run(order, programs), max(map(len, held_after(order, programs))))
        for order in permutations(names)
    }
    assert set(tree.order) == set(names)
    assert (tree.num_blocks, tree.peak_states) == found[tree.order] == min(found.values())


@pytest.mark.parametrize('names', SUBSETS)
def test_the_order_given_does_not_matter_for_the_cost(names):
    space = make_space((12, 24))
    trees = [RouteTree(programs_of(space, order)) for order in (names, names[::-1])]
    assert trees[0].num_blocks == trees[1].num_blocks
    assert trees[0].peak_states == trees[1].peak_states


def test_a_program_that_is_the_beginning_of_another_is_visited_too():
    whole = make_space((2, 4)).program('L4')
    tree = RouteTree({'whole': whole, 'part': whole[:2], 'again': whole})
    assert sorted(tree.order) == ['again', 'part', 'whole']
    assert tree.num_blocks == 4


def test_no_routes_are_refused():
    with pytest.raises(ValueError, match='at least one route'):
        RouteTree({})
