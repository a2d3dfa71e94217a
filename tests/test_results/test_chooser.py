"""Answers of the chooser against a look at every stitch."""

from __future__ import annotations

import math
import random

import pytest

from mmsnnet.results.candidate import Candidate
from mmsnnet.results.chooser import Chooser

AXES = ('gflops', 'params', 'ms', 'mb')


def make(count, seed, levels=9):
    """Candidates with few distinct values, so that many tie; a tenth of them have no quality."""
    rng = random.Random(seed)

    def draw():
        return float(rng.randint(1, levels))

    return [
        Candidate(
            name=f's{i}',
            family='S-L',
            flops=int(draw() * 1e9),
            params=int(draw() * 1e6),
            quality=math.nan if rng.random() < 0.1 else draw(),
            ms=draw(),
            mb=draw(),
        )
        for i in range(count)
    ]


def costs(one):
    return dict(gflops=one.flops / 1e9, params=one.params / 1e6, ms=one.ms, mb=one.mb)


@pytest.mark.parametrize(('rule', 'sign'), [('greater', 1), ('less', -1)])
def test_the_best_within_limits_is_that_of_a_look_at_every_stitch(rule, sign):
    rng = random.Random(3)
    refused = 0
    for seed in range(150):
        chooser = Chooser(make(12, seed), 'mIoU', rule)
        limits = {axis: rng.uniform(1, 9) for axis in rng.sample(AXES, rng.randint(1, 3))}
        fitting = [
            one
            for one in chooser.candidates
            if one.quality == one.quality and all(costs(one)[a] <= x for a, x in limits.items())
        ]
        if not fitting:
            refused += 1
            with pytest.raises(ValueError, match='within'):
                chooser.within(**limits)
            continue
        best = max(sign * one.quality for one in fitting)
        least = min(one.flops for one in fitting if sign * one.quality == best)
        expected = [o for o in fitting if sign * o.quality == best and o.flops == least]
        assert chooser.within(**limits) is expected[0]
    assert 0 < refused < 100


@pytest.mark.parametrize('axis', AXES)
def test_the_cheapest_that_is_good_enough_is_that_of_a_look_at_every_stitch(axis):
    for seed in range(40):
        chooser = Chooser(make(12, seed), 'mIoU')
        good = [one for one in chooser.candidates if one.quality >= 6]
        if good:
            least = min(costs(one)[axis] for one in good)
            best = max(one.quality for one in good if costs(one)[axis] == least)
            answer = chooser.reaching(6, axis)
            assert (costs(answer)[axis], answer.quality) == (least, best)


@pytest.mark.parametrize('axis', AXES)
def test_a_stitch_is_dominated_if_another_is_nowhere_worse_and_somewhere_better(axis):
    for seed in range(20):
        chooser = Chooser(make(15, seed), 'mIoU', 'less')

        def beaten(one, chooser=chooser):
            scored = [o for o in chooser.candidates if o.quality == o.quality]
            if one not in scored:
                return True
            own = costs(one)[axis], one.quality
            rivals = [(costs(o)[axis], o.quality) for o in scored]
            return any(r != own and r[0] <= own[0] and r[1] <= own[1] for r in rivals)

        assert chooser.dominated(axis) == [one for one in chooser.candidates if beaten(one)]
        front = chooser.front(axis)
        assert all(not beaten(one) for one in front)
        assert [costs(one)[axis] for one in front] == sorted(costs(one)[axis] for one in front)


def test_without_a_metric_a_budget_takes_the_most_flops_it_allows():
    candidates = [Candidate(f's{g}', 'S', g * 10**9, 10**6 * (9 - g)) for g in (3, 1, 5, 7)]
    chooser = Chooser(candidates)
    assert chooser.within(gflops=6).name == 's5'
    assert chooser.within(params=6.5).name == 's7'
    assert chooser.within(gflops=6, params=5).name == 's5'


def test_an_unattainable_budget_names_the_cheapest_on_each_axis():
    chooser = Chooser(make(12, 0), 'mIoU')
    low = {a: min(chooser.candidates, key=lambda one: costs(one)[a]) for a in ('gflops', 'ms')}
    with pytest.raises(ValueError) as error:
        chooser.within(gflops=0.25, ms=0.5)
    assert str(error.value) == (
        f'No stitch keeps within 0.25 GFLOPs and 0.5 ms; the cheapest is {low["gflops"].name} with '
        f'{low["gflops"].flops / 1e9:g} GFLOPs, {low["ms"].name} with {low["ms"].ms:g} ms.'
    )


def test_a_cost_that_was_not_measured_is_asked_for():
    known = Candidate('a', 'S', 1, 1, 1.0, ms=1.0)
    chooser = Chooser([known, Candidate('b', 'S', 1, 1, 1.0)], 'm')
    for ask in (lambda: chooser.within(ms=3), lambda: chooser.front('ms')):
        with pytest.raises(ValueError, match=r'ms of 1 of 2 stitches \(such as b\).*latency=FILE'):
            ask()


@pytest.mark.parametrize(
    ('ask', 'message'),
    [
        (lambda c: c.within(), 'Give a limit: gflops='),
        (lambda c: c.within(gflops=None), 'Give a limit'),
        (lambda c: c.within(seconds=1), "Unknown cost 'seconds'; choose one of gflops"),
        (lambda c: c.reaching(99), 'None is as good as 99'),
        (lambda c: c['x'], "Nothing is known of the stitch 'x'"),
        (lambda c: Chooser([]), 'no stitches to choose from'),
        (lambda c: Chooser(c.candidates).front(), 'give the results folder'),
    ],
)
def test_what_cannot_be_answered_is_said(ask, message):
    with pytest.raises(ValueError, match=message):
        ask(Chooser(make(12, 0), 'mIoU'))


def test_a_budget_that_only_unscored_stitches_keep_has_no_answer():
    candidates = [Candidate('a', 'S', 10**9, 1), Candidate('b', 'L', 10**10, 1, 3.0)]
    with pytest.raises(ValueError, match='None of the stitches within the budget has a mIoU'):
        Chooser(candidates, 'mIoU').within(gflops=2)


@pytest.mark.parametrize('call', ['front', 'dominated', 'knee'])
def test_where_no_stitch_has_a_value_it_is_said_in_one_line(call):
    chooser = Chooser([Candidate(f'S{i}', 'S', i, i) for i in range(3)], 'mIoU')
    with pytest.raises(ValueError, match='None of the 3 stitches has a value of mIoU') as error:
        getattr(chooser, call)()
    assert '\n' not in str(error.value)
