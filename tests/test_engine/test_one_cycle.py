"""OneCycle by parameter group, and the schedule of the depth recipes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from torch import nn

import mmsnnet
from mmsnnet.engine import GroupOneCycleLR
from tests.builders import tiny_backbone

RECIPE = 'dpt_snnetv2_s-l_nyuv2.py'
ITERATIONS = 40


def optimizer(*rates):
    groups = [dict(params=[nn.Parameter(torch.zeros(1))], lr=rate) for rate in rates]
    return torch.optim.AdamW(groups, lr=1.0)


def run(schedulers, wrapper, iterations=ITERATIONS):
    """Learning rate and first beta of every group in every iteration."""
    history = []
    for _ in range(iterations):
        history.append([(g['lr'], g['betas'][0]) for g in wrapper.param_groups])
        wrapper.step()
        for scheduler in schedulers:
            scheduler.step()
    return np.array(history)


def test_each_group_follows_torchs_one_cycle_with_its_own_peak():
    peaks = [2e-3, 5e-4, 1e-4]
    settings = dict(pct_start=0.3, div_factor=25.0, final_div_factor=100.0)
    ours, theirs = optimizer(*peaks), optimizer(*peaks)
    scheduler = GroupOneCycleLR(ours, end=ITERATIONS, by_epoch=False, **settings)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        theirs, peaks, total_steps=ITERATIONS, cycle_momentum=False, **settings
    )
    mine, expected = run([scheduler], ours), run([reference], theirs, ITERATIONS - 1)
    np.testing.assert_allclose(mine[:-1, :, 0], expected[:, :, 0], rtol=1e-6)
    np.testing.assert_allclose(mine[:, :, 0].max(axis=0), peaks, rtol=1e-2)


def test_a_given_peak_is_refused_with_what_to_write():
    with pytest.raises(ValueError, match=r"type='OneCycleLR' for one peak"):
        GroupOneCycleLR(optimizer(1e-3), eta_max=1e-3, end=10, by_epoch=False)


def scheduled(name):
    """Optimizer of a recipe for a model of tiny anchors, with its schedulers made short."""
    config = Config.fromfile(mmsnnet.config_path(name))
    model = nn.Module()
    model.backbone = tiny_backbone(((2, 32), (4, 64)), output_cls_token=True)
    model.decode_head = nn.Conv2d(64, 1, 1)
    with DefaultScope.overwrite_default_scope('mmseg'):
        wrapper = build_optim_wrapper(model, config.optim_wrapper)
        assert isinstance(wrapper, OptimWrapper)
        peak = int(0.3 * ITERATIONS)
        limits = [dict(end=ITERATIONS), dict(end=peak), dict(begin=peak, end=ITERATIONS)]
        schedulers = [
            PARAM_SCHEDULERS.build(dict(item, **limit), default_args=dict(optimizer=wrapper))
            for item, limit in zip(config.param_scheduler, limits)
        ]
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    owners = {id(p): name for name, p in model.named_parameters()}
    # MMEngine's wrapper adds a last group that stands for the optimizer's own settings.
    own = wrapper.param_groups[:-1]
    groups = {owners[id(group['params'][0])]: i for i, group in enumerate(own)}
    assert set(groups) == set(names)
    return wrapper, schedulers, groups


def test_the_recipe_gives_the_backbone_a_tenth_and_its_norms_and_tokens_no_decay():
    wrapper, schedulers, groups = scheduled(RECIPE)
    decays = {name: wrapper.param_groups[i]['weight_decay'] for name, i in groups.items()}
    peaks = run(schedulers, wrapper)[:, :, 0].max(axis=0)
    for name, i in groups.items():
        peak = 2e-6 if name.startswith('backbone') else 2e-5
        assert peaks[i] == pytest.approx(peak, rel=1e-2), name
        part = name.rsplit('.', 2)[-2]
        plain = part.startswith('norm') or 'pos_embed' in name or 'cls_token' in name
        assert decays[name] == (0 if plain else 0.01), name
    assert {0, 0.01} == set(decays.values())


def test_the_recipe_as_released_has_one_peak_for_all():
    wrapper, schedulers, _ = scheduled('dpt_snnetv2_s-l_nyuv2_as-released.py')
    history = run(schedulers, wrapper)[:, :, 0]
    np.testing.assert_allclose(history.max(axis=0), 2e-5, rtol=1e-2)
    np.testing.assert_allclose(history[0], 2e-5 / 25, rtol=1e-6)


def test_momentum_falls_from_95_to_85_percent_at_the_peak_and_rises_again():
    wrapper, schedulers, _ = scheduled(RECIPE)
    momentum = run(schedulers, wrapper)[:, 0, 1]
    peak, steps = int(0.3 * ITERATIONS), np.arange(ITERATIONS)
    down = 0.9 + 0.05 * np.cos(np.pi * steps / peak)
    up = 0.9 - 0.05 * np.cos(np.pi * (steps - peak) / (ITERATIONS - peak))
    np.testing.assert_allclose(momentum, np.where(steps < peak, down, up), atol=2e-3)
    assert momentum[0] == 0.95 and momentum.argmin() in (peak, peak - 1, peak + 1)
