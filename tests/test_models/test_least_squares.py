"""Streaming least squares against numpy's float64 solvers on the whole data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mmsnnet.models.least_squares import AffineFit, PairedMoments, gram

SAMPLES, SOURCE, TARGET = 400, 12, 20


def make_features(samples: int = SAMPLES, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Sources of unequal scale far from zero, and targets that depend on them up to noise."""
    generator = torch.Generator().manual_seed(seed)
    draw = {'generator': generator, 'dtype': torch.float64}
    x = torch.randn(samples, SOURCE, **draw) * torch.linspace(0.1, 30, SOURCE) + 5
    x = x + x[:, :1]
    weight = torch.randn(TARGET, SOURCE, **draw)
    return x, x @ weight.T + 3 + torch.randn(samples, TARGET, **draw)


def fit(x: Tensor, y: Tensor, batches: int = 1) -> AffineFit:
    moments = PairedMoments({'x': x.shape[1], 'y': y.shape[1]}, ['x'], [('x', 'y')])
    for part_x, part_y in zip(x.tensor_split(batches), y.tensor_split(batches)):
        moments.add_count(len(part_x))
        moments.add_node('x', part_x)
        moments.add_node('y', part_y)
        moments.add_pair('x', part_x, 'y', part_y)
    return moments.solve('x', 'y')


def with_ones(x: Tensor) -> np.ndarray:
    return np.concatenate([x.numpy(), np.ones((len(x), 1))], axis=1)


def residual_of(weight: np.ndarray, bias: np.ndarray, x: Tensor, y: Tensor) -> float:
    return float(np.square(x.numpy() @ weight.T + bias - y.numpy()).sum())


def residual_of_pinv(x: Tensor, y: Tensor) -> float:
    a = with_ones(x)
    return float(np.square(a @ (np.linalg.pinv(a) @ y.numpy()) - y.numpy()).sum())


def test_weight_and_bias_equal_those_of_numpy():
    x, y = make_features()
    found = fit(x, y)
    solution = np.linalg.lstsq(with_ones(x), y.numpy(), rcond=None)[0]
    scale = np.abs(solution).max()
    assert np.abs(found.weight.numpy() - solution[:-1].T).max() < 1e-9 * scale
    assert np.abs(found.bias.numpy() - solution[-1]).max() < 1e-9 * scale


def test_residual_and_explained_variance_equal_those_computed_from_the_data():
    x, y = make_features()
    found = fit(x, y)
    residual = residual_of(found.weight.numpy(), found.bias.numpy(), x, y)
    total = float((y - y.mean(0)).square().sum())
    assert found.residual == pytest.approx(residual, rel=1e-9)
    assert found.total == pytest.approx(total, rel=1e-12)
    assert found.explained == pytest.approx(1 - residual / total, rel=1e-9)
    assert 0.9 < found.explained < 0.9999


def test_no_other_map_has_a_smaller_residual():
    x, y = make_features(100)
    found = fit(x, y)
    best = residual_of(found.weight.numpy(), found.bias.numpy(), x, y)
    rng = np.random.default_rng(0)
    for size in (1e-6, 1e-4, 1e-2, 1):
        for _ in range(20):
            weight = found.weight.numpy() + size * rng.standard_normal((TARGET, SOURCE))
            bias = found.bias.numpy() + size * rng.standard_normal(TARGET)
            assert residual_of(weight, bias, x, y) >= best


@pytest.mark.parametrize('batches', [2, 7, 400])
def test_many_batches_are_as_good_as_one(batches):
    x, y = make_features()
    one, many = fit(x, y), fit(x, y, batches)
    assert torch.allclose(many.weight, one.weight, rtol=1e-9, atol=1e-10)
    assert torch.allclose(many.bias, one.bias, rtol=1e-9, atol=1e-10)
    assert many.residual == pytest.approx(one.residual, rel=1e-9)


def test_one_sum_serves_maps_in_both_directions():
    x, y = make_features()
    moments = PairedMoments({'x': SOURCE, 'y': TARGET}, ['x', 'y'], [('x', 'y')])
    moments.add_count(len(x))
    moments.add_node('x', x)
    moments.add_node('y', y)
    moments.add_pair('y', y, 'x', x)
    forth, back = moments.solve('x', 'y'), moments.solve('y', 'x')
    assert torch.allclose(forth.weight, fit(x, y).weight, rtol=1e-9, atol=1e-10)
    assert torch.allclose(back.weight, fit(y, x).weight, rtol=1e-6, atol=1e-8)


def rank_deficient(case: str) -> tuple[Tensor, Tensor]:
    x, y = make_features(8 if case == 'few samples' else SAMPLES)
    if case == 'duplicated channels':
        x = torch.cat([x, x[:, :5]], dim=1)
    elif case == 'constant channel':
        x = torch.cat([x, torch.full((len(x), 2), 7.0, dtype=torch.float64)], dim=1)
    elif case == 'zero channel':
        x = torch.cat([x, torch.zeros(len(x), 1, dtype=torch.float64)], dim=1)
    elif case == 'sum of channels':
        x = torch.cat([x, x.sum(dim=1, keepdim=True), x[:, :3] @ torch.ones(3, 2).double()], 1)
    elif case == 'all constant':
        x = torch.full_like(x, 2.0)
    return x, y


@pytest.mark.parametrize(
    'case',
    [
        'duplicated channels',
        'constant channel',
        'zero channel',
        'sum of channels',
        'few samples',
        'all constant',
    ],
)
def test_rank_deficient_sources_get_a_finite_solution_as_good_as_the_pseudo_inverse(case):
    x, y = rank_deficient(case)
    found = fit(x, y)
    assert torch.isfinite(found.weight).all() and torch.isfinite(found.bias).all()
    residual = residual_of(found.weight.numpy(), found.bias.numpy(), x, y)
    total = float((y - y.mean(0)).square().sum())
    assert residual <= residual_of_pinv(x, y) * 1.00001 + 1e-9 * total
    # The sums know the residual up to the rounding of the total.
    assert found.residual == pytest.approx(residual, rel=1e-6, abs=1e-9 * total)


def test_a_rank_deficient_solution_has_no_huge_weights():
    x, y = rank_deficient('duplicated channels')
    plain = fit(*make_features())
    assert fit(x, y).weight.abs().max() <= 1.01 * plain.weight.abs().max()


def test_channels_of_float32_noise_alone_are_not_fitted():
    x, y = make_features()
    noise = torch.randn(len(x), 1, generator=torch.Generator().manual_seed(3)).double()
    x = torch.cat([x, 4 + 1e-7 * noise], dim=1)
    assert fit(x, y).weight[:, -1].abs().max() == 0


def test_a_target_that_does_not_vary_is_explained_by_the_bias():
    x = make_features()[0]
    found = fit(x, torch.full((len(x), 2), 4.0, dtype=torch.float64))
    assert found.weight.abs().max() < 1e-12
    assert torch.allclose(found.bias, torch.full((2,), 4.0, dtype=torch.float64))
    assert found.explained == pytest.approx(1)


def test_an_exact_map_is_found_exactly():
    x = make_features()[0]
    weight = torch.randn(3, SOURCE, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    found = fit(x, x @ weight.T - 2)
    assert torch.allclose(found.weight, weight, rtol=0, atol=1e-9)
    assert found.explained == pytest.approx(1, abs=1e-12)


def test_the_sums_take_the_same_memory_for_any_number_of_samples():
    sizes = []
    for samples in (50, 5000):
        x, y = make_features(samples)
        moments = PairedMoments({'x': SOURCE, 'y': TARGET}, ['x'], [('x', 'y')])
        moments.add_count(samples)
        moments.add_node('x', x)
        moments.add_node('y', y)
        moments.add_pair('x', x, 'y', y)
        sizes.append(sum(t.numel() * t.element_size() for t in moments.tensors()))
    numbers = 1 + (SOURCE + TARGET) + 2 + SOURCE * SOURCE + SOURCE * TARGET
    assert sizes == [8 * numbers] * 2


def test_sums_of_two_halves_add_up_to_those_of_the_whole():
    x, y = make_features()
    parts = []
    for rows in (slice(None), slice(0, 150), slice(150, None)):
        moments = PairedMoments({'x': SOURCE, 'y': TARGET}, ['x'], [('x', 'y')])
        moments.add_count(len(x[rows]))
        moments.add_node('x', x[rows])
        moments.add_node('y', y[rows])
        moments.add_pair('x', x[rows], 'y', y[rows])
        parts.append(list(moments.tensors()))
    for whole, first, second in zip(*parts):
        assert torch.allclose(whole, first + second, rtol=1e-12)


@pytest.mark.parametrize('width', [1, 5, 256, 257, 600])
def test_the_gram_matrix_by_blocks_equals_the_plain_product(width):
    x = torch.randn(40, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = gram(x)
    assert torch.allclose(found, x.T @ x, rtol=1e-12, atol=1e-12)
    assert torch.allclose(found, found.T, rtol=1e-12, atol=1e-12)


def test_nothing_can_be_solved_without_samples():
    moments = PairedMoments({'x': 3, 'y': 4}, ['x'], [('x', 'y')])
    with pytest.raises(ValueError, match='No samples were added'):
        moments.solve('x', 'y')


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('side', [0, 1])
def test_features_that_are_not_finite_are_refused(value, side):
    features = make_features()
    features[side][3, 2] = value
    with pytest.raises(ValueError, match='Features of x or y are not finite: check the weights'):
        fit(*features)


@pytest.mark.parametrize('precision', [torch.float16, torch.bfloat16])
def test_rounding_of_half_precision_is_not_fitted(precision):
    """Of 8 channels 3 are independent; what rounding adds would get weights of 20 to 90."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2000, 3, generator=generator)
    x = (hidden @ torch.randn(3, 8, generator=generator)).to(precision).double()
    y = torch.randn(2000, 4, generator=generator).double()
    largest = {}
    for assumed in (torch.float32, precision):
        moments = PairedMoments(dict(x=8, y=4), ['x'], [('x', 'y')], precision=assumed)
        moments.add_count(len(x))
        for node, features in dict(x=x, y=y).items():
            moments.add_node(node, features)
        moments.add_pair('x', x, 'y', y)
        largest[assumed] = moments.solve('x', 'y').weight.abs().max()
    assert largest[precision] < 1 < 10 < largest[torch.float32]
