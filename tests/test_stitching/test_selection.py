"""The choice of stitches by a short word."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mmsnnet.stitching import CostTable, select_stitches
from tests.test_stitching.brute_force import make_space


@pytest.fixture(scope='module')
def space():
    return make_space((12, 24), (9, 14, 19, 23))


@pytest.fixture(scope='module')
def flops(space):
    return CostTable(space, (512, 512)).flops


def chosen(space, flops, wanted):
    return [stitch.name for stitch in select_stitches(space, flops, wanted)]


def test_all_is_the_whole_space_in_the_order_of_ids(space, flops):
    assert chosen(space, flops, 'all') == list(space.names)
    assert len(space.names) == 134


def test_anchors_are_the_routes_without_a_crossing(space, flops):
    assert chosen(space, flops, 'anchors') == ['S12', 'L24']


@pytest.mark.parametrize('family', ['S', 'L', 'S-L', 'L-S', 'L-S-L', 'S-L-S'])
def test_a_family_is_all_names_with_its_letters(space, flops, family):
    expected = [name for name in space.names if re.sub(r'\d', '', name) == family]
    assert chosen(space, flops, family) == expected


@pytest.mark.parametrize(
    ('wanted', 'names'),
    [
        ('S5-L14', ['S5-L14']),
        (20, None),
        ('20', None),
        (['S5-L14', 'L24'], ['L24', 'S5-L14']),
        ('S5-L14,L24', ['L24', 'S5-L14']),
        (' S5-L14 , L24, ', ['L24', 'S5-L14']),
        ('L24,L24', ['L24']),
        (('anchors', 6), ['S12', 'L24', 'S5-L14']),
        ('anchors,6', ['S12', 'L24', 'S5-L14']),
        (iter(['anchors', 'S12', 1]), ['S12', 'L24']),
    ],
)
def test_names_ids_and_lists_give_each_stitch_once_in_the_order_of_ids(
    space, flops, wanted, names
):
    assert chosen(space, flops, wanted) == (names or [space.names[20]])


def test_a_list_may_mix_groups_names_and_ids(space, flops):
    names = set(chosen(space, flops, ['S-L', 'spread:3', 133, 'L24']))
    expected = {f'S{k}-L{24 - 2 * k}' for k in range(1, 12)}
    expected |= {'S12', 'L24', space.names[133], *chosen(space, flops, 'spread:3')}
    assert names == expected


@pytest.mark.parametrize('count', range(2, 30))
def test_spread_takes_both_ends_and_as_many_as_asked_for(space, flops, count):
    names = chosen(space, flops, f'spread:{count}')
    assert len(set(names)) == len(names) == count
    assert min(flops, key=flops.get) in names
    assert max(flops, key=flops.get) in names


@pytest.mark.parametrize('count', range(2, 16))
def test_spread_takes_what_is_nearest_to_evenly_spaced_costs(space, flops, count):
    costs = np.array([flops[name] for name in space.names], float)
    targets = np.linspace(costs.min(), costs.max(), count)
    nearest = np.abs(costs[:, None] - targets).min(axis=0)  # by brute force over all stitches
    taken = np.sort([flops[name] for name in chosen(space, flops, f'spread:{count}')])
    np.testing.assert_allclose(np.abs(taken - targets), nearest, rtol=0, atol=1)


def test_where_costs_crowd_spread_still_takes_distinct_stitches(space):
    """Every stitch costs the same but one: targets in between have no stitch of their own."""
    flops = dict.fromkeys(space.names, 10) | {'L24': 1000}
    names = chosen(space, flops, 'spread:5')
    assert len(names) == 5 and 'L24' in names


def test_a_spread_of_one_is_the_costliest(space, flops):
    assert chosen(space, flops, 'spread:1') == [max(flops, key=flops.get)]


def test_a_spread_of_more_than_there_are_is_all(space, flops):
    assert chosen(space, flops, 'spread:1000') == list(space.names)


@pytest.mark.parametrize('wanted', ['', [], ',', ()])
def test_no_choice_is_refused_with_what_can_be_chosen(space, flops, wanted):
    with pytest.raises(ValueError, match=r"give 'all', 'anchors', 'spread:N', a family \(S, L, S-"):
        select_stitches(space, flops, wanted)


@pytest.mark.parametrize(
    ('wanted', 'message'),
    [
        ('S5-L13', "Unknown stitch 'S5-L13' in a space of 134 .* closest names: S5-L14, "),
        ('anchors,S5-L13', "Unknown stitch 'S5-L13'"),
        (134, 'Unknown stitch id 134; ids are 0 to 133'),
        ('134', 'Unknown stitch id 134; ids are 0 to 133'),
        (-1, 'Unknown stitch id -1'),
        ('spread:0', 'ask for at least 1 stitch'),
        ('spread:', r"'spread:' is not possible: write 'spread:N'"),
        ('spread:-2', r"'spread:-2' is not possible: write 'spread:N'"),
        ('spread:many', r"'spread:many' is not possible: write 'spread:N'"),
    ],
)
def test_an_unknown_entry_is_refused_in_one_line(space, flops, wanted, message):
    with pytest.raises(ValueError, match=message) as caught:
        select_stitches(space, flops, wanted)
    assert '\n' not in str(caught.value)
