"""Routes: every one of them, once, without gaps; against trying all combinations of cuts."""

from __future__ import annotations

import pytest

from mmsnnet.stitching import Alignment, Route, Scheme, Segment
from mmsnnet.stitching.route import enumerate_routes
from tests.test_stitching.brute_force import DEPTHS, all_routes, as_tuples, positions


def enumerate_tuples(depths, **scheme):
    return [as_tuples(r) for r in enumerate_routes(depths, Alignment(depths), Scheme(**scheme))]


@pytest.mark.parametrize('depths', DEPTHS, ids=str)
def test_routes_are_those_found_by_trying_all_cuts(depths):
    assert sorted(enumerate_tuples(depths)) == sorted(all_routes(depths))


@pytest.mark.parametrize('depths', DEPTHS, ids=str)
def test_segments_tile_the_common_scale_with_at_least_one_block_each(depths):
    rows = positions(depths)
    for route in enumerate_tuples(depths):
        spans = [(rows[a][start], rows[a][stop]) for a, start, stop in route]
        assert spans[0][0] == 0 and spans[-1][1] == depths[-1]
        assert all(left[1] == right[0] for left, right in zip(spans, spans[1:]))
        assert all(start < stop for _, start, stop in route)


@pytest.mark.parametrize('crossings', [0, 1, 2, 3, 4])
def test_any_number_of_crossings_is_enumerated_in_full(crossings):
    routes = enumerate_tuples((4, 6), max_crossings=crossings)
    assert sorted(routes) == sorted(all_routes((4, 6), crossings))
    assert max(len(route) for route in routes) == min(crossings, 3) + 1  # 3 cuts, 3 crossings


@pytest.mark.parametrize(
    ('directions', 'pairs', 'allowed'),
    [
        ('up', 'neighbors', lambda a, b: b - a == 1),
        ('down', 'neighbors', lambda a, b: a - b == 1),
        ('both', 'all', lambda a, b: a != b),
        ('up', 'all', lambda a, b: a < b),
        ('down', 'all', lambda a, b: a > b),
    ],
)
@pytest.mark.parametrize('depths', [(6, 12, 24), (8, 12, 24)], ids=str)
def test_directions_and_pairs_choose_among_all_routes(depths, directions, pairs, allowed):
    routes = enumerate_tuples(depths, directions=directions, pairs=pairs)
    assert sorted(routes) == sorted(all_routes(depths, allowed=allowed))


def test_routes_that_skip_the_middle_anchor_need_all_pairs():
    skip = ((0, 0, 2), (2, 8, 24))
    assert skip in enumerate_tuples((6, 12, 24), pairs='all')
    assert skip not in enumerate_tuples((6, 12, 24))


def test_a_single_anchor_has_one_route():
    assert enumerate_tuples((12,)) == [((0, 0, 12),)]


def test_anchors_of_one_block_have_nowhere_to_cross():
    assert enumerate_tuples((1, 3)) == [((0, 0, 1),), ((1, 0, 3),)]


def test_a_space_that_grows_out_of_hand_is_refused():
    with pytest.raises(ValueError, match='more than 100 routes; lower max_crossings=2'):
        enumerate_routes((12, 24), Alignment((12, 24)), Scheme(), limit=100)


def test_name_and_family_follow_from_the_segments():
    route = Route((Segment(1, 0, 4), Segment(0, 2, 5), Segment(1, 10, 24)))
    assert route.name(('S', 'L')) == 'L4-S3-L14'
    assert route.family(('S', 'L')) == 'L-S-L'
    assert (route.anchors, route.num_crossings) == ((1, 0, 1), 2)
