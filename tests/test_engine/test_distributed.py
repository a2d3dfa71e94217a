"""Two real processes on the CPU: the same fit, the same stitches, the same scores."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
import torch

from mmsnnet.models import build_sampler
from mmsnnet.registry import MODELS
from tests.toy_segmentation import (
    NAMES,
    ROOT,
    child_environment,
    run_python,
    stitch_weights,
    toy_config,
    toy_runner,
    write_images,
)
from tools.test_all_stitches import main

CHILD = """
import os, sys, torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
import mmsnnet
from mmsnnet.compat import prepare_cpu_launch
from mmsnnet.models import StitchFit, find_stitched_backbone
from mmsnnet.models.least_squares import PairedMoments

torch.set_num_threads(1)
folder, rank = sys.argv[1], os.environ['RANK']
if rank != '0':
    def refuse(*_):
        raise AssertionError('one process solves for all')
    PairedMoments.solve = refuse
images = []
add = StitchFit.add
StitchFit.add = lambda self, batch: (images.append(batch.clone()), add(self, batch))

class Watch(Hook):
    scored = ()
    def before_val_epoch(self, runner):
        stitches = runner.val_loop.scoring.stitches
        self.scored = (*self.scored, [stitch.name for stitch in stitches])
    def before_train_epoch(self, runner):
        model = runner.model.module
        self.state = {k: v.clone() for k, v in model.state_dict().items()}
        self.names, run = [], model.backbone.run
        def spy(x, stitch):
            if model.training:
                self.names.append(stitch.name)
            return run(x, stitch)
        model.backbone.run = spy

def train(name):
    cfg = Config.fromfile(f'{folder}/{name}.py')
    cfg.launcher = 'pytorch'
    assert prepare_cpu_launch(cfg)
    runner, watch = Runner.from_cfg(cfg), Watch()
    runner.register_hook(watch)
    runner.train()
    result = dict(
        names=watch.names, scored=watch.scored, before=watch.state, images=list(images),
        losses=runner.message_hub.get_scalar('train/loss')._log_history.tolist(),
        after={k: v.clone() for k, v in runner.model.module.state_dict().items()},
    )
    images.clear()
    torch.save(result, f'{folder}/{name}.{rank}.pth')

for name in sys.argv[2:]:
    train(name)
"""

SAMPLER = dict(type='UniformStitchSampler', seed=5)


def hooks(**sampler):
    sampling = dict(type='StitchSamplingHook', sampler={**SAMPLER, **sampler})
    return [dict(type='StitchInitHook', num_images=7), sampling]


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'), train=16, val=5)


@pytest.fixture(scope='module')
def results(data, tmp_path_factory):
    """What both processes saw of runs: one whole, its end resumed, one per rank, one summed."""
    folder = tmp_path_factory.mktemp('two')
    common = dict(
        find_unused_parameters=True, train_cfg=dict(val_interval=2),
        val_cfg=dict(stitches='front', front=dict(max_forwards=4, explorers=1)),
    )  # fmt: skip
    whole = toy_config(data, folder / 'w', custom_hooks=hooks(), **common)
    resumed = toy_config(
        data, folder / 'r', custom_hooks=hooks(), resume=True,
        load_from=str(folder / 'w' / 'iter_3.pth'), **common,
    )  # fmt: skip
    apart = toy_config(data, folder / 'a', custom_hooks=hooks(per_rank=True), **common)
    summed = toy_config(
        data, folder / 's', custom_hooks=hooks(per_rank=True), find_unused_parameters=True,
        train_cfg=dict(max_iters=4, val_interval=9), optim_wrapper=dict(accumulative_counts=2),
    )  # fmt: skip
    ran_only = toy_config(
        data, folder / 'o', custom_hooks=hooks(per_rank=True),
        model_wrapper_cfg=dict(type='StitchDistributedDataParallel'),
        train_cfg=dict(max_iters=4, val_interval=9), optim_wrapper=dict(accumulative_counts=2),
    )  # fmt: skip
    best = dict(
        custom_hooks=hooks(per_rank=True), find_unused_parameters=True,
        train_cfg=dict(max_iters=5, val_interval=3), optim_wrapper=dict(accumulative_counts=2),
        default_hooks=dict(checkpoint=dict(save_best='pareto/hypervolume', rule='greater')),
    )  # fmt: skip
    saved = toy_config(data, folder / 'b', **best)
    taken_up = toy_config(
        data, folder / 't', resume=True, load_from=str(folder / 'b' / 'iter_3.pth'), **best
    )
    configs = dict(
        whole=whole, resumed=resumed, apart=apart, summed=summed, ran_only=ran_only, saved=saved,
        taken_up=taken_up,
    )  # fmt: skip
    for name, config in configs.items():
        config.dump(folder / f'{name}.py')
    shared = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', CHILD, str(folder), *configs],
            env=child_environment(RANK=str(rank), LOCAL_RANK=str(rank), **shared),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        errors = process.communicate(timeout=300)[1]
        assert process.returncode == 0, errors
    return {
        name: [torch.load(folder / f'{name}.{rank}.pth') for rank in range(2)] for name in configs
    }


def stitches_of(state):
    prefix = 'backbone.stitch_layers.'
    return {name: value for name, value in state.items() if name.startswith(prefix)}


def test_both_processes_hold_equal_stitch_layers_after_the_fit(results):
    one, two = (stitches_of(result['before']) for result in results['whole'])
    assert one.keys() == two.keys() and len(one) == 5 * 4
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_each_process_reads_its_share_of_the_images(results):
    one, two = (torch.cat(result['images']) for result in results['whole'])
    assert (len(one), len(two)) == (4, 3)
    assert not any(torch.equal(a, b) for a in one for b in two)


def test_the_fit_of_two_processes_is_that_of_one_on_all_images(results, data, tmp_path):
    result = results['whole'][0]
    backbone = MODELS.build(toy_config(data, tmp_path).model.backbone)
    parts = ((name.partition('.'), value) for name, value in result['before'].items())
    state = {name: value for (part, _, name), value in parts if part == 'backbone'}
    backbone.load_state_dict(state)
    for layer in backbone.stitch_layers.values():
        layer.set_affine(torch.zeros_like(layer.weight), torch.zeros_like(layer.bias))
    backbone.fit_stitches([batch for r in results['whole'] for batch in r['images']])
    found = stitch_weights(backbone)
    assert len(found) == 10
    for name, value in found.items():
        torch.testing.assert_close(state[f'stitch_layers.{name}'], value, rtol=1e-4, atol=1e-5)


def test_both_processes_train_the_same_stitch_in_every_step(results, data, tmp_path):
    one, two = (result['names'] for result in results['whole'])
    backbone = MODELS.build(toy_config(data, tmp_path).model.backbone)
    sampler = build_sampler(backbone, SAMPLER)
    assert one == two == [sampler.sample(step).name for step in range(6)]


def test_each_process_trains_a_stitch_of_its_own_on_request(results, data, tmp_path):
    backbone = MODELS.build(toy_config(data, tmp_path).model.backbone)
    sampler = build_sampler(backbone, dict(SAMPLER, per_rank=True))
    for rank, result in enumerate(results['apart']):
        assert result['names'] == [sampler.sample(step, rank).name for step in range(6)]
    assert results['apart'][0]['names'] != results['apart'][1]['names']


@pytest.mark.parametrize('run', ['whole', 'apart', 'summed'])
def test_both_processes_end_with_equal_weights(results, run):
    """Also where gradients are summed over stitches that differ by iteration and by process."""
    one, two = (result['after'] for result in results[run])
    names = [name for name in one if 'running_' not in name]  # statistics of each process
    assert all(torch.equal(one[name], two[name]) for name in names)
    assert any(not torch.equal(one[n], results[run][0]['before'][n]) for n in names)


def test_exchanging_the_gradients_of_what_ran_alone_changes_no_weight(results):
    for plain, ran_only in zip(results['summed'], results['ran_only']):
        assert ran_only['names'] == plain['names'] and ran_only['losses'] == plain['losses']
        assert all(torch.equal(plain['after'][n], ran_only['after'][n]) for n in plain['after'])


def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one_in_each_process(results):
    """Which takes the random states of each: they draw different augmentations."""
    for whole, resumed in zip(results['whole'], results['resumed']):
        assert resumed['losses'][-3:] == whole['losses'][-3:]
        assert resumed['names'] == whole['names'][3:]
        assert not resumed['images']  # nothing was fitted again
    assert results['whole'][0]['losses'] != results['whole'][1]['losses']


def test_both_processes_follow_the_same_front_and_go_on_with_it_when_resumed(results):
    whole, resumed = results['whole'], results['resumed']
    assert whole[0]['scored'] == whole[1]['scored']
    assert [len(names) for names in whole[0]['scored']] == [4, 4, 4]
    assert len(set(map(tuple, whole[0]['scored']))) > 1
    for one in resumed:
        assert one['scored'] == whole[0]['scored'][1:]


def test_a_run_resumed_amidst_accumulated_gradients_ends_like_one_that_was_not(results):
    """From a checkpoint that was written again in the same iteration, for a new best score."""
    for whole, resumed in zip(results['saved'], results['taken_up']):
        assert resumed['losses'][-2:] == whole['losses'][-2:]
        assert resumed['names'] == whole['names'][3:] and not resumed['images']
        names = [name for name in whole['after'] if 'running_' not in name]
        assert all(torch.equal(resumed['after'][n], whole['after'][n]) for n in names)
    one, two = results['saved']
    assert one['names'][2] != two['names'][2]  # gradients of other weights in each process


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    'way',
    [
        [],
        pytest.param(['--shard-by', 'stitches'], marks=pytest.mark.slow),
        pytest.param(['--one-by-one'], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_two_processes_score_the_stitches_as_one_does(data, tmp_path, capsys, way):
    """5 images are shared by 2 processes, so that one of them has more to do or repeats one."""
    runner = toy_runner(data, tmp_path / 'run', train_cfg=dict(max_iters=3))
    runner.train()
    runner.cfg.dump(tmp_path / 'config.py')
    tool = ROOT / 'tools' / 'test_all_stitches.py'
    call = [str(tmp_path / 'config.py'), str(tmp_path / 'run' / 'iter_3.pth'), '--out']
    torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
    assert main([*call, str(tmp_path / 'one'), '--one-by-one']) == 0
    done = run_python(*torchrun, tool, *call, tmp_path / 'two', '--launcher', 'pytorch', *way)
    assert done.returncode == 0, done.stderr
    one, two = (read(tmp_path / out / 'stitches.jsonl') for out in ('one', 'two'))
    assert one == two
    assert {row['name'] for row in one} == set(NAMES)
    assert not (tmp_path / 'two' / 'shards').exists()
    table = capsys.readouterr().out.replace(str(tmp_path / 'one'), '').splitlines()[-9:]
    printed = done.stdout.replace(str(tmp_path / 'two'), '')
    assert all(printed.count(line) == 1 for line in table if not line.startswith('+'))


@pytest.mark.slow
def test_more_processes_than_images_score_the_stitches_as_one_does(tmp_path):
    data = write_images(tmp_path / 'data', val=2)
    runner = toy_runner(data, tmp_path / 'run', train_cfg=dict(max_iters=3))
    runner.train()
    runner.cfg.dump(tmp_path / 'config.py')
    tool = ROOT / 'tools' / 'test_all_stitches.py'
    call = [str(tmp_path / 'config.py'), str(tmp_path / 'run' / 'iter_3.pth'), '--out']
    torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '3']
    assert main([*call, str(tmp_path / 'one')]) == 0
    done = run_python(*torchrun, tool, *call, tmp_path / 'three', '--launcher', 'pytorch')
    assert done.returncode == 0, done.stderr
    one, three = (read(tmp_path / out / 'stitches.jsonl') for out in ('one', 'three'))
    assert one == three
    assert {row['name'] for row in one} == set(NAMES)
