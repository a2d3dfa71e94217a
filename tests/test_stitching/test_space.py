"""The space of stitches: counts, order, names, look-up and refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mmsnnet.stitching
from mmsnnet.stitching import AnchorSpec, LayerKey, StitchSpace
from tests.test_stitching.brute_force import DEPTHS, all_routes, as_tuples, make_space, positions

PUBLISHED_FAMILIES = {
    'S': [0],
    'L': [1],
    'S-L': list(range(2, 13)),
    'L-S': list(range(14, 25)),
    'L-S-L': list(range(25, 80)),
    'S-L-S': list(range(80, 135)),
}


@pytest.fixture(scope='module')
def space():
    return make_space((12, 24), (9, 14, 19, 23))


def names_in_order(small, large):
    """Names of a two-way space of two anchors: each family counted by nested loops."""
    cut = positions((small, large))[0]
    names, inner = [f'S{small}', f'L{large}'], range(1, small)
    names += [f'S{k}-L{large - cut[k]}' for k in inner]
    names += [f'L{cut[k]}-S{small - k}' for k in inner]
    pairs = [(j, k) for j in inner for k in inner if j < k]
    names += [f'L{cut[j]}-S{k - j}-L{large - cut[k]}' for j, k in pairs]
    names += [f'S{j}-L{cut[k] - cut[j]}-S{small - k}' for j, k in pairs]
    return names


@pytest.mark.parametrize(
    ('depths', 'number'), [((12, 12), 134), ((12, 24), 134), ((6, 12), 32), ((24, 24), 554)]
)
def test_two_way_spaces_have_the_known_sizes(depths, number):
    assert len(make_space(depths)) == number


@pytest.mark.parametrize('depths', [d for d in DEPTHS if len(d) == 2], ids=str)
def test_ids_count_the_anchors_then_each_family_in_the_order_of_its_cuts(depths):
    space = make_space(depths)
    assert list(space.names) == names_in_order(*depths)
    assert [stitch.id for stitch in space] == list(range(len(space)))


@pytest.mark.parametrize('depths', DEPTHS, ids=str)
def test_no_two_stitches_have_one_name_or_one_route(depths):
    space = make_space(depths)
    assert len({stitch.name for stitch in space}) == len(space)
    assert len({stitch.route for stitch in space}) == len(space) == len(all_routes(depths))


def test_one_way_has_the_anchors_and_the_crossings_upwards():
    space = make_space((12, 24), scheme='one_way')
    assert list(space.names) == names_in_order(12, 24)[:13]


def test_three_anchors_are_ordered_anchors_first_then_by_crossings():
    space = make_space((6, 12, 24))
    assert space.names[:3] == ('S6', 'M12', 'L24')
    assert list(space.families) == [
        *('S', 'M', 'L', 'M-L', 'L-M', 'S-M', 'M-S'),
        *('L-M-L', 'S-M-L', 'M-L-M', 'M-S-M', 'L-M-S', 'S-M-S'),
    ]


def test_a_single_anchor_is_a_space_of_one_stitch():
    space = StitchSpace([AnchorSpec.plain_vit(12, 64)], (2, 5, 8, 11))
    assert space.names == ('A12',)
    assert space.layers == ()


def test_families_hold_every_stitch_once_in_order(space):
    members = [stitch for family in space.families.values() for stitch in family]
    assert members == list(space)
    assert all(s.family == name for name, family in space.families.items() for s in family)


@pytest.mark.parametrize('depths', [(12, 12), (12, 24)], ids=str)
def test_published_ids_fall_into_the_published_ranges(depths):
    published = {
        family: [stitch.published_id for stitch in members]
        for family, members in make_space(depths).families.items()
    }
    assert published == PUBLISHED_FAMILIES


@pytest.mark.parametrize(
    ('published_id', 'route'),
    [
        (2, ((0, 0, 1), (1, 2, 24))),
        (6, ((0, 0, 5), (1, 10, 24))),
        (14, ((1, 0, 2), (0, 1, 12))),
        (24, ((1, 0, 22), (0, 11, 12))),
        (25, ((1, 0, 2), (0, 1, 2), (1, 4, 24))),
        (79, ((1, 0, 20), (0, 10, 11), (1, 22, 24))),
        (80, ((0, 0, 1), (1, 2, 4), (0, 2, 12))),
        (98, ((0, 0, 2), (1, 4, 22), (0, 11, 12))),
        (134, ((0, 0, 10), (1, 20, 22), (0, 11, 12))),
    ],
)
def test_published_ids_are_the_published_routes(space, published_id, route):
    assert as_tuples(space.by_published_id(published_id).route) == route


def test_the_published_numbering_leaves_13_out(space):
    with pytest.raises(ValueError, match=r'published id 13;.*0 to 134 without 13'):
        space.by_published_id(13)


@pytest.mark.parametrize('kwargs', [dict(depths=(6, 12)), dict(depths=(12, 24), scheme='one_way')])
def test_spaces_that_were_not_published_have_no_published_ids(kwargs):
    space = make_space(**kwargs)
    assert {stitch.published_id for stitch in space} == {None}
    with pytest.raises(ValueError, match=r'published id 0;.*\(12, 24\)\) alone'):
        space.by_published_id(0)


def test_a_stitch_is_found_by_name_by_id_and_by_itself(space):
    stitch = space['S5-L14']
    assert (stitch.name, stitch.family, str(stitch)) == ('S5-L14', 'S-L', 'S5-L14')
    assert as_tuples(stitch.route) == ((0, 0, 5), (1, 10, 24))
    assert space[stitch.id] is space[stitch] is stitch


def test_stitches_of_the_space_are_in_it_and_others_are_not(space):
    assert 'S5-L14' in space and space[7] in space
    assert 'S5-L13' not in space
    assert make_space((6, 12))['S1-L10'] not in space


def test_the_anchor_stitches_are_the_routes_without_crossings(space):
    assert [stitch.name for stitch in space.anchor_stitches] == ['S12', 'L24']
    assert [stitch for stitch in space if stitch.is_anchor] == list(space.anchor_stitches)


def test_an_unknown_name_is_refused_with_the_closest_ones(space):
    with pytest.raises(ValueError, match=r"'S5-L15' in a space of 134 .*S12, L24; .*S5-L14"):
        space['S5-L15']


def test_a_name_like_none_is_refused_with_a_way_to_list_them(space):
    with pytest.raises(ValueError, match=r"'\?\?'.*space\.names"):
        space['??']


@pytest.mark.parametrize('number', [-1, 134, 10**9])
def test_an_id_outside_the_space_is_refused(space, number):
    with pytest.raises(ValueError, match=f'Unknown stitch id {number}; ids are 0 to 133'):
        space[number]


@pytest.mark.parametrize('key', [True, 1.0, None, ('S12',)])
def test_other_keys_are_refused(space, key):
    with pytest.raises(TypeError, match='by name or id'):
        space[key]


@pytest.mark.parametrize(
    ('taps', 'error', 'message'),
    [
        ((), ValueError, 'No out_indices'),
        ((9, 14, 24), ValueError, r'hold 24, but .* 0 to 23'),
        ((-1, 3), ValueError, 'hold -1'),
        ((9, 9), ValueError, 'increase strictly'),
        ((14, 9), ValueError, 'increase strictly'),
        ((9.0,), TypeError, 'integers, got 9.0'),
        ((True,), TypeError, 'integers, got True'),
    ],
)
def test_bad_taps_are_refused_with_the_value(taps, error, message):
    anchors = [AnchorSpec.plain_vit(12, 384), AnchorSpec.plain_vit(24, 1024)]
    with pytest.raises(error, match=message):
        StitchSpace(anchors, taps)


def test_the_layers_are_one_a_direction_and_cut_and_one_for_the_last_tap(space):
    upward = {LayerKey(0, k, 1, 2 * k) for k in range(1, 13)}  # the twelfth lifts the last tap
    downward = {LayerKey(1, 2 * k, 0, k) for k in range(1, 12)}
    assert set(space.layers) == upward | downward
    assert len(space.layers) == 23


def test_the_core_loads_nothing_but_the_standard_library():
    package = Path(mmsnnet.stitching.__file__).parent.parent
    code = f"""
import sys, types
before = set(sys.modules)
parent = types.ModuleType('mmsnnet')
parent.__path__ = [{str(package)!r}]
sys.modules['mmsnnet'] = parent
import mmsnnet.stitching
foreign = [n for n in sorted(set(sys.modules) - before)
           if 'site-packages' in str(getattr(sys.modules[n], '__file__', ''))]
print(foreign, 'torch' in sys.modules, len(mmsnnet.stitching.__all__) > 5)
"""
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.split('\n')[0] == '[] False True'
