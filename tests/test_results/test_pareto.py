"""Front, domination, hypervolume and choice against brute force and published results."""

from __future__ import annotations

import math
import random

import pytest

from mmsnnet.results.pareto import (
    Point,
    best_under,
    cheapest_above,
    dominated,
    dominates,
    hypervolume,
    knee_point,
    pareto_front,
)

# GFLOPs and mIoU (%) of the 134 stitches of DeiT3-S + DeiT3-L with a SETR head on ADE20K, as
# published by the authors of SN-Netv2, in the order of their ids (0 to 134; 13 does not exist).
ADE20K = """
33.523:45.57 363.157:51.35 335.562:50.76 308.067:50.69 280.573:49.93 253.078:49.28 225.986:47.92
198.491:46.54 170.996:45.45 143.502:45.05 116.007:43.93 88.512:45.39 61.017:44.81 61.924:45.35
89.418:45.49 116.913:46.0 144.408:46.94 171.500:47.68 198.995:48.78 226.489:49.38 253.984:49.25
281.479:49.82 308.974:49.38 336.469:48.44 336.469:50.74 308.974:49.89 281.479:49.08 254.387:47.74
226.892:46.38 199.398:45.51 171.903:45.03 144.408:43.82 116.913:45.26 89.418:44.45 336.469:50.02
308.974:49.64 281.882:48.27 254.387:46.83 226.892:45.94 199.398:45.4 171.903:44.0 144.408:45.38
116.913:44.57 336.469:49.85 309.377:48.6 281.882:47.38 254.387:46.23 226.892:45.71 199.398:44.82
171.903:45.71 144.408:45.18 336.872:49.3 309.377:48.32 281.882:46.77 254.387:46.52 226.892:45.39
199.398:46.62 171.903:45.99 336.469:48.97 308.974:47.82 281.479:46.84 253.984:46.19 226.489:47.27
198.995:46.5 336.469:48.19 308.974:47.79 281.479:47.05 253.984:48.04 226.489:47.45 336.469:48.44
308.974:48.02 281.479:48.66 253.984:48.35 336.469:47.18 308.974:48.24 281.479:48.06 336.469:48.76
308.974:48.35 336.469:47.15 61.823:44.84 89.318:45.52 116.813:46.5 143.905:46.9 171.400:47.89
198.894:48.9 226.389:48.94 253.884:49.12 281.379:48.89 308.874:47.9 61.823:45.7 89.318:46.75
116.410:46.93 143.905:48.11 171.400:49.01 198.894:48.62 226.389:49.23 253.884:48.95 281.379:47.92
61.823:45.54 88.915:46.0 116.410:46.88 143.905:48.04 171.400:47.85 198.894:48.49 226.389:48.24
253.884:47.3 61.420:45.28 88.915:46.23 116.410:47.66 143.905:47.37 171.400:48.24 198.894:47.7
226.389:46.62 61.823:44.95 89.318:46.13 116.813:45.91 144.308:46.67 171.803:46.15 199.297:45.29
61.823:44.02 89.318:44.15 116.813:44.63 144.308:44.73 171.803:44.1 61.823:42.51 89.318:43.03
116.813:44.09 144.308:42.87 61.823:42.88 89.318:43.45 116.813:42.2 61.823:41.65 89.318:40.86
61.823:42.34
"""


def published():
    """Published results as points named by their published id."""
    ids = [number for number in range(135) if number != 13]
    pairs = [entry.split(':') for entry in ADE20K.split()]
    return [Point(str(i), float(c), float(q)) for i, (c, q) in zip(ids, pairs)]


def random_points(rng, count, levels=None):
    """Points with costs and qualities in [0, 1]; few levels make many ties."""
    draw = rng.random if levels is None else (lambda: rng.randrange(levels + 1) / levels)
    return [Point(f'p{i}', draw(), draw()) for i in range(count)]


def beats(one, other, sign):
    one, other = (one.cost, -sign * one.quality), (other.cost, -sign * other.quality)
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def brute_front(points, sign):
    """Points that no other beats, without later duplicates, from cheap to costly."""
    kept = [p for p in points if not any(beats(q, p, sign) for q in points)]
    seen = {}
    for point in kept:
        seen.setdefault((point.cost, point.quality), point)
    return sorted(seen.values(), key=lambda p: p.cost)


def many_sets():
    rng = random.Random(11)
    for count in (0, 1, 2, 3, 8, 40, 134):
        for levels in (None, 3, 12):
            for direction, sign in (('greater', 1), ('less', -1)):
                yield random_points(rng, count, levels), direction, sign


def test_the_front_is_that_of_brute_force():
    for points, direction, sign in many_sets():
        assert pareto_front(points, direction) == brute_front(points, sign)


def test_dominated_points_are_those_of_brute_force():
    for points, direction, sign in many_sets():
        expected = [p for p in points if any(beats(q, p, sign) for q in points)]
        assert dominated(points, direction) == expected


def test_of_equal_points_the_front_keeps_the_first():
    points = [Point('c', 2, 1), Point('b', 1, 5), Point('a', 1, 5)]
    assert pareto_front(points) == [Point('b', 1, 5)]
    assert dominated(points) == [Point('c', 2, 1)]


def test_of_equal_costs_the_front_keeps_the_better():
    points = [Point('a', 1, 5), Point('b', 1, 6), Point('c', 1, 4)]
    assert [p.name for p in pareto_front(points)] == ['b']
    assert [p.name for p in pareto_front(points, 'less')] == ['c']


def test_a_point_does_not_dominate_its_equal():
    assert not dominates(Point('a', 1, 1), Point('b', 1, 1))
    assert dominates(Point('a', 1, 2), Point('b', 1, 1))
    assert dominates(Point('a', 1, 1), Point('b', 1, 2), 'less')


def test_a_nan_quality_is_dominated_by_any_number():
    broken, fine = Point('broken', 1, math.nan), Point('fine', 9, 0.1)
    assert pareto_front([broken, fine]) == [fine]
    assert dominated([broken, fine]) == [broken]
    assert pareto_front([broken]) == dominated([broken]) == []
    assert best_under([broken, fine], 10) == fine


def test_a_nan_cost_is_refused():
    for call in (pareto_front, dominated):
        with pytest.raises(ValueError, match="cost of 'x' is NaN"):
            call([Point('x', math.nan, 1)])


def test_an_unknown_direction_is_refused():
    for call in (pareto_front, dominated):
        with pytest.raises(ValueError, match="'greater' or 'less', got 'max'"):
            call([], 'max')


def grid_hypervolume(points, max_cost, worst, best, steps):
    """Share of the cells of a grid whose centre some point dominates."""
    inside = 0
    for i in range(steps):
        cost = (i + 0.5) / steps * max_cost
        gains = [(p.quality - worst) / (best - worst) for p in points if p.cost <= cost]
        height = max(gains, default=0)
        inside += sum((j + 0.5) / steps < height for j in range(steps))
    return inside / steps**2


@pytest.mark.parametrize(('worst', 'best'), [(0.0, 1.0), (1.0, 0.0), (0.2, 1.5), (0.7, 0.0)])
def test_the_hypervolume_is_the_share_of_dominated_grid_cells(worst, best):
    rng = random.Random(21)
    for count in (1, 2, 5, 30):
        points = random_points(rng, count)
        got = hypervolume(points, max_cost=1.25, worst=worst, best=best)
        grid = grid_hypervolume(points, 1.25, worst, best, steps=200)
        assert got == pytest.approx(grid, abs=2 / 200)


def test_the_hypervolume_is_exact_on_a_case_done_by_hand():
    points = [Point('a', 20, 40), Point('b', 50, 60), Point('c', 60, 50), Point('d', 100, 90)]
    # (0.5 - 0.2) * 0.4 + (1 - 0.5) * 0.6; the costliest stitch adds nothing.
    assert hypervolume(points, max_cost=100, worst=0, best=100) == pytest.approx(0.42, abs=1e-15)


def test_the_hypervolume_spans_0_to_1():
    bounds = dict(max_cost=7, worst=5, best=0)
    assert hypervolume([], **bounds) == 0
    assert hypervolume([Point('bad', 0, 5), Point('awful', 1, 8)], **bounds) == 0
    assert hypervolume([Point('perfect', 0, 0)], **bounds) == 1


def test_the_hypervolume_does_not_depend_on_units():
    points = random_points(random.Random(2), 30)
    scaled = [Point(p.name, p.cost * 4e11, 100 * p.quality) for p in points]
    one = hypervolume(points, max_cost=1, worst=0, best=1)
    assert hypervolume(scaled, max_cost=4e11, worst=0, best=100) == pytest.approx(one, rel=1e-12)


def test_a_better_point_raises_the_hypervolume_and_a_dominated_one_does_not():
    points = [Point('a', 2, 4), Point('b', 5, 6)]
    bounds = dict(max_cost=10, worst=0, best=10)
    base = hypervolume(points, **bounds)
    assert hypervolume([*points, Point('c', 5, 5)], **bounds) == base
    assert hypervolume([*points, Point('c', 3, 5)], **bounds) == pytest.approx(base + 0.02)
    assert hypervolume([*points, Point('c', 3, math.nan)], **bounds) == base


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (dict(max_cost=1.5), r"'p' costs 2, more than max_cost=1.5"),
        (dict(best=1), r"'p' has quality 3, beyond best=1"),
        (dict(worst=9, best=9), 'finite and differ'),
        (dict(worst=math.inf), 'finite and differ'),
        (dict(max_cost=0), 'positive and finite, got 0'),
        (dict(max_cost=math.nan), 'positive and finite, got nan'),
    ],
)
def test_bounds_that_do_not_fit_are_refused(changed, message):
    bounds = {**dict(max_cost=10, worst=0, best=5), **changed}
    with pytest.raises(ValueError, match=message):
        hypervolume([Point('p', 2, 3)], **bounds)


def test_best_under_is_the_best_affordable_point_of_brute_force():
    for points, direction, sign in many_sets():
        for budget in (0.0, 0.25, 0.5, 1.0):
            fitting = [p for p in points if p.cost <= budget]
            if fitting:
                expected = min(fitting, key=lambda p: (-sign * p.quality, p.cost))
                assert best_under(points, budget, direction) == expected


def test_cheapest_above_is_the_cheapest_good_enough_point_of_brute_force():
    for points, direction, sign in many_sets():
        for bound in (0.0, 0.25, 0.5, 1.0):
            fitting = [p for p in points if sign * p.quality >= sign * bound]
            if fitting:
                expected = min(fitting, key=lambda p: (p.cost, -sign * p.quality))
                assert cheapest_above(points, bound, direction) == expected


def test_a_demand_that_no_point_meets_names_the_nearest():
    points = [Point('S12', 3, 40), Point('L24', 9, 50)]
    with pytest.raises(ValueError, match=r'at most 2; the least is 3 \(S12\)'):
        best_under(points, 2)
    with pytest.raises(ValueError, match=r'as good as 51; the best is 50 \(L24\)'):
        cheapest_above(points, 51)
    with pytest.raises(ValueError, match=r'as good as 39; the best is 40 \(S12\)'):
        cheapest_above(points, 39, 'less')


@pytest.mark.parametrize('choose', [best_under, cheapest_above])
def test_nothing_can_be_chosen_from_no_points(choose):
    with pytest.raises(ValueError, match='no points with a quality'):
        choose([Point('x', 1, math.nan)], 1)


def test_13_of_134_published_ade20k_results_are_on_the_front():
    points = published()
    assert len(points) == 134
    front = [int(point.name) for point in pareto_front(points)]
    assert front == [0, 90, 108, 91, 109, 93, 94, 96, 20, 4, 3, 2, 1]
    assert len(dominated(points)) == 121


def test_40_published_stitches_cost_more_than_the_small_anchor_and_score_below_it():
    small, *others = published()
    beaten = [p for p in others if dominates(small, p)]
    assert len(beaten) == 40
    assert min(p.quality for p in beaten) == 40.86


def test_choices_among_the_published_results():
    points = published()
    assert best_under(points, 100).name == '91'
    assert cheapest_above(points, 50).name == '3'
    assert cheapest_above(points, 45.57).name == '0'


@pytest.mark.parametrize(('direction', 'sign'), [('greater', 1), ('less', -1)])
def test_the_knee_is_the_point_of_the_front_farthest_from_the_chord(direction, sign):
    rng = random.Random(5)
    for _ in range(60):
        points = [Point(p.name, p.cost * 7e9, sign * (3 + 40 * p.quality))
                  for p in random_points(rng, 30)]
        front = pareto_front(points, direction)
        if len(front) < 3:
            continue
        # Distance from the line through both ends, in the plane scaled to the unit square.
        xs = [(p.cost - front[0].cost) / (front[-1].cost - front[0].cost) for p in front]
        ys = [(p.quality - front[0].quality) / (front[-1].quality - front[0].quality)
              for p in front]
        heights = [(y - x) / math.sqrt(2) for x, y in zip(xs, ys)]
        assert front.index(knee_point(points, direction)) == heights.index(max(heights))


def test_the_knee_of_a_bend_is_its_corner():
    points = [Point(f'p{x}', x, min(x, 4) + x / 100) for x in range(11)]
    assert knee_point(points).name == 'p4'


def test_a_front_without_a_bend_has_its_cheapest_point_as_knee():
    bowl = [Point(f'p{x}', x, x * x) for x in range(5)]
    assert knee_point(bowl).name == 'p0'
    assert knee_point(bowl[:2]).name == 'p0'
    with pytest.raises(ValueError, match='no points'):
        knee_point([Point('a', 1, math.nan)])
