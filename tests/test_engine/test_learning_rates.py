"""Learning rates of anchors, stitch layers and heads, by the keys that the documentation names."""

from __future__ import annotations

import pytest
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

from tests.segmentors import build
from tests.toy_segmentation import segmentor

#: As docs/frozen.md prints them.
KEYS = {
    'backbone.anchors': dict(lr_mult=0.1),
    'backbone.stitch_layers': dict(lr_mult=2.0),
    'head': dict(lr_mult=10.0),
}


def rates_of(training: str = 'full', **settings) -> dict[str, float]:
    """Learning rate of every parameter that learns, by name."""
    config = segmentor()
    config['backbone']['training'] = training
    model = build(config)
    optimizer = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
    with DefaultScope.overwrite_default_scope('mmseg'):
        wrapper = build_optim_wrapper(model, dict(optimizer=optimizer, **settings))
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    return {
        names[id(p)]: group['lr']
        for group in wrapper.optimizer.param_groups
        for p in group['params']
        if id(p) in names
    }


def rate_by_part(rates: dict[str, float]) -> dict[str, set[float]]:
    parts: dict[str, set[float]] = {}
    for name, rate in rates.items():
        part = '.'.join(name.split('.')[: 2 if name.startswith('backbone') else 1])
        parts.setdefault(part, set()).add(round(rate, 9))
    return parts


def test_keys_give_anchors_stitch_layers_and_heads_rates_of_their_own():
    assert rate_by_part(rates_of(paramwise_cfg=dict(custom_keys=KEYS))) == {
        'backbone.anchors': {1e-4},
        'backbone.stitch_layers': {2e-3},
        'decode_head': {1e-2},
        'auxiliary_head': {1e-2},
    }


def test_a_single_anchor_can_have_a_rate_of_its_own():
    keys = {**KEYS, 'backbone.anchors.L': dict(lr_mult=0.5)}
    rates = rates_of(paramwise_cfg=dict(custom_keys=keys))
    found = {name.split('.')[2]: rate for name, rate in rates.items() if '.anchors.' in name}
    assert found == {'S': pytest.approx(1e-4), 'L': pytest.approx(5e-4)}


def test_keys_multiply_the_rates_of_layer_wise_decay():
    constructor = 'StitchLayerDecayOptimWrapperConstructor'
    plain, keyed = (
        rates_of(constructor=constructor, paramwise_cfg=dict(decay_rate=0.5, custom_keys=keys))
        for keys in ({}, KEYS)
    )
    assert plain.keys() == keyed.keys()
    for name, rate in keyed.items():
        key = next(key for key in KEYS if key in name)
        assert rate == pytest.approx(plain[name] * KEYS[key]['lr_mult'])


def test_of_frozen_anchors_nothing_is_left_to_learn_and_the_keys_stay():
    assert rate_by_part(rates_of('stitches', paramwise_cfg=dict(custom_keys=KEYS))) == {
        'backbone.stitch_layers': {2e-3},
        'decode_head': {1e-2},
        'auxiliary_head': {1e-2},
    }
