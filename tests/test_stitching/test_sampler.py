"""Samplers against exact probabilities and counted draws; all draws are repeatable."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import timeit
from collections import Counter, namedtuple
from pathlib import Path

import pytest

from mmsnnet.stitching import sampler as sampler_module
from mmsnnet.stitching.sampler import (
    CostBinStitchSampler,
    FixedStitchSampler,
    SandwichStitchSampler,
    UniformStitchSampler,
)

ToyStitch = namedtuple('ToyStitch', 'id name family')


class ToySpace(list):
    """A list of stitches that finds them by name or id, as the real space does."""

    def __getitem__(self, key):
        for stitch in self:
            if key in (stitch.name, stitch.id):
                return stitch
        raise ValueError(f'Unknown stitch {key!r}.')


def toy_space():
    """The anchors and all single crossings of depths 12 and 24, with made-up costs."""
    named = ['S12', 'L24', *(f'S{k}-L{24 - 2 * k}' for k in range(1, 12))]
    named += [f'L{2 * k}-S{12 - k}' for k in range(1, 12)]
    space = ToySpace(ToyStitch(i, name, re.sub(r'\d', '', name)) for i, name in enumerate(named))
    layers = [
        [int(n) * (3 if c == 'L' else 1) for c, n in re.findall(r'(.)(\d+)', name)]
        for name in named
    ]
    return space, {name: int(1e9) * sum(each) for name, each in zip(named, layers)}


SPACE, FLOPS = toy_space()
EVERY_SAMPLER = [
    UniformStitchSampler(SPACE, FLOPS, seed=3),
    CostBinStitchSampler(SPACE, FLOPS, seed=3),
    CostBinStitchSampler(SPACE, FLOPS, seed=3, relative_bin_width=0.25),
    SandwichStitchSampler(SPACE, FLOPS, seed=3, stitches=['S-L', 'S12']),
    SandwichStitchSampler(SPACE, FLOPS, seed=3, num_random=0),
    FixedStitchSampler(SPACE, FLOPS, stitch='S5-L14', seed=3),
]
ids = [f'{type(s).__name__}{i}' for i, s in enumerate(EVERY_SAMPLER)]
every_sampler = pytest.mark.parametrize('sampler', EVERY_SAMPLER, ids=ids)


def names(sampler, steps, rank=0):
    return [sampler.sample(step, rank).name for step in steps]


@every_sampler
def test_probabilities_sum_to_one_over_the_listed_stitches(sampler):
    shares = sampler.probabilities()
    assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
    assert set(shares) == {stitch.name for stitch in sampler.stitches}


@every_sampler
def test_draws_occur_as_often_as_their_probabilities_say(sampler):
    count = 40_000
    drawn = Counter(names(sampler, range(count)))
    shares = {name: p for name, p in sampler.probabilities().items() if p}
    assert set(drawn) == set(shares)
    # Chi-square has mean n-1 and variance 2(n-1); 5 sigma cannot come from a right sampler.
    statistic = sum((drawn[n] - count * p) ** 2 / (count * p) for n, p in shares.items())
    degrees = len(shares) - 1
    assert statistic <= degrees + 5 * (2 * degrees) ** 0.5 + 1e-9


@every_sampler
def test_a_draw_depends_on_the_step_alone_and_not_on_earlier_draws(sampler):
    forward = names(sampler, range(200))
    assert names(sampler, reversed(range(200))) == forward[::-1]


@every_sampler
def test_the_global_generator_is_neither_read_nor_moved(sampler):
    random.seed(1)
    before, first = random.getstate(), names(sampler, range(20))
    assert random.getstate() == before
    random.seed(2)
    assert names(sampler, range(20)) == first


def test_the_draws_of_a_seed_are_pinned_for_good():
    # Runs are resumed and repeated by them: these values must never change.
    uniform = UniformStitchSampler(SPACE, FLOPS, seed=0)
    bins = CostBinStitchSampler(SPACE, FLOPS, seed=0)
    assert [s.id for s in map(uniform.sample, range(9))] == [21, 2, 1, 15, 8, 0, 18, 23, 6]
    assert [s.id for s in map(bins.sample, range(9))] == [1, 14, 11, 2, 17, 13, 4, 1, 8]


def test_another_process_with_another_hash_seed_draws_the_same():
    code = (
        'import collections, sys\n'
        f'sys.path.insert(0, {str(Path(sampler_module.__file__).parents[1])!r})\n'
        'from stitching import sampler as module\n'
        'T = collections.namedtuple("T", "id name family")\n'
        'space = [T(i, str(i), "A") for i in range(24)]\n'
        'sampler = module.UniformStitchSampler(space, {t.name: t.id for t in space}, seed=8)\n'
        'print(*(sampler.sample(step).id for step in range(50)))\n'
    )
    outputs = {
        subprocess.run(
            [sys.executable, '-I', '-S', '-c', code],
            env={'PYTHONHASHSEED': seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ('1', '2')
    }
    here = UniformStitchSampler(SPACE, FLOPS, seed=8)
    assert outputs == {' '.join(str(here.sample(step).id) for step in range(50)) + '\n'}


def test_seeds_give_different_sequences():
    sequences = {
        tuple(names(UniformStitchSampler(SPACE, FLOPS, seed=seed), range(20)))
        for seed in range(-10, 10)
    }
    assert len(sequences) == 20


def test_ranks_agree_by_default():
    sampler = CostBinStitchSampler(SPACE, FLOPS)
    assert names(sampler, range(100), rank=0) == names(sampler, range(100), rank=5)


def test_ranks_draw_independently_on_request():
    sampler = UniformStitchSampler(SPACE, FLOPS, per_rank=True)
    zero, one = (names(sampler, range(2000), rank=rank) for rank in (0, 1))
    agreeing = sum(a == b for a, b in zip(zero, one))
    assert 40 <= agreeing <= 130  # 2000 / 24 = 83 by chance, standard deviation 8.7
    assert zero == names(UniformStitchSampler(SPACE, FLOPS), range(2000))


def test_the_sandwich_goes_costliest_cheapest_then_random():
    sampler = SandwichStitchSampler(SPACE, FLOPS, num_random=3)
    drawn = names(sampler, range(500))
    assert set(drawn[0::5]) == {'L24'} and set(drawn[1::5]) == {'S12'}
    assert all(len(set(drawn[place::5])) > 20 for place in (2, 3, 4))


def test_as_many_ranks_as_the_cycle_make_a_whole_sandwich_in_every_step():
    sampler = SandwichStitchSampler(SPACE, FLOPS, num_random=2, per_rank=True)
    for step in range(20):
        together = [sampler.sample(step, rank).name for rank in range(4)]
        assert {'L24', 'S12'} <= set(together)


def test_a_sandwich_of_one_stitch_is_that_stitch():
    sampler = SandwichStitchSampler(SPACE, FLOPS, stitches=['S12'])
    assert sampler.probabilities() == {'S12': pytest.approx(1)}
    assert set(names(sampler, range(8))) == {'S12'}


@pytest.mark.parametrize('num_random', [-1, 1.5, True])
def test_a_wrong_number_of_random_draws_is_refused(num_random):
    with pytest.raises(ValueError, match=f'0 or more, got {num_random}'):
        SandwichStitchSampler(SPACE, FLOPS, num_random=num_random)


def test_the_fixed_sampler_takes_a_name_or_an_id():
    for key in ('S5-L14', SPACE['S5-L14'].id):
        assert set(names(FixedStitchSampler(SPACE, FLOPS, stitch=key), range(9))) == {'S5-L14'}


def test_a_fixed_stitch_outside_the_listed_ones_is_refused():
    with pytest.raises(ValueError, match="'L24' is not among"):
        FixedStitchSampler(SPACE, FLOPS, stitch='L24', stitches=['S-L'])


def test_names_and_families_restrict_the_draws():
    sampler = UniformStitchSampler(SPACE, FLOPS, stitches=['S12', 'S-L'])
    expected = {s.name for s in SPACE if s.family == 'S-L'} | {'S12'}
    assert set(names(sampler, range(2000))) == expected and len(expected) == 12


def test_a_single_family_may_be_given_without_a_list():
    sampler = UniformStitchSampler(SPACE, FLOPS, stitches='S-L')
    assert len(sampler.stitches) == 11


def test_costs_are_needed_for_listed_stitches_only():
    only = {'S12': FLOPS['S12']}
    assert UniformStitchSampler(SPACE, only, stitches=['S12']).sample(0).name == 'S12'
    with pytest.raises(ValueError, match='no entry for 23 stitches'):
        UniformStitchSampler(SPACE, only)


@pytest.mark.parametrize('entry', ['S5-L15', 'S5L14', 'M', 7, ['S12']])
def test_an_unknown_entry_is_named_with_what_is_allowed(entry):
    with pytest.raises(ValueError) as error:
        UniformStitchSampler(SPACE, FLOPS, stitches=['S12', entry])
    assert repr(entry) in str(error.value)
    assert '(S, L, S-L, L-S)' in str(error.value)


def test_a_near_miss_gets_the_closest_names():
    with pytest.raises(ValueError, match=r'closest: .*S5-L14'):
        UniformStitchSampler(SPACE, FLOPS, stitches=['S5L14'])


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match='stitches is empty'):
        UniformStitchSampler(SPACE, FLOPS, stitches=[])


def test_a_negative_step_is_refused():
    with pytest.raises(ValueError, match='0 or more, got -1'):
        UniformStitchSampler(SPACE, FLOPS).sample(-1)


def test_a_draw_takes_less_than_30_microseconds():
    sampler = CostBinStitchSampler(SPACE, FLOPS)
    best = min(timeit.repeat(lambda: sampler.sample(12_345), number=200, repeat=10)) / 200
    assert best < 30e-6


@pytest.mark.parametrize(
    ('kind', 'settings', 'message'),
    [
        (UniformStitchSampler, dict(seed='x'), "seed must be an integer, got 'x'"),
        (UniformStitchSampler, dict(seed=1.0), r'seed must be an integer, got 1\.0'),
        (FixedStitchSampler, dict(stitch='S12', seed=True), 'seed must be an integer, got True'),
        (UniformStitchSampler, dict(per_rank='no'), "per_rank must be True or False, got 'no'"),
        (UniformStitchSampler, dict(stitches=5), 'stitches must be a list of names .* got 5'),
        (CostBinStitchSampler, dict(bin_width='10'), "bin_width must be a number, got '10'"),
        (CostBinStitchSampler, dict(bin_width=True), 'bin_width must be a number, got True'),
        (CostBinStitchSampler, dict(relative_bin_width='x'), 'relative_bin_width must be a number'),
    ],
)
def test_values_of_another_type_are_refused_by_their_name(kind, settings, message):
    with pytest.raises(TypeError, match=message) as raised:
        kind(SPACE, FLOPS, **settings)
    assert '\n' not in str(raised.value)


def test_a_generator_of_names_is_read_once():
    sampler = UniformStitchSampler(SPACE, FLOPS, stitches=(name for name in ('S12', 'L24')))
    assert [stitch.name for stitch in sampler.stitches] == ['S12', 'L24']


def test_negative_seeds_are_seeds():
    one, other = (UniformStitchSampler(SPACE, FLOPS, seed=seed) for seed in (-3, 3))
    assert [one.sample(step) for step in range(8)] != [other.sample(step) for step in range(8)]
