"""Settings of one anchor."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmsnnet.models import AnchorConfig


def test_a_name_alone_means_pretrained_weights_of_timm():
    config = AnchorConfig.parse('deit3_small_patch16_224.fb_in22k_ft_in1k')
    assert config == AnchorConfig('deit3_small_patch16_224.fb_in22k_ft_in1k', pretrained=True)
    assert config.has_weights


def test_a_mapping_sets_every_attribute():
    settings = dict(
        model_name='vit_tiny_patch16_224',
        pretrained=False,
        checkpoint='weights.pth',
        checkpoint_prefix='backbone.',
        label='T',
        model_kwargs=dict(depth=3),
        drop_path_rate=0.2,
        mean=[0.5, 0.5, 0.5],
        std=(0.25, 0.25, 1),
    )
    config = AnchorConfig.parse(settings)
    assert config.model_name == 'vit_tiny_patch16_224' and config.label == 'T'
    assert config.mean == (0.5, 0.5, 0.5) and config.std == (0.25, 0.25, 1.0)
    assert config.model_kwargs == dict(depth=3) and config.drop_path_rate == 0.2
    assert config.checkpoint == 'weights.pth' and config.checkpoint_prefix == 'backbone.'
    assert settings['mean'] == [0.5, 0.5, 0.5], 'the given mapping is left alone'


def test_a_config_is_returned_as_it_is():
    config = AnchorConfig('vit_tiny_patch16_224')
    assert AnchorConfig.parse(config) is config


@pytest.mark.parametrize(
    ('pretrained', 'checkpoint', 'expected'),
    [(False, None, False), (True, None, True), (False, 'file', True), (True, 'file', True)],
)
def test_weights_come_from_a_file_or_from_timm(pretrained, checkpoint, expected):
    config = AnchorConfig('vit_tiny_patch16_224', pretrained, checkpoint)
    assert config.has_weights is expected


def test_an_unknown_key_is_named_with_those_allowed():
    with pytest.raises(ValueError, match=r"Unknown keys \['dept'\].*allowed: \['model_name'"):
        AnchorConfig.parse(dict(model_name='vit_tiny_patch16_224', dept=6))


@pytest.mark.parametrize('anchor', [{}, dict(model_name=None), dict(label='S')])
def test_a_mapping_without_a_name_is_refused(anchor):
    with pytest.raises(ValueError, match='needs model_name, the name of a plain ViT'):
        AnchorConfig.parse(anchor)


@pytest.mark.parametrize('anchor', [3, None, ['vit_tiny_patch16_224']])
def test_other_types_are_refused(anchor):
    with pytest.raises(TypeError, match='timm model name or a dict with model_name, got'):
        AnchorConfig.parse(anchor)


@pytest.mark.parametrize(
    'values',
    [(), 0.5, 'abc', (0.5, float('nan'), 0.5), (True, 0.5), (123.7, 116.3, 103.5), (0.1, 0.2, -1)],
)
@pytest.mark.parametrize('key', ['mean', 'std'])
def test_a_normalisation_that_is_not_numbers_in_0_to_1_is_refused(key, values):
    with pytest.raises(ValueError, match=f'{key}=.* must be numbers .*one for each channel'):
        AnchorConfig.parse({'model_name': 'vit_tiny_patch16_224', key: values})


def test_a_deviation_of_zero_is_refused():
    with pytest.raises(ValueError, match=r'std=\(0\.5, 0, 0\.5\).*must be numbers above 0'):
        AnchorConfig.parse(dict(model_name='vit_tiny_patch16_224', std=(0.5, 0, 0.5)))
    assert AnchorConfig.parse(dict(model_name='vit_tiny_patch16_224', mean=(0, 0, 0))).mean


@pytest.mark.parametrize(
    ('settings', 'error', 'message'),
    [
        (dict(drop_path_rate=float('nan')), ValueError, 'drop_path_rate=nan is not possible'),
        (dict(drop_path_rate=1), ValueError, 'drop_path_rate=1 is not possible'),
        (dict(drop_path_rate='0.1'), TypeError, "drop_path_rate='0.1' must be a number"),
        (dict(drop_path_rate=True), TypeError, 'drop_path_rate=True must be a number'),
        (dict(drop_path_mode='uniform'), ValueError, "one of ['linear', 'constant']"),
        (dict(model_kwargs=[12]), TypeError, 'model_kwargs=[12] of an anchor must be a dict'),
        (dict(model_kwargs=None), TypeError, 'model_kwargs=None of an anchor must be a dict'),
        (dict(model_kwargs=dict(checkpoint_path='x')), ValueError, 'must not hold checkpoint_path'),
        (dict(model_kwargs=dict(pretrained=True)), ValueError, 'must not hold pretrained'),
        (dict(checkpoint=3), TypeError, 'checkpoint=3 of an anchor must be text'),
        (dict(label=1), TypeError, 'label=1 of an anchor must be text'),
    ],
)
def test_values_that_are_not_possible_are_refused_in_one_line(settings, error, message):
    with pytest.raises(error, match=re.escape(message)) as raised:
        AnchorConfig.parse(dict(model_name='vit_tiny_patch16_224', **settings))
    assert '\n' not in str(raised.value)


def test_a_file_may_be_given_as_a_path():
    config = AnchorConfig.parse(dict(model_name='vit_tiny_patch16_224', checkpoint=Path('a/b.pth')))
    assert config.checkpoint == str(Path('a/b.pth'))
