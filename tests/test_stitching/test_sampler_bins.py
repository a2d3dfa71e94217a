"""Bins of cost against the published S+L space and an independent grouping."""

from __future__ import annotations

import random
from collections import namedtuple

import pytest

from mmsnnet.stitching.sampler import CostBinStitchSampler

ToyStitch = namedtuple('ToyStitch', 'id name family')


def published_flops(segments):
    """FLOPs of a DeiT3-S + DeiT3-L route at 512 px with a SETR head, as published.

    512 px make 32 x 32 patches and a class token. The published count holds lifts only at the
    first and the last tap (large blocks 9 and 23, small blocks 4 and 11).
    """
    tokens, patches, width = 1025, 1024, {'S': 384, 'L': 1024}
    cross = tokens * width['S'] * width['L']
    total = 920_125_440 + patches * 3 * 16**2 * width[segments[0][0]]
    total += cross * (len(segments) - 1)
    for label, start, stop in segments:
        c = width[label]
        block = 12 * tokens * c**2 + 2 * tokens**2 * c + 10 * tokens * c
        total += block * (stop - start)
        if label == 'S':
            total += cross * sum(tap in range(start, stop) for tap in (4, 11))
    return total


def published_space():
    """The 134 routes of depths 12 and 24, cut after k small = 2k large blocks, with FLOPs."""
    cuts = range(1, 12)
    routes = [[('S', 0, 12)], [('L', 0, 24)]]
    routes += [[('S', 0, k), ('L', 2 * k, 24)] for k in cuts]
    routes += [[('L', 0, 2 * k), ('S', k, 12)] for k in cuts]
    pairs = [(j, k) for j in cuts for k in cuts if j < k]
    routes += [[('L', 0, 2 * j), ('S', j, k), ('L', 2 * k, 24)] for j, k in pairs]
    routes += [[('S', 0, j), ('L', 2 * j, 2 * k), ('S', k, 12)] for j, k in pairs]
    space, flops = [], {}
    for number, segments in enumerate(routes):
        name = '-'.join(f'{label}{stop - start}' for label, start, stop in segments)
        space.append(ToyStitch(number, name, '-'.join(segment[0] for segment in segments)))
        flops[name] = published_flops(segments)
    return space, flops


SPACE, FLOPS = published_space()
TOY = [ToyStitch(i, n, n[0]) for i, n in enumerate(['A1', 'A2', 'B1', 'B2', 'B3'])]
TOY_FLOPS = {'A1': int(5e9), 'A2': int(1e9), 'B1': int(2e9), 'B2': int(9e9), 'B3': int(3e9)}


def test_the_closed_form_gives_published_costs():
    assert len(SPACE) == len(FLOPS) == 134
    expected = {
        'S12': 33_522_505_728,
        'L24': 363_157_291_008,
        'S5-L14': 225_986_083_328,
        'L2-S11': 61_923_665_408,
        'L8-S1-L14': 336_871_633_408,
        'S10-L2-S1': 61_823_395_328,
    }
    assert {name: FLOPS[name] for name in expected} == expected


def test_the_published_space_falls_into_bins_of_1_then_11_times_12_then_1():
    bins = CostBinStitchSampler(SPACE, FLOPS).bins
    assert [len(group) for group in bins] == [1] + [12] * 11 + [1]
    assert (bins[0][0].name, bins[-1][0].name) == ('S12', 'L24')


def test_anchors_of_the_published_space_get_a_thirteenth_each_and_others_a_156th():
    shares = CostBinStitchSampler(SPACE, FLOPS, bin_width=10.0).probabilities()
    assert shares.pop('S12') == shares.pop('L24') == pytest.approx(1 / 13)
    assert set(shares.values()) == {1 / 156} and len(shares) == 132


def test_bins_match_an_independent_grouping_on_random_costs():
    rng = random.Random(5)
    for _ in range(50):
        flops = {s.name: rng.randrange(int(1e9), int(90e9)) for s in SPACE}
        width = rng.uniform(0.5, 30)
        left, expected = set(flops), []
        while left:
            low = min(flops[name] for name in left)
            expected.append({n for n in left if low <= flops[n] <= low + width * 1e9})
            left -= expected[-1]
        bins = CostBinStitchSampler(SPACE, flops, bin_width=width).bins
        assert [{s.name for s in group} for group in bins] == expected


def test_a_stitch_exactly_one_width_above_the_opening_one_joins_its_bin():
    bins = CostBinStitchSampler(TOY, TOY_FLOPS, bin_width=1.0).bins
    assert [[s.name for s in group] for group in bins] == [['A2', 'B1'], ['B3'], ['A1'], ['B2']]


def test_a_relative_width_is_a_fraction_of_the_range_of_costs():
    relative = CostBinStitchSampler(TOY, TOY_FLOPS, relative_bin_width=0.25)
    assert relative.bins == CostBinStitchSampler(TOY, TOY_FLOPS, bin_width=2.0).bins
    assert len(CostBinStitchSampler(TOY, TOY_FLOPS, relative_bin_width=1.0).bins) == 1


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(bin_width=10, relative_bin_width=0.1), 'not both'),
        (dict(bin_width=0), 'positive number of GFLOPs, got 0'),
        (dict(bin_width=float('nan')), 'got nan'),
        (dict(bin_width=float('inf')), 'got inf'),
        (dict(relative_bin_width=10.0), r'\(0, 1\], got 10.0'),
        (dict(relative_bin_width=0), r'\(0, 1\], got 0'),
    ],
)
def test_widths_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CostBinStitchSampler(SPACE, FLOPS, **options)
