"""A stitched classifier in two processes: each trains stitches of its own, and resumes exactly."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mmsnnet.models import build_sampler
from tests.classifiers import build, classifier, run_config, write_pictures
from tests.test_engine.test_distributed import free_port
from tests.toy_segmentation import child_environment

pytest.importorskip('mmpretrain', reason='classifiers are those of mmpretrain')
pytestmark = pytest.mark.slow

CHILD = """
import os, sys, torch
from mmengine.config import Config
from mmengine.runner import Runner
import mmsnnet
from mmsnnet.compat import prepare_cpu_launch

torch.set_num_threads(1)
for file in sys.argv[1:]:
    cfg = Config.fromfile(file)
    cfg.launcher = 'pytorch'
    assert prepare_cpu_launch(cfg)
    runner = Runner.from_cfg(cfg)
    model, names = runner.model.module, []
    run = model.backbone.run
    def spy(x, stitch):
        if model.training:
            names.append(stitch.name)
        return run(x, stitch)
    model.backbone.run = spy
    runner.train()
    torch.save(dict(
        names=names, after=model.state_dict(),
        losses=runner.message_hub.get_scalar('train/loss')._log_history.tolist(),
    ), f"{file}.{os.environ['RANK']}.pth")
"""
SAMPLER = dict(type='UniformStitchSampler', seed=5, per_rank=True)


def config(root, work_dir, **more):
    found = run_config(root, work_dir, classifier(), max_iters=6)
    found.merge_from_dict(
        dict(
            find_unused_parameters=True,
            train_dataloader=dict(batch_size=4),
            default_hooks=dict(checkpoint=dict(interval=3)),
            **more,
        )
    )
    found.custom_hooks[1]['sampler'] = SAMPLER
    return found


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """What both processes saw of a run of 6 iterations, and of one resumed after 3 of them."""
    folder = tmp_path_factory.mktemp('two')
    root = write_pictures(folder / 'data', train=24, val=6)
    half = str(folder / 'whole' / 'iter_3.pth')
    configs = dict(
        whole=config(root, folder / 'whole'),
        resumed=config(root, folder / 'resumed', resume=True, load_from=half),
    )
    for name, one in configs.items():
        one.dump(folder / f'{name}.py')
    shared = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', CHILD, *(str(folder / f'{name}.py') for name in configs)],
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
        name: [torch.load(folder / f'{name}.py.{rank}.pth') for rank in range(2)]
        for name in configs
    }


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_each_process_trains_the_stitches_that_the_sampler_draws_for_it(results):
    sampler = build_sampler(build(classifier()).backbone, SAMPLER)
    for rank, result in enumerate(results['whole']):
        assert result['names'] == [sampler.sample(step, rank).name for step in range(6)]
    first, second = (result['names'] for result in results['whole'])
    assert first != second


def test_both_processes_end_with_the_same_weights_of_stitches_that_end_in_either_anchor(results):
    first, second = results['whole']
    assert same(first['after'], second['after'])
    ends = {name.split('-')[-1][0] for result in (first, second) for name in result['names']}
    assert ends == {'S', 'L'}


def test_a_resumed_run_repeats_the_stitches_losses_and_weights_of_each_process(results):
    for whole, resumed in zip(results['whole'], results['resumed']):
        assert resumed['names'] == whole['names'][3:]
        # Those before come from the checkpoint, which holds what the first process logged.
        assert len(resumed['losses']) == len(whole['losses']) == 6
        assert resumed['losses'][3:] == whole['losses'][3:]
        assert same(resumed['after'], whole['after'])
