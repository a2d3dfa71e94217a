"""Running modules on shapes alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmsnnet.models.host.meta_call import meta_call, meta_features


def test_features_have_the_shapes_that_the_backbone_delivers():
    maps = meta_features(8, (3, 5), 2)
    assert [tuple(item.shape) for item in maps] == [(1, 8, 3, 5)] * 2
    assert all(item.is_meta for item in maps)


def test_features_come_with_class_tokens_on_request():
    pairs = meta_features(8, (3, 5), 2, with_cls_token=True)
    assert [(tuple(a.shape), tuple(b.shape)) for a, b in pairs] == [((1, 8, 3, 5), (1, 8))] * 2


def test_the_output_has_the_shape_of_the_real_one_and_no_data():
    layer = nn.Conv2d(8, 6, 3, stride=2)
    out = meta_call([layer], layer, torch.empty(1, 8, 9, 11, device='meta'))
    assert out.is_meta
    assert out.shape == layer(torch.zeros(1, 8, 9, 11)).shape


def test_modules_are_in_eval_mode_meanwhile_and_have_their_modes_back():
    layer = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()).train()
    layer[2].eval()
    seen = []
    meta_call([layer], lambda: seen.extend(m.training for m in layer.modules()))
    assert not any(seen) and len(seen) == 4
    assert [module.training for module in layer.modules()] == [True, True, True, False]


def test_modules_are_restored_after_an_error_too():
    layer = nn.Linear(2, 2).train()
    weight = layer.weight
    with pytest.raises(RuntimeError):
        meta_call([layer], layer, torch.empty(1, 3, device='meta'))
    assert layer.weight is weight and layer.training


def test_statistics_of_batch_norm_stay_as_they_were():
    layer = nn.BatchNorm2d(4).train()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    meta_call([layer], layer, torch.empty(2, 4, 3, 3, device='meta'))
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_a_module_registered_twice_has_its_weights_back():
    inner = nn.Linear(2, 2)
    outer = nn.Sequential(inner, inner)
    weight = inner.weight
    meta_call([outer, inner], outer, torch.empty(3, 2, device='meta'))
    assert inner.weight is weight and not weight.is_meta


def test_tied_weights_are_no_hindrance():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    run = nn.Sequential(first, second)
    out = meta_call([first, second], run, torch.empty(3, 2, device='meta'))
    assert out.shape == (3, 2)
    assert second.weight is first.weight and not first.weight.is_meta
