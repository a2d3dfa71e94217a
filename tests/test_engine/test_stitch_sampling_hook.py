"""The stitch of every training iteration, what is logged of it, and the random states."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsnnet.compat import load_allowed
from mmsnnet.engine.rng_state import capture_rng_state
from mmsnnet.models import build_sampler
from tests.toy_segmentation import (
    Probe,
    backbone_of,
    logged,
    losses,
    toy_runner,
    weights,
    write_images,
)

SAMPLER = dict(type='UniformStitchSampler', seed=3)
HOOKS = [
    dict(type='StitchInitHook', num_images=4),
    dict(type='StitchSamplingHook', sampler=SAMPLER, log_interval=2),
]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'))


class Run:
    """A training of 6 iterations with eval on L6, and what its backbone ran."""

    def __init__(self, data, folder):
        self.runner = toy_runner(
            data, folder / 'run', custom_hooks=HOOKS, model=dict(backbone=dict(stitch='S2-L2'))
        )
        self.backbone = backbone_of(self.runner)
        self.stitches = []
        run = self.backbone.run

        def spy(images, stitch):
            if self.backbone.training:
                self.stitches.append(stitch.name)
            return run(images, stitch)

        self.backbone.run = spy
        with logged(self.runner, logging.INFO) as self.lines:
            self.runner.train()
        self.folder = Path(self.runner.work_dir)
        self.sampler = build_sampler(self.backbone, SAMPLER)


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
    return Run(data, tmp_path_factory.mktemp('sampled'))


def plain(generators):
    """States as a checkpoint keeps them, as plain values that compare."""
    return {
        name: [part.tolist() if isinstance(part, torch.Tensor) else part for part in state]
        for name, state in generators.items()
    }


def test_the_stitch_of_an_iteration_is_that_of_the_sampler(run):
    assert run.stitches == [run.sampler.sample(i).name for i in range(6)]
    assert len(set(run.stitches)) > 2


def test_training_leaves_the_choice_for_evaluation_alone(run):
    assert run.backbone.stitch.name == 'S2-L2'
    assert run.stitches[-1] != 'S2-L2'


def test_after_training_the_backbone_samples_by_itself_again(run):
    before = len(run.stitches)
    run.backbone.train()
    run.backbone(torch.zeros(1, 3, 64, 64))
    run.backbone.eval()
    assert run.stitches.pop() == run.backbone.sampler.sample(6).name
    assert len(run.stitches) == before


def test_a_line_names_the_stitch_with_its_family_and_cost(run):
    lines = [line for line in run.lines if '  stitch: ' in line]
    expected = []
    for number in (2, 4, 6):
        stitch = run.sampler.sample(number - 1)
        gflops = run.backbone.costs[stitch].flops / 1e9
        expected.append(
            f'Iter(train) [{number}/6]  stitch: {stitch.name} ({stitch.family}, '
            f'{gflops:.4g} backbone GFLOPs)'
        )
    assert lines == expected


def test_the_scalars_of_the_log_hold_the_cost_of_each_stitch(run):
    (path,) = run.folder.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    train = [row for row in rows if 'backbone_gflops' in row]
    gflops = [run.backbone.costs[name].flops / 1e9 for name in run.stitches]
    assert [row['step'] for row in train] == [1, 2, 3, 4, 5, 6]
    assert [row['backbone_gflops'] for row in train] == pytest.approx(gflops)


def test_the_loss_of_a_family_is_that_of_its_iterations(run):
    everything = losses(run.runner)
    families = [run.backbone.space[name].family for name in run.stitches]
    for family in set(families):
        own = run.runner.message_hub.get_scalar(f'train/loss_{family}')._log_history.tolist()
        assert own == [v for v, f in zip(everything, families) if f == family]
    (path,) = run.folder.glob('*/vis_data/scalars.json')
    last = [json.loads(line) for line in path.read_text().splitlines() if 'loss' in line][-1]
    assert {f'loss_{family}' for family in families} <= set(last)


def test_the_stitch_is_in_the_runtime_information(run):
    assert run.runner.message_hub.get_info('stitch') == run.stitches[-1]


def test_a_checkpoint_holds_the_random_states_of_its_moment(data, tmp_path):
    """And loads with the check of torch.load spelled out."""
    runner = toy_runner(data, tmp_path, custom_hooks=HOOKS, val_cfg=dict(_delete_=True))
    seen = {}

    def remember(runner):
        seen[runner.iter] = plain(capture_rng_state())

    runner.register_hook(Probe(after_train_iter=remember), priority='LOWEST')
    runner.train()
    content = load_allowed(str(tmp_path / 'iter_3.pth'))
    (states,) = content['stitch_rng_states']
    assert plain(states) == seen[2]
    assert plain(states) != seen[5]


def test_a_validation_restores_the_random_states(data, tmp_path):
    """Another hook draws numbers in the middle of it."""
    runner = toy_runner(data, tmp_path, custom_hooks=HOOKS)
    states = []

    def remember(runner):
        states.append(plain(capture_rng_state()))

    def draw(runner):
        random.random()
        np.random.rand()  # noqa: NPY002
        torch.rand(1)

    runner.register_hook(Probe(before_val=remember), priority='HIGHEST')
    runner.register_hook(Probe(before_val_iter=draw, after_val_epoch=draw), priority='LOWEST')
    runner.register_hook(Probe(after_val_epoch=remember, after_val=remember), priority='LOWEST')
    runner.train()
    assert len(states) == 6
    for before, meanwhile, after in (states[:3], states[3:]):
        assert all(meanwhile[name] != before[name] for name in ('python', 'numpy', 'torch'))
        assert after == before


def test_a_checkpoint_saved_after_validation_alone_resumes_exactly(data, tmp_path):
    """With ``save_best`` and no interval, the best checkpoint is the only one on the way."""
    checkpoint = dict(
        interval=-1, save_last=False, save_best='pareto/hypervolume', rule='greater'
    )
    settings = dict(custom_hooks=HOOKS, default_hooks=dict(checkpoint=checkpoint))
    short = toy_runner(data, tmp_path / 'short', train_cfg=dict(max_iters=3), **settings)
    short.train()
    (best,) = (tmp_path / 'short').glob('best_*_iter_3.pth')
    assert load_allowed(str(best))['stitch_rng_states']
    whole = toy_runner(data, tmp_path / 'whole', **settings)
    whole.train()
    draws = []
    resumed = toy_runner(data, tmp_path / 'on', load_from=str(best), resume=True, **settings)
    resumed.register_hook(Probe(before_train_iter=lambda r: draws.append(r.iter)))
    resumed.train()
    assert draws == [3, 4, 5]
    # A best checkpoint holds no optimizer: the first loss alone is that of the other run.
    assert losses(resumed)[:4] == losses(whole)[:4]


def test_states_of_another_number_of_processes_are_left_with_a_warning(data, tmp_path):
    runner = toy_runner(
        data, tmp_path / 'a', custom_hooks=HOOKS, train_cfg=dict(max_iters=3)
    )
    runner.train()
    content = torch.load(tmp_path / 'a' / 'iter_3.pth')
    content['stitch_rng_states'] *= 2
    torch.save(content, tmp_path / 'two.pth')
    resumed = toy_runner(
        data, tmp_path / 'b', custom_hooks=HOOKS, load_from=str(tmp_path / 'two.pth'), resume=True
    )
    with logged(resumed) as lines:
        resumed.train()
    (line,) = [line for line in lines if 'random states' in line]
    assert '2 processes and there are 1 now' in line


def test_loading_without_resuming_leaves_the_random_states_of_a_new_run(data, tmp_path):
    first = toy_runner(data, tmp_path / 'a', custom_hooks=HOOKS)
    first.train()
    content = torch.load(tmp_path / 'a' / 'iter_3.pth')
    without = {k: v for k, v in content.items() if k != 'stitch_rng_states'}
    torch.save(without, tmp_path / 'without.pth')
    runs = []
    for name, file in (('b', tmp_path / 'a' / 'iter_3.pth'), ('c', tmp_path / 'without.pth')):
        runs.append(toy_runner(data, tmp_path / name, custom_hooks=HOOKS, load_from=str(file)))
        runs[-1].train()
    assert losses(runs[0]) == losses(runs[1])
    assert all(torch.equal(weights(runs[1])[k], v) for k, v in weights(runs[0]).items())


def test_an_unknown_sampler_is_refused_before_the_first_iteration(data, tmp_path):
    hooks = [dict(type='StitchSamplingHook', sampler=dict(type='NoSampler'))]
    runner = toy_runner(data, tmp_path, custom_hooks=hooks)
    with pytest.raises(KeyError, match="'NoSampler' is not a registered stitch sampler; there are"):
        runner.train()
    assert runner.iter == 0
