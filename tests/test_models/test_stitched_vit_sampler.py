"""Building samplers for a backbone."""

from __future__ import annotations

import pytest

from mmsnnet.models import build_sampler
from mmsnnet.stitching.sampler import (
    CostBinStitchSampler,
    FixedStitchSampler,
    SandwichStitchSampler,
    UniformStitchSampler,
)
from tests.builders import tiny_backbone


def test_the_default_samples_bins_of_three_hundredths_of_the_range():
    backbone = tiny_backbone()
    expected = CostBinStitchSampler(backbone.space, backbone.costs.flops, relative_bin_width=0.03)
    assert build_sampler(backbone).probabilities() == expected.probabilities()
    assert backbone.sampler.probabilities() == expected.probabilities()
    assert [backbone.sampler.sample(i) for i in range(20)] == [
        expected.sample(i) for i in range(20)
    ]


@pytest.mark.parametrize(
    ('config', 'kind'),
    [
        (dict(type='UniformStitchSampler', seed=3), UniformStitchSampler),
        (dict(type='CostBinStitchSampler', relative_bin_width=0.1), CostBinStitchSampler),
        (dict(type='SandwichStitchSampler', num_random=1), SandwichStitchSampler),
        (dict(type='FixedStitchSampler', stitch='S2-L8'), FixedStitchSampler),
        (dict(type=FixedStitchSampler, stitch=0), FixedStitchSampler),
    ],
)
def test_every_sampler_is_built_for_the_space_of_the_backbone(config, kind):
    backbone = tiny_backbone()
    before = dict(config)
    sampler = build_sampler(backbone, config)
    assert type(sampler) is kind and config == before
    assert all(sampler.sample(step) in backbone.space for step in range(10))
    assert sum(sampler.probabilities().values()) == pytest.approx(1)


def test_the_fixed_sampler_returns_its_stitch():
    backbone = tiny_backbone()
    sampler = build_sampler(backbone, dict(type='FixedStitchSampler', stitch='S2-L8'))
    assert {sampler.sample(step).name for step in range(5)} == {'S2-L8'}


def test_a_wrong_argument_is_told_by_the_sampler():
    with pytest.raises(ValueError, match="Unknown stitch 'S7'"):
        build_sampler(tiny_backbone(), dict(type='FixedStitchSampler', stitch='S7'))
