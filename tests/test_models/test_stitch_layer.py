"""The affine map between two widths."""

from __future__ import annotations

import io

import pytest
import torch
from torch.nn import functional

from mmsnnet.models import StitchLayer
from tests.builders import shake


def make_layer(rank: int = 4, alpha: float = 2.0) -> StitchLayer:
    layer = StitchLayer(6, 10, rank, alpha)
    shake(layer)
    return layer


def make_tokens(requires_grad: bool = False) -> torch.Tensor:
    tokens = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(1))
    return tokens.requires_grad_(requires_grad)


def test_it_computes_the_formula_of_lora():
    layer, x = make_layer(), make_tokens()
    low = x.double() @ layer.lora_a.double().T @ layer.lora_b.double().T
    expected = x.double() @ layer.weight.double().T + layer.bias.double() + 2.0 / 4 * low
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('rank', [0, 4])
def test_autocast_leaves_the_type_of_the_tokens(rank):
    layer, x = make_layer(rank), make_tokens()
    with torch.autocast('cpu', torch.bfloat16):
        assert functional.linear(x, layer.weight).dtype == torch.bfloat16
        out = layer(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, layer(x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize('rank', [0, 1, 4])
def test_the_merged_weight_does_what_the_layer_does(rank):
    layer, x = make_layer(rank), make_tokens()
    merged = functional.linear(x, layer.merged_weight(), layer.bias)
    torch.testing.assert_close(layer(x), merged, rtol=1e-5, atol=1e-5)


def test_merging_leaves_the_layer_as_it_is_and_shares_no_memory():
    for rank in (0, 4):
        layer = make_layer(rank)
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        layer.merged_weight().zero_()
        assert all(torch.equal(layer.state_dict()[name], before[name]) for name in before)


def test_changing_the_mode_never_changes_weights_or_output():
    layer, x = make_layer(), make_tokens()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    outputs = [layer.train(mode)(x) for mode in (True, False, False, True, True, False)]
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    assert all(torch.equal(layer.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize('saving', [True, False])
@pytest.mark.parametrize('loading', [True, False])
def test_weights_saved_in_any_mode_give_the_same_output_in_any_mode(saving, loading):
    layer, x = make_layer().train(saving), make_tokens()
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = StitchLayer(6, 10, 4, 2.0).train(loading)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(x), layer(x))
    assert torch.equal(other.train(not loading)(x), layer(x))


def test_the_fitted_weight_is_frozen_while_bias_and_lora_learn():
    layer = make_layer()
    layer(make_tokens()).square().sum().backward()
    assert layer.weight.grad is None
    assert all(p.grad.abs().min() > 0 for p in (layer.bias, layer.lora_a, layer.lora_b))


def test_rank_zero_learns_the_weight_itself():
    layer = make_layer(rank=0)
    layer(make_tokens()).square().sum().backward()
    assert sorted(name for name, _ in layer.named_parameters()) == ['bias', 'weight']
    assert layer.weight.grad.abs().min() > 0 and layer.bias.grad.abs().min() > 0


def test_the_update_of_a_new_layer_is_zero_but_can_leave_it():
    layer, x = StitchLayer(6, 10, 4), make_tokens()
    torch.testing.assert_close(layer(x), functional.linear(x, layer.weight, layer.bias))
    layer(x).square().sum().backward()
    assert layer.lora_b.grad.abs().max() > 0


def test_setting_the_affine_map_starts_the_update_anew():
    layer, x = make_layer(), make_tokens()
    weight, bias = torch.randn(10, 6, dtype=torch.float64), torch.randn(10, dtype=torch.float64)
    layer.set_affine(weight, bias)
    expected = x.double() @ weight.T + bias
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)
    assert layer.weight.dtype == torch.float32 and not layer.weight.requires_grad
    assert layer.lora_a.abs().max() > 0, 'a zero A beside a zero B could never learn'


def test_gradients_reach_the_tokens_through_both_parts():
    layer, x = make_layer(), make_tokens(requires_grad=True)
    layer(x).sum().backward()
    expected = layer.merged_weight().sum(dim=0).expand_as(x)
    torch.testing.assert_close(x.grad, expected, rtol=1e-5, atol=1e-5)


def test_a_negative_rank_is_refused():
    with pytest.raises(ValueError, match=r'lora_rank must be 0 \(no LoRA\) or more, got -1'):
        StitchLayer(6, 10, -1)
