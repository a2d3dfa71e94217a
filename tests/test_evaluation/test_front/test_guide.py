"""What a guided search scores next, from numbers alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmsnnet.evaluation.front import guide
from mmsnnet.evaluation.front.guide import (
    Candidates,
    GuideOptions,
    check_budget,
    first_set,
    next_count,
    propose,
)
from mmsnnet.evaluation.front.guide_file import BUDGET_SPENT, GuideFile
from mmsnnet.evaluation.front.marginal_blocks import MarginalBlocks
from mmsnnet.evaluation.front.route_features import route_features
from mmsnnet.results.pareto import Point, hypervolume
from mmsnnet.stitching import AnchorSpec, Block, StitchSpace
from mmsnnet.stitching.route_tree import RouteTree

SPACE = StitchSpace([AnchorSpec.plain_vit(6, 32), AnchorSpec.plain_vit(12, 64)], (5, 11))
NAMES = [stitch.name for stitch in SPACE]
PROGRAMS = {name: SPACE.program(SPACE[name]) for name in NAMES}
FLOPS = {
    stitch.name: sum(len(s) * (1, 4)[s.anchor] for s in stitch.route.segments) + stitch.id / 100
    for stitch in SPACE
}


def candidates(shared=True):
    pytest.importorskip('sklearn')
    costs = np.array([FLOPS[name] for name in NAMES])
    blocks = MarginalBlocks(PROGRAMS, shared)
    return Candidates(NAMES, costs, route_features(SPACE, FLOPS), blocks)


def first(budget=20, **settings):
    return first_set(candidates(), ['S6', 'L12'], GuideOptions(budget, **settings))


def proposed(values, count=4, guesses=None, seed=0, shared=True):
    return propose(candidates(shared), values, guesses or {}, count, seed)


def smooth(known):
    """Values that grow with the cost, of some stitches."""
    values = np.full(len(NAMES), math.nan)
    for name in known:
        values[SPACE[name].id] = 10 + 5 * math.log(FLOPS[name])
    return values


def test_features_are_of_one_scale_and_tell_stitches_apart():
    features = route_features(SPACE, FLOPS)
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(features.std(0), 1)
    assert len({tuple(row) for row in features.round(6)}) == len(NAMES)


def test_marginal_blocks_are_those_by_which_the_tree_grows():
    blocks, run = MarginalBlocks(PROGRAMS), {}
    for name in ('S6', 'S2-L8', 'S2-L4-S2', 'L12'):
        before = RouteTree(run).num_blocks if run else 0
        run[name] = PROGRAMS[name]
        assert blocks.of(name) == RouteTree(run).num_blocks - before
        blocks.add([name])
    assert blocks.of('L12') == 1


def test_one_by_one_all_blocks_of_a_stitch_are_its_own():
    blocks = MarginalBlocks(PROGRAMS, shared=False)
    blocks.add(['S6'])
    assert blocks.of('S2-L8') == 10


def test_the_first_set_holds_the_anchors_and_is_that_of_its_seed():
    assert {'S6', 'L12'} < set(first(seed=3))
    assert len(set(first(seed=3))) == len(first(seed=3)) == 8
    assert first(seed=3) == first(seed=3) != first(seed=4)


def test_the_first_set_takes_fewer_blocks_than_as_many_stitches_at_random():
    random = np.random.default_rng(0)
    drawn = [['S6', 'L12', *random.permutation(NAMES[2:])[:6]] for _ in range(20)]
    blocks = [RouteTree({name: PROGRAMS[name] for name in names}).num_blocks for names in drawn]
    chosen = [first(seed=seed) for seed in range(20)]
    ours = [RouteTree({name: PROGRAMS[name] for name in names}).num_blocks for names in chosen]
    assert np.mean(ours) < 0.9 * np.mean(blocks)


def test_a_proposal_is_new_within_its_count_and_that_of_its_seed():
    known = first()
    found = proposed(smooth(known))
    assert 0 < len(found.names) <= 4
    assert not set(found.names) & set(known)
    assert found == proposed(smooth(known))
    assert found.chances.keys() == set(NAMES) - set(known)


def test_the_best_stitches_are_found_by_a_third_of_the_others():
    """On values that are a smooth function of the route, better in the middle of the costs."""
    values = np.array([
        20 + 6 * math.log(FLOPS[name]) - 2 * SPACE[name].route.num_crossings for name in NAMES
    ])  # fmt: skip

    def volume(names):
        points = [Point(name, FLOPS[name], values[SPACE[name].id]) for name in names]
        return hypervolume(points, max_cost=max(FLOPS.values()), worst=0.0, best=100.0)

    known, options = list(first(seed=1)), GuideOptions(20)
    while next_count(options, len(known)):
        some = np.full(len(NAMES), math.nan)
        some[[SPACE[name].id for name in known]] = values[[SPACE[name].id for name in known]]
        known += proposed(some, next_count(options, len(known))).names
    random = np.random.default_rng(0)
    drawn = [volume(random.permutation(NAMES)[:20].tolist()) for _ in range(50)]
    assert volume(known) > max(0.995 * volume(NAMES), np.mean(drawn))


def test_the_stitch_is_taken_that_promises_most_hypervolume_for_a_block(monkeypatch):
    """Against hypervolumes of the results package, for draws that are given."""
    draws = np.random.default_rng(0).uniform(0, 30, (5, len(NAMES)))
    monkeypatch.setattr(guide, 'draw_values', lambda *_: draws)
    known = first()
    values = smooth(known)

    def volume(numbers, of):
        points = [Point(NAMES[i], FLOPS[NAMES[i]], of[i]) for i in numbers]
        return hypervolume(points, max_cost=max(FLOPS.values()), worst=0.0, best=100.0)

    scored = np.flatnonzero(np.isfinite(values)).tolist()
    mixed = np.where(np.isfinite(values), values, draws)
    rates = {
        NAMES[i]: np.mean([volume([*scored, i], row) - volume(scored, row) for row in mixed])
        / len([step for step in PROGRAMS[NAMES[i]] if isinstance(step, Block)])
        for i in set(range(len(NAMES))) - set(scored)
    }
    assert proposed(values, count=1).names == (max(rates, key=rates.get),)
    gain = np.mean([volume(range(len(NAMES)), row) for row in mixed])
    assert proposed(values).gain == pytest.approx(1 - volume(scored, values) / gain)


def test_dropped_stitches_are_not_proposed():
    known = first()
    dropped = proposed(smooth(known)).names
    guesses = {SPACE[name].id: 0.0 for name in dropped}
    again = proposed(smooth(known), guesses=guesses)
    assert not set(again.names) & set(dropped)
    assert not again.chances.keys() & set(dropped)


def test_nothing_is_to_be_gained_where_all_is_scored():
    found = proposed(smooth(NAMES))
    assert (found.names, found.chances) == ((), {})
    assert found.gain == pytest.approx(0, abs=1e-12)


def test_sets_end_with_the_budget():
    options = GuideOptions(20)
    assert [next_count(options, known) for known in (6, 19, 20, 25)] == [4, 1, 0, 0]


@pytest.mark.parametrize('budget', [0, 2, 33])
def test_a_budget_that_does_not_fit_is_refused(budget):
    with pytest.raises(ValueError, match=f'A budget of {budget} stitches is not possible'):
        check_budget(GuideOptions(budget).budget, SPACE, len(NAMES))


@pytest.mark.parametrize('gain', [-0.1, 1.0, float('nan')])
def test_an_impossible_bound_is_refused(gain):
    with pytest.raises(ValueError, match='is not possible: give a share'):
        GuideOptions(9, min_gain=gain)


SETTINGS = dict(budget=9, metric='mIoU', rule='greater', worst=0.0, seed=1, min_gain=0.001)


def test_a_search_comes_back_from_its_file(tmp_path):
    GuideFile(tmp_path, SETTINGS).add(['S6', 'L12'])
    GuideFile(tmp_path, SETTINGS).end(BUDGET_SPENT, 0.0123, {'S1-L10': 0.25})
    again = GuideFile(tmp_path)
    assert again.settings == SETTINGS
    assert (again.sets, again.gain) == ([['S6', 'L12']], 0.0123)
    assert again.not_looked_at == {'S1-L10': 0.25}


def test_a_larger_budget_goes_on_and_another_search_is_refused(tmp_path):
    GuideFile(tmp_path, SETTINGS).end(BUDGET_SPENT, 0.01, {})
    assert GuideFile(tmp_path, {**SETTINGS, 'budget': 12}).reason is None
    with pytest.raises(ValueError, match=r'another guided search \(seed: 1 there, 2 now\)'):
        GuideFile(tmp_path, {**SETTINGS, 'seed': 2})


@pytest.mark.parametrize('content', ['', '[]', '{"sets": []}'])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / 'guide.json').write_text(content)
    with pytest.raises(ValueError, match=r'guide\.json is damaged'):
        GuideFile(tmp_path)
