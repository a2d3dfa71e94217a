"""Which boundaries of anchors face each other, against exact fractions."""

from __future__ import annotations

import pytest

from mmsnnet.stitching import Alignment
from tests.test_stitching.brute_force import DEPTHS, positions


@pytest.mark.parametrize('depths', DEPTHS, ids=str)
def test_boundaries_lie_at_the_exact_fraction_rounded_half_up(depths):
    alignment = Alignment(depths)
    rows = [[alignment.position(a, k) for k in range(d + 1)] for a, d in enumerate(depths)]
    assert rows == positions(depths)


@pytest.mark.parametrize('depths', DEPTHS, ids=str)
def test_boundaries_of_an_anchor_never_coincide_and_the_ends_meet(depths):
    alignment = Alignment(depths)
    for anchor, depth in enumerate(depths):
        row = [alignment.position(anchor, k) for k in range(depth + 1)]
        assert row == sorted(set(row))
        assert (row[0], row[-1]) == (0, depths[-1])


def test_a_half_is_rounded_up():
    assert [Alignment((8, 12)).position(0, k) for k in range(9)] == [0, 2, 3, 5, 6, 8, 9, 11, 12]


def test_boundaries_of_three_anchors_are_composed_from_those_of_neighbors():
    # By way of the middle anchor; direct rounding would put them at 3, 6, 9, 12, 15, 18, 21.
    alignment = Alignment((8, 12, 24))
    assert [alignment.position(0, k) for k in range(1, 8)] == [4, 6, 10, 12, 16, 18, 22]


@pytest.mark.parametrize('depths', DEPTHS, ids=str)
def test_facing_boundaries_face_back(depths):
    alignment = Alignment(depths)
    for source in range(len(depths)):
        for target in range(len(depths)):
            for boundary in range(depths[source] + 1):
                other = alignment.facing(source, boundary, target)
                if other is not None:
                    assert alignment.facing(target, other, source) == boundary


def test_a_boundary_of_the_large_anchor_may_face_none_of_the_small():
    alignment = Alignment((6, 12))
    assert [alignment.facing(1, k, 0) for k in range(5)] == [0, None, 1, None, 2]


def test_cuts_are_inner_boundaries_seen_from_either_side():
    alignment = Alignment((6, 12))
    upward = ((1, 2), (2, 4), (3, 6), (4, 8), (5, 10))
    assert alignment.cuts(0, 1) == upward
    assert alignment.cuts(1, 0) == tuple((large, small) for small, large in upward)


@pytest.mark.parametrize('depths', DEPTHS, ids=str)
def test_a_tap_belongs_to_the_block_whose_span_holds_it(depths):
    alignment = Alignment(depths)
    for anchor, row in enumerate(positions(depths)):
        for tap in range(depths[-1]):
            spans = zip(row, row[1:])
            expected = next(k for k, (low, high) in enumerate(spans) if low <= tap < high)
            assert alignment.tap_block(anchor, tap) == expected
