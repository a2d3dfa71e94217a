"""The simple feature pyramid against ViTDet's description, built by hand."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn import functional

import mmsnnet  # noqa: F401 - registers the neck
from mmsnnet.models.necks import SimpleFeaturePyramid
from mmsnnet.registry import MODELS
from tests.builders import shake

CHANNELS, OUT = 16, 6


def built(**settings):
    neck = MODELS.build(dict(type='SimpleFeaturePyramid', in_channels=CHANNELS) | settings)
    shake(neck)
    return neck.eval()


def norm_by_hand(x, weight, bias):
    """Mean and variance over the channels of every position, with an eps of 1e-6."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    normed = (x - mean) / (variance + 1e-6).sqrt()
    return normed * weight[:, None, None] + bias[:, None, None]


def pyramid_by_hand(x, weights):
    """Levels from the parameters in their order, by torch's functions alone."""
    rest = iter(weights)

    def up(y):
        return functional.conv_transpose2d(y, next(rest), next(rest), stride=2)

    def heads(y):
        y = norm_by_hand(functional.conv2d(y, next(rest)), next(rest), next(rest))
        return norm_by_hand(functional.conv2d(y, next(rest), padding=1), next(rest), next(rest))

    quarter = heads(up(functional.gelu(norm_by_hand(up(x), next(rest), next(rest)))))
    eighth = heads(up(x))
    same = heads(x)
    half = heads(functional.max_pool2d(x, 2))
    assert not list(rest)
    return [quarter, eighth, same, half, half[:, :, ::2, ::2]]


def test_levels_are_those_of_the_paper():
    neck = built(out_channels=OUT)
    x = torch.randn(2, CHANNELS, 6, 10, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        levels = neck((torch.zeros(2, 3, 1, 1), x))
        expected = pyramid_by_hand(x, neck.parameters())
    sides = [(24, 40), (12, 20), (6, 10), (3, 5), (2, 3)]
    assert [tuple(level.shape) for level in levels] == [(2, OUT, *side) for side in sides]
    for level, by_hand in zip(levels, expected):
        torch.testing.assert_close(level, by_hand, rtol=1e-4, atol=1e-5)


def test_a_single_map_will_do():
    neck, x = built(), torch.randn(1, CHANNELS, 4, 4)
    for one, two in zip(neck(x), neck([x])):
        assert torch.equal(one, two)


def test_levels_can_begin_and_end_elsewhere():
    neck = built(scale_factors=(2, 1, 0.5), num_outs=5)
    sides = [level.shape[-1] for level in neck(torch.randn(1, CHANNELS, 8, 8))]
    assert sides == [16, 8, 4, 2, 1]


def test_neck_and_norm_resolve_without_prefix_from_the_scope_of_mmdet():
    pytest.importorskip('mmdet')
    with DefaultScope.overwrite_default_scope('mmdet'):
        neck = MODELS.build(dict(type='SimpleFeaturePyramid', in_channels=CHANNELS))
        assert isinstance(neck, SimpleFeaturePyramid)
        from mmcv.cnn import build_norm_layer

        norm = build_norm_layer(dict(type='LN2d', eps=1e-3), 8)[1]
    assert isinstance(norm, nn.LayerNorm) and norm.eps == 1e-3


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(in_channels=[16, 16]), r'in_channels=\[16, 16\].* must be one integer'),
        (dict(in_channels=0), 'in_channels=0 .* 1 or more'),
        (dict(in_channels=18), 'in_channels=18 .* divisible by 4'),
        (dict(out_channels=2.5), 'out_channels=2.5 .* integer'),
        (dict(num_outs=3), 'num_outs=3 .* less than the 4 scale_factors'),
        (dict(num_outs=99), 'num_outs=99 .* must be 8 or less'),
        (dict(num_outs=6, scale_factors=(2,)), 'num_outs=6 .* must be 5 or less'),
        (dict(num_outs=-1), 'num_outs=-1 .* 1 or more'),
        (dict(num_outs=True), 'num_outs=True .* integer'),
        (dict(scale_factors=(4, float('nan'))), r'some of \(4, 2, 1, 0.5\)'),
        (dict(scale_factors=(4, 4, 2)), r'some of \(4, 2, 1, 0.5\)'),
        (dict(scale_factors='42'), r'some of \(4, 2, 1, 0.5\)'),
        (dict(scale_factors=(1, 2)), r'scale_factors=\(1, 2\) .* in this order'),
        (dict(scale_factors=(8, 4)), r'some of \(4, 2, 1, 0.5\)'),
        (dict(scale_factors=()), r'some of \(4, 2, 1, 0.5\)'),
        (dict(norm_cfg='LN2d'), "norm_cfg='LN2d' .* must be a dict with a type"),
        (dict(norm_cfg=dict(eps=1e-6)), 'norm_cfg=.* must be a dict with a type'),
    ],
)
def test_impossible_settings_are_refused_in_one_line(settings, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        built(**settings)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'features', [torch.zeros(1, 8, 4, 4), [(torch.zeros(1, 16, 4, 4), torch.zeros(1, 16))]]
)
def test_other_features_are_refused(features):
    with pytest.raises(ValueError, match=r'takes a map \(B, 16, H, W\), got'):
        built()(features)


@pytest.mark.parametrize('size', [(1, 4), (3, 1)])
def test_a_map_that_cannot_be_halved_is_refused(size):
    with pytest.raises(ValueError, match=f'cannot halve a map of {size[0]} x {size[1]}'):
        built()(torch.zeros(1, 16, *size))
    assert len(built(scale_factors=(2, 1), num_outs=2)(torch.zeros(1, 16, *size))) == 2
