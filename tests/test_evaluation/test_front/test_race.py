"""Which stitches a race drops, from numbers alone."""

from __future__ import annotations

import numpy as np
import pytest

from mmsnnet.evaluation.front.race import (
    RaceOptions,
    blocks_saved,
    find_losers,
    looks,
    race_order,
    required_probability,
)
from mmsnnet.evaluation.front.race_file import RaceFile
from mmsnnet.stitching import AnchorSpec, StitchSpace
from mmsnnet.stitching.route_tree import RouteTree


def small_space():
    anchors = [AnchorSpec.plain_vit(depth, width) for depth, width in ((3, 32), (6, 64))]
    return StitchSpace(anchors, (2, 5))


def losers(values, costs, required=0.9, **settings):
    names = [f'S{number + 1}' for number in range(len(costs))]
    limits = np.broadcast_to(required, len(costs))
    found = find_losers(names, np.array(costs, float), np.array(values, float), limits, **settings)
    return {drop.name: (drop.beaten_by, drop.probability) for drop in found}


def test_a_stitch_is_beaten_by_one_of_no_more_flops_alone():
    values = [[1, 2, 3, 0]] * 10
    assert losers(values, [1, 1, 3, 2]) == {'S1': ('S2', 1.0), 'S4': ('S2', 1.0)}


def test_equal_stitches_do_not_beat_each_other():
    assert losers([[1, 1]] * 10, [1, 1]) == {}


def test_a_stitch_stays_that_is_not_beaten_surely_enough():
    values = [[2, 1]] * 8 + [[1, 2]] * 2  # differences of mean 0.6 and deviation 0.8
    assert losers(values, [1, 2], required=0.78) == {}
    assert losers(values, [1, 2], required=0.77) == {'S2': ('S1', 0.7734)}


def test_what_all_stitches_share_of_a_draw_says_nothing_against_one():
    shared = np.random.default_rng(0).normal(0, 10, (200, 1))
    values = shared + np.array([[2.0, 1.0]]) + np.random.default_rng(1).normal(0, 0.1, (200, 2))
    assert losers(values, [1, 2], required=0.999) == {'S2': ('S1', 1.0)}


def test_the_surest_rival_is_named():
    values = np.array([[2.0, 1.5, 1.0], [0.5, 1.4, 0.9], [3.0, 1.6, 1.1]])
    assert losers(values, [1, 1, 2], required=0.9)['S3'][0] == 'S2'


def test_the_lead_is_the_mean_difference_to_the_rival():
    values = np.array([[2.0, 1.5, 1.0], [2.5, 1.0, 0.9]])
    (drop,) = find_losers(['S1', 'S2', 'S3'], np.array([2, 3, 1]), values, np.full(3, 0.9))
    assert (drop.name, drop.beaten_by, drop.lead) == ('S2', 'S1', 1.0)


def test_what_is_kept_is_never_dropped_but_beats():
    values = [[3, 2, 1]] * 10
    assert losers(values, [1, 2, 3], kept=frozenset({'S2'})) == {'S3': ('S1', 1.0)}


def test_the_blocks_saved_are_those_by_which_the_tree_shrinks():
    space = small_space()
    programs = {stitch.name: space.program(stitch) for stitch in space}
    whole = RouteTree(programs).num_blocks
    for name, saved in blocks_saved(programs).items():
        rest = {other: program for other, program in programs.items() if other != name}
        assert saved == whole - RouteTree(rest).num_blocks


def test_the_risk_is_dealt_out_by_the_blocks_saved():
    required = required_probability(dict(a=1, b=2, c=3), ['a', 'b', 'c'], 0.9)
    np.testing.assert_allclose(required, [0.95, 0.9, 0.85])


def test_what_saves_nothing_or_all_has_its_bounds():
    required = required_probability(dict(a=0, b=0, c=30), ['a', 'b', 'c'], 0.9)
    np.testing.assert_allclose(required, [0.95, 0.95, 0.8])


def test_the_order_holds_every_batch_once_and_is_that_of_its_seed():
    assert sorted(race_order(50, 3)) == list(range(50))
    assert race_order(50, 3) == race_order(50, 3) != race_order(50, 4)


@pytest.mark.parametrize('batch_size', [1, 4])
def test_looks_begin_with_enough_images_and_end_before_the_last(batch_size):
    found = looks(100, batch_size, min_images=20)
    assert found == sorted(set(found))
    assert found[0] * batch_size >= 20
    assert found[-1] < 100


def test_a_first_look_has_the_fewest_images_where_its_share_is_less():
    assert looks(300, 1, min_images=30)[:2] == [30, 36]
    assert looks(2000, 1, min_images=30)[0] == 60


def test_too_few_images_for_a_look_make_an_ordinary_sweep():
    assert looks(30, 1, min_images=50) == []


@pytest.mark.parametrize('settings', [
    dict(confidence=0), dict(confidence=1.0), dict(confidence=float('nan')), dict(min_images=0)
])  # fmt: skip
def test_impossible_options_are_refused(settings):
    with pytest.raises(ValueError, match='is not possible: give'):
        RaceOptions(**settings)


SETTINGS = dict(metric='mIoU', rule='greater', confidence=0.9, seed=1, min_images=5)
ROW = dict(id=3, name='S1-L4', family='S-L', flops=5, params=4, images=20, of=60,
           beaten_by='S3', probability=0.97, lead=0.5)  # fmt: skip


def test_what_was_dropped_comes_back_from_the_file(tmp_path):
    RaceFile(tmp_path, SETTINGS).add(20, [ROW])
    again = RaceFile(tmp_path)
    assert again.settings == SETTINGS
    assert again.looks == [20]
    assert again.dropped == {'S1-L4': {'kind': 'dropped', **ROW}}


def test_what_is_scored_after_all_is_taken_out(tmp_path):
    RaceFile(tmp_path, SETTINGS).add(20, [ROW])
    RaceFile(tmp_path).take_out(['S1-L4', 'S3'])
    assert RaceFile(tmp_path).dropped == {}


def test_a_race_of_other_settings_is_refused_and_the_difference_named(tmp_path):
    RaceFile(tmp_path, SETTINGS).add(20, [])
    with pytest.raises(ValueError, match=r'another race \(seed: 1 there, 2 now\)'):
        RaceFile(tmp_path).check({**SETTINGS, 'seed': 2})


@pytest.mark.parametrize('content', ['', '[]', '{"looks": []}', '{"looks": 3'])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / 'race.json').write_text(content)
    with pytest.raises(ValueError, match=r'race\.json is damaged'):
        RaceFile(tmp_path)
