"""The counter of FLOPs, against hand formulas and against fvcore's tracing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import FlopCountAnalysis
from torch import nn

from mmsnnet.evaluation.cost.flop_counter import FlopCounter


def count(run, *inputs):
    with torch.inference_mode(), FlopCounter() as counter:
        run(*inputs)
    return counter.total


def meta(*shape):
    return torch.empty(*shape, device='meta')


def on_meta(module):
    return module.to('meta').eval()


@pytest.mark.parametrize(
    ('module', 'shape', 'flops'),
    [
        (nn.Linear(6, 7), (2, 5, 6), 2 * 5 * 6 * 7),
        (nn.Linear(6, 7, bias=False), (6,), 6 * 7),
        (nn.Conv2d(6, 8, 3, padding=1), (1, 6, 9, 5), 9 * 5 * 3 * 3 * 6 * 8),
        (nn.Conv2d(6, 8, 3, stride=2, groups=2), (2, 6, 9, 9), 2 * 4 * 4 * 3 * 3 * 3 * 8),
        (nn.Conv1d(6, 8, 3), (1, 6, 9), 7 * 3 * 6 * 8),
        (nn.ConvTranspose2d(6, 8, 2, stride=2), (1, 6, 9, 5), 9 * 5 * 2 * 2 * 6 * 8),
        (nn.LayerNorm(6), (2, 5, 6), 5 * 60),
        pytest.param(
            nn.RMSNorm(6) if hasattr(nn, 'RMSNorm') else None, (2, 5, 6), 5 * 60,
            marks=pytest.mark.skipif(
                not hasattr(nn, 'RMSNorm'), reason='torch has RMSNorm since 2.4'
            ),
        ),
        (nn.LayerNorm(6, elementwise_affine=False), (2, 5, 6), 4 * 60),
        (nn.GroupNorm(2, 6), (2, 6, 3, 3), 5 * 108),
        (nn.InstanceNorm2d(6, affine=True), (2, 6, 3, 3), 5 * 108),
        (nn.BatchNorm2d(6), (2, 6, 3, 3), 2 * 108),
        (nn.SyncBatchNorm(6), (2, 6, 3, 3), 2 * 108),
        (nn.BatchNorm2d(6, affine=False), (2, 6, 3, 3), 108),
        (nn.AdaptiveAvgPool2d(1), (2, 6, 4, 4), 192),
        (nn.AdaptiveAvgPool2d(3), (2, 6, 4, 4), 192),
        (nn.Upsample(scale_factor=2, mode='bilinear'), (1, 6, 4, 4), 4 * 6 * 64),
        (nn.Upsample(size=(3, 5)), (1, 6, 4, 4), 6 * 15),
        (nn.Sequential(nn.GELU(), nn.Softmax(-1), nn.Dropout()), (2, 5, 6), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_a_layer_costs_what_the_convention_says(module, shape, flops):
    assert count(on_meta(module), meta(*shape)) == flops


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_fused_attention_counts_both_products_in_full(device):
    shapes = (2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 8)
    query, key, value = (torch.empty(shape, device=device) for shape in shapes)
    run = F.scaled_dot_product_attention
    assert count(run, query, key, value) == 2 * 3 * 5 * 7 * (4 + 8)


@pytest.mark.parametrize('need_weights', [True, False])
def test_attention_costs_the_same_fused_or_not(need_weights):
    attention = on_meta(nn.MultiheadAttention(12, 3, batch_first=True))
    x = meta(1, 10, 12)
    flops = count(lambda: attention(x, x, x, need_weights=need_weights))
    assert flops == 4 * 10 * 12 * 12 + 2 * 10 * 10 * 12


@pytest.mark.parametrize(
    ('expression', 'shapes', 'flops'),
    [
        (torch.matmul, ((2, 3, 4, 5), (5, 6)), 2 * 3 * 4 * 5 * 6),
        (torch.matmul, ((4, 5), (2, 3, 5, 6)), 2 * 3 * 4 * 5 * 6),
        (torch.matmul, ((4, 5), (5,)), 20),
        (torch.bmm, ((2, 4, 5), (2, 5, 6)), 2 * 4 * 5 * 6),
        (torch.baddbmm, ((2, 4, 6), (2, 4, 5), (2, 5, 6)), 2 * 4 * 5 * 6),
        (lambda a, b: torch.einsum('bqc,bchw->bqhw', a, b), ((1, 3, 4), (1, 4, 5, 6)), 3 * 4 * 30),
    ],
)
def test_products_of_any_shape_count_their_multiply_adds(expression, shapes, flops):
    assert count(expression, *(meta(*shape) for shape in shapes)) == flops


def test_a_convolution_of_other_channels_is_noticed():
    # torch itself lets this pass on meta tensors.
    layer = on_meta(nn.ConvTranspose2d(6, 8, 2, stride=2))
    with pytest.raises(ValueError, match='6 channels met 7'):
        count(layer, meta(1, 7, 4, 4))


def test_operators_are_told_apart():
    module = on_meta(nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5)))
    with torch.inference_mode(), FlopCounter() as counter:
        module(meta(3, 4))
    assert counter.by_operator == {'aten.addmm': 60, 'aten.layer_norm': 75}


def test_a_small_network_counts_as_fvcore_traces_it():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.GroupNorm(2, 4),
        nn.Upsample(scale_factor=2, mode='bilinear'),
        nn.AdaptiveAvgPool2d(6),
        nn.Flatten(2),
        nn.Linear(36, 10),
        nn.LayerNorm(10),
    ).eval()
    traced = FlopCountAnalysis(network, torch.zeros(1, 3, 17, 17)).unsupported_ops_warnings(False)
    expected = int(traced.total())
    assert count(on_meta(network), meta(1, 3, 17, 17)) == expected
