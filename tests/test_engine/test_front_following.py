"""Which stitches a validation scores, from what validations before it found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmsnnet.engine.front_following import FollowOptions, FrontFollowing, Validation
from mmsnnet.results.pareto import Point, hypervolume, pareto_front
from mmsnnet.stitching import AnchorSpec, CostTable, StitchSpace
from tools.benchmark._front_spaces import PUBLISHED_MIOU

ANCHORS = ('S12', 'L24')


@pytest.fixture(scope='module')
def costs():
    anchors = [AnchorSpec.plain_vit(12, 384), AnchorSpec.plain_vit(24, 1024)]
    space = StitchSpace(anchors, (9, 14, 19, 23))
    table = CostTable(space, (512, 512))
    return {stitch.name: table[stitch].flops for stitch in space}


def follow(costs, value_at, count, rule='greater', **settings):
    """Validations of a training whose stitches have values by name and number of validation."""
    following = FrontFollowing(costs, ANCHORS, rule, FollowOptions(**settings))
    validations = []
    for number in range(count):
        names = following.choose(validations)
        values = {name: value_at(name, number) for name in names}
        validations.append(Validation(number * 100, values))
    return validations


@pytest.fixture(scope='module')
def learning(costs):
    """Published mIoU that a training approaches, with noise that each validation draws anew."""
    published = dict(zip(costs, PUBLISHED_MIOU))

    def value_at(name, number):
        noise = np.random.default_rng([number, list(costs).index(name)]).normal(0, 0.1)
        return published[name] * (1 - 0.5 * math.exp(-number / 8)) + noise

    return published, value_at


def test_the_first_validation_takes_the_anchors_and_is_spread_over_the_costs(costs):
    (first,) = follow(costs, lambda *_: 1.0, 1, max_forwards=9)
    assert len(first.values) == 9
    assert set(ANCHORS) <= first.values.keys()
    found = sorted(costs[name] for name in first.values)
    whole = found[-1] - found[0]
    assert whole == max(costs.values()) - min(costs.values())
    assert max(b - a for a, b in zip(found, found[1:])) < 0.3 * whole


@pytest.mark.parametrize('settings', [dict(), dict(max_forwards=20, explorers=0, seed=4)])
def test_each_validation_spends_its_budget_anchors_included_and_in_the_order_of_ids(
    costs, learning, settings
):
    for validation in follow(costs, learning[1], 30, **settings):
        assert len(validation.values) == settings.get('max_forwards', 12)
        assert set(ANCHORS) <= validation.values.keys()
        assert list(validation.values) == [name for name in costs if name in validation.values]


def test_the_choice_depends_on_the_validations_and_the_seed_alone(costs, learning):
    one, again, other = (
        [list(one.values) for one in follow(costs, learning[1], 12, seed=seed)]
        for seed in (1, 1, 2)
    )
    assert one == again != other


@pytest.mark.parametrize('seed', range(5))
def test_the_front_of_a_model_that_learns_is_found_and_kept(costs, learning, seed):
    published, value_at = learning
    validations = follow(costs, value_at, 40, max_forwards=24, explorers=4, seed=seed)
    bounds = dict(max_cost=max(costs.values()), worst=0.0, best=100.0)
    everything = [Point(name, costs[name], value) for name, value in published.items()]
    last = [point for point in everything if point.name in validations[-1].values]
    assert hypervolume(last, **bounds) > 0.995 * hypervolume(everything, **bounds)
    front = {point.name for point in pareto_front(everything)}
    assert len(front & validations[-1].values.keys()) > 0.7 * len(front)


def test_all_stitches_have_their_turn(costs, learning):
    validations = follow(costs, learning[1], 60, max_forwards=12, explorers=5)
    assert {name for one in validations for name in one.values} == set(costs)


COSTS = {name: cost for cost, name in enumerate(['S12', 'A', 'B', 'C', 'D', 'E', 'L24'])}


def chosen(*found, rule='greater', **settings):
    """What is chosen from COSTS after validations that found values by name."""
    following = FrontFollowing(COSTS, ANCHORS, rule, FollowOptions(**settings))
    return following.choose([Validation(number, one) for number, one in enumerate(found)])


def test_older_values_are_carried_forward_by_what_the_others_gained():
    before = dict(S12=10.0, A=9.0, B=14.0, C=9.0, D=8.0, E=7.0, L24=15.0)
    # B's 14 of then are below the 30 of S12 now; 34, if it gained what S12 and L24 did.
    after = dict(S12=30.0, L24=36.0)
    assert chosen(before, after, max_forwards=3, explorers=0) == ('S12', 'B', 'L24')


def test_what_is_better_may_be_less():
    values = dict(S12=0.5, A=0.6, B=0.3, C=0.6, D=0.6, E=0.7, L24=0.2)
    settings = dict(max_forwards=3, explorers=0)
    assert chosen(values, rule='less', **settings) == ('S12', 'B', 'L24')
    minus = {name: -value for name, value in values.items()}
    assert chosen(minus, **settings) == ('S12', 'B', 'L24')


def test_the_oldest_of_a_front_that_does_not_fit_comes_first():
    rising = dict(zip(COSTS, (10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0)))
    then = {name: rising[name] for name in ('S12', 'A', 'B', 'L24')}
    now = {name: value for name, value in rising.items() if name not in ('A', 'B')}
    settings = dict(max_forwards=4, explorers=0)
    assert chosen(then, now, **settings) == ('S12', 'A', 'B', 'L24')
    assert chosen(now, then, **settings) == ('S12', 'C', 'D', 'L24')


def test_explorers_are_off_the_front_and_near_it():
    values = dict(S12=10.0, A=14.0, B=13.9, C=12.0, D=15.0, E=14.8, L24=20.0)
    # Of the front (A, D) one has no room; E is 0.2 below D, B is 0.1 below A.
    assert chosen(values, max_forwards=4, explorers=1) == ('S12', 'A', 'B', 'L24')
    assert chosen(values, max_forwards=5, explorers=2) == ('S12', 'A', 'B', 'E', 'L24')


def test_a_value_that_is_older_may_have_wandered_farther():
    old = dict(S12=10.0, A=14.0, B=13.0, L24=20.0)
    later = dict(S12=10.0, A=14.0, C=13.5, D=9.0, E=9.0, L24=20.0)
    # B is 1 below the front since 6 validations (0.41), C 0.5 below since one.
    found = [old, *[dict(S12=10.0, A=14.0, L24=20.0)] * 4, later]
    assert chosen(*found, max_forwards=4, explorers=1) == ('S12', 'A', 'B', 'L24')
    assert chosen(*found[:1], later, max_forwards=4, explorers=1) == ('S12', 'A', 'C', 'L24')


def test_a_stitch_without_a_value_is_never_of_the_front_and_tried_again_last():
    values = dict(S12=10.0, A=math.nan, B=9.0, C=8.0, D=7.0, E=6.0, L24=20.0)
    settings = dict(explorers=1)
    for budget in range(3, 7):
        assert 'A' not in chosen(values, max_forwards=budget, **settings)
    assert 'A' in chosen(values, max_forwards=7, **settings)


def test_a_small_space_is_scored_whole():
    assert chosen(max_forwards=50) == tuple(COSTS)


@pytest.mark.parametrize(
    ('settings', 'error', 'message'),
    [
        (dict(max_forwards=4), ValueError, 'too few for 2 anchors and 3 explorers: give 5'),
        (dict(explorers=-1), ValueError, 'front.explorers must be 0 or more, got -1'),
        (dict(seed=1.5), TypeError, 'front.seed must be an integer, got 1.5'),
        (dict(max_forwards=True), TypeError, 'front.max_forwards must be an integer, got True'),
        (dict(budget=3), ValueError, 'front has no budget: it takes max_forwards, explorers, seed'),
    ],
)
def test_impossible_settings_are_named(settings, error, message):
    with pytest.raises(error, match=message):
        FrontFollowing(COSTS, ANCHORS, 'greater', FollowOptions.of(settings))
