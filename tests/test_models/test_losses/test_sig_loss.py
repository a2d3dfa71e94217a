"""The published depth loss, against its formula in numpy."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from mmsnnet.models.losses import SigLoss
from tests.segmentors import build


def depths(shape=(2, 1, 6, 8), seed=0):
    generator = torch.Generator().manual_seed(seed)
    pred = 0.2 + 5 * torch.rand(shape, generator=generator)
    target = 12 * torch.rand(shape, generator=generator)
    target[target < 2] = 0
    return pred, target


def formula(pred, target, warming_up=False, max_depth=np.inf):
    pred, target = pred.numpy().astype(np.float64), target.numpy().astype(np.float64)
    valid = (target > 0) & (target <= max_depth)
    pred, target = pred[valid], target[valid]
    if warming_up:
        gap = np.log(pred + 0.1) - np.log(target + 0.1)
        return np.sqrt(0.15 * gap.mean() ** 2)
    gap = np.log(pred) - np.log(target)
    return np.sqrt(gap.var(ddof=1) + 0.15 * gap.mean() ** 2)


def test_the_first_training_calls_warm_up_and_the_others_are_the_whole_formula():
    loss, (pred, target) = SigLoss(warm_up_iters=3), depths()
    values = [float(loss(pred, target)) for _ in range(5)]
    warm, whole = formula(pred, target, warming_up=True), formula(pred, target)
    np.testing.assert_allclose(values, [warm] * 3 + [whole] * 2, rtol=1e-5)
    assert abs(warm - whole) > 0.1


def test_the_published_warm_up_takes_100_calls():
    loss, (pred, target) = SigLoss(), depths((1, 1, 2, 2))
    values = [float(loss(pred, target)) for _ in range(101)]
    assert len(set(values[:100])) == 1 and values[100] != values[0]


def test_targets_beyond_the_greatest_depth_are_left_out():
    loss, (pred, target) = SigLoss(max_depth=8.0, warm_up_iters=0), depths()
    expected = formula(pred, target, max_depth=8.0)
    np.testing.assert_allclose(float(loss(pred, target)), expected, rtol=1e-5)
    assert abs(expected - formula(pred, target)) > 1e-3


def test_the_weight_is_a_factor():
    pred, target = depths()
    for warm_up_iters in (0, 1):
        plain = SigLoss(warm_up_iters=warm_up_iters)(pred, target)
        weighted = SigLoss(2.5, warm_up_iters=warm_up_iters)(pred, target)
        torch.testing.assert_close(weighted, 2.5 * plain)


def test_mmsegs_loss_is_another_formula():
    pred, target = depths()
    silog = build(dict(type='SiLogLoss'))(pred, target)
    assert abs(float(silog) - formula(pred, target)) > 0.01


def test_the_warm_up_goes_on_from_a_checkpoint():
    pred, target = depths()
    first, second = SigLoss(warm_up_iters=4), SigLoss(warm_up_iters=4)
    for _ in range(3):
        first(pred, target)
    second.load_state_dict(first.state_dict())
    values = [float(second(pred, target)) for _ in range(2)]
    expected = [formula(pred, target, warming_up=True), formula(pred, target)]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_calls_in_eval_mode_change_nothing():
    loss, (pred, target) = SigLoss(warm_up_iters=2).eval(), depths()
    state = {name: value.clone() for name, value in loss.state_dict().items()}
    values = {float(loss(pred, target)) for _ in range(4)}
    assert len(values) == 1 and loss.state_dict() == state


@pytest.mark.parametrize('warm_up_iters', [0, 1])
def test_a_perfect_prediction_has_no_loss_and_no_gradient(warm_up_iters):
    target = torch.full((1, 1, 2, 2), 3.0)
    pred = target.clone().requires_grad_()
    loss = SigLoss(warm_up_iters=warm_up_iters)(pred, target)
    loss.backward()
    assert loss == 0 and torch.equal(pred.grad, torch.zeros_like(pred))


@pytest.mark.parametrize('warm_up_iters', [0, 1])
def test_gradients_are_those_of_the_formula(warm_up_iters):
    pred, target = (item.double() for item in depths((1, 1, 2, 3)))
    target[0, 0, 0, 0] = 2.5
    pred.requires_grad_()
    SigLoss(warm_up_iters=warm_up_iters)(pred, target).backward()
    for index in np.ndindex(*pred.shape):
        step = torch.zeros_like(target)
        step[index] = 1e-5
        ends = [formula(pred.detach() + sign * step, target, warm_up_iters) for sign in (1, -1)]
        assert abs(float(pred.grad[index]) - (ends[0] - ends[1]) / 2e-5) < 1e-5


def test_a_batch_without_known_depth_has_no_loss_and_no_gradient():
    pred = torch.ones(1, 1, 2, 2, requires_grad=True)
    loss = SigLoss()(pred, torch.zeros(1, 1, 2, 2))
    loss.backward()
    assert loss == 0 and torch.equal(pred.grad, torch.zeros_like(pred))


def test_a_single_known_pixel_has_no_variance():
    target = torch.zeros(1, 1, 2, 2)
    target[0, 0, 0, 0] = 2.0
    loss = SigLoss(warm_up_iters=0)(torch.ones(1, 1, 2, 2), target)
    np.testing.assert_allclose(float(loss), np.sqrt(0.15) * np.log(2), rtol=1e-6)


def test_half_precision_is_computed_in_single():
    pred, target = depths()
    pred = pred.half()
    value = SigLoss(warm_up_iters=0)(pred, target)
    assert value.dtype == torch.float32
    np.testing.assert_allclose(float(value), formula(pred.float(), target), rtol=1e-5)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(max_depth=0.0), 'max_depth=0.0 of SigLoss must be positive metres'),
        (dict(warm_up_iters=-1), 'warm_up_iters=-1 of SigLoss must be 0 or more'),
        (dict(warm_up_eps=0.0), 'warm_up_eps=0.0 of SigLoss must be positive'),
        (dict(loss_weight='1'), "loss_weight='1' of SigLoss must be a number"),
        (dict(warm_up_iters=None), 'warm_up_iters=None of SigLoss must be an integer'),
        (dict(warm_up_iters=1.5), 'warm_up_iters=1.5 of SigLoss must be an integer'),
        (dict(loss_weight=float('nan')), 'loss_weight=nan of SigLoss must be 0 or more and finite'),
        (dict(loss_weight=float('inf')), 'loss_weight=inf of SigLoss must be 0 or more and finite'),
        (dict(loss_weight=-0.5), 'loss_weight=-0.5 of SigLoss must be 0 or more and finite'),
        (dict(warm_up_eps=float('nan')), 'warm_up_eps=nan of SigLoss must be positive metres'),
        (dict(warm_up_eps=float('inf')), 'warm_up_eps=inf of SigLoss must be positive metres'),
        (dict(max_depth=float('nan')), 'max_depth=nan of SigLoss must be positive metres'),
        (dict(loss_name=3), 'loss_name=3 of SigLoss must be a text'),
        (dict(max_depth='10'), "max_depth='10' of SigLoss must be a number"),
    ],
)
def test_what_is_not_possible_is_refused(settings, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        SigLoss(**settings)


def test_other_shapes_than_the_targets_are_refused():
    with pytest.raises(ValueError, match=r'one shape, got \(1, 1, 4, 4\) and \(1, 4, 4\)'):
        SigLoss()(torch.ones(1, 1, 4, 4), torch.ones(1, 4, 4))
