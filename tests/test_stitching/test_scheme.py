"""Schemes: what they allow, and what they refuse."""

from __future__ import annotations

import pytest

from mmsnnet.stitching import Scheme, parse_scheme


def test_two_way_is_two_crossings_in_either_direction():
    assert parse_scheme('two_way') == Scheme(max_crossings=2, directions='both')


def test_one_way_is_one_crossing_from_cheap_to_costly():
    assert parse_scheme('one_way') == Scheme(max_crossings=1, directions='up')


def test_a_dict_gives_the_fields_and_the_rest_are_defaults():
    assert parse_scheme(dict(max_crossings=3)) == Scheme(3, 'both', 'neighbors')


def test_a_scheme_stays_as_it_is():
    scheme = Scheme(1, 'down')
    assert parse_scheme(scheme) is scheme


@pytest.mark.parametrize(
    ('scheme', 'allowed'),
    [
        (Scheme(), {(0, 1), (1, 0), (1, 2), (2, 1)}),
        (Scheme(directions='up'), {(0, 1), (1, 2)}),
        (Scheme(directions='down'), {(1, 0), (2, 1)}),
        (Scheme(pairs='all'), {(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)}),
        (Scheme(directions='up', pairs='all'), {(0, 1), (1, 2), (0, 2)}),
    ],
    ids=str,
)
def test_a_scheme_allows_exactly_these_crossings_of_three_anchors(scheme, allowed):
    pairs = {(a, b) for a in range(3) for b in range(3) if scheme.allows(a, b)}
    assert pairs == allowed


@pytest.mark.parametrize(
    ('scheme', 'error', 'message'),
    [
        ('twoway', ValueError, r"'twoway'.*'two_way', 'one_way'"),
        (dict(crossings=2), ValueError, r"\['crossings'\].*max_crossings"),
        (dict(directions='upward'), ValueError, r"directions='upward'.*'both', 'up', 'down'"),
        (dict(pairs='any'), ValueError, r"pairs='any'.*'neighbors', 'all'"),
        (dict(max_crossings=-1), ValueError, r'0 or more, got -1'),
        (dict(max_crossings='2'), TypeError, r"integer, got '2'"),
        (dict(max_crossings=True), TypeError, r'integer, got True'),
        (2, TypeError, r'name or a dict, got int'),
    ],
)
def test_a_wrong_scheme_is_refused_with_what_is_allowed(scheme, error, message):
    with pytest.raises(error, match=message):
        parse_scheme(scheme)
