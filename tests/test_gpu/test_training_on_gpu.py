"""Training and sweeps on CUDA: mixed precision, resuming, wrappers, memory, processes."""

from __future__ import annotations

import json
import math

import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from mmsnnet import config_path
from mmsnnet.apis.model_config import build_without_data
from mmsnnet.evaluation.planning.training_batch import training_batch
from mmsnnet.evaluation.planning.training_plan import plan_training
from mmsnnet.models import find_stitched_backbone
from tests.distributed_gradients import SCENARIOS, found_by_two_processes
from tests.toy_segmentation import (
    NAMES,
    ROOT,
    backbone_of,
    losses,
    run_python,
    toy_config,
    toy_runner,
    write_images,
)

pytestmark = pytest.mark.gpu
DEVICE = 'cuda'
OPTIM = dict(type='AmpOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
TORCHRUN = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'), train=8, val=4)


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """A run of six iterations in mixed precision, with the fit, validation and pinned memory."""
    folder = tmp_path_factory.mktemp('trained')
    loader = dict(pin_memory=True)
    runner = toy_runner(data, folder / 'run', optim_wrapper=OPTIM, train_dataloader=loader)
    runner.train()
    runner.cfg.dump(folder / 'config.py')
    return runner, folder


def test_a_training_in_mixed_precision_fits_learns_and_scores_on_the_device(trained):
    runner, _ = trained
    backbone = backbone_of(runner)
    tensors = [*runner.model.parameters(), *runner.model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {DEVICE}
    assert backbone.is_fitted and int(backbone.training_steps) == 6
    assert len(losses(runner)) == 6 and all(map(math.isfinite, losses(runner)))
    assert {item.dtype for item in runner.model.parameters()} == {torch.float32}


def test_a_resumed_run_goes_on_with_the_losses_of_an_uninterrupted_one(trained, data, tmp_path):
    """To rounding: kernels of CUDA add up in no fixed order."""
    runner, folder = trained
    resumed = toy_runner(
        data, tmp_path / 'run', optim_wrapper=OPTIM, resume=True,
        load_from=str(folder / 'run' / 'iter_3.pth'),
    )  # fmt: skip
    resumed.train()
    assert losses(resumed)[-3:] == pytest.approx(losses(runner)[-3:], rel=2e-2)


@pytest.mark.parametrize('way', [[], ['--one-by-one'], ['--shard-by', 'stitches']], ids=str)
def test_processes_of_nccl_score_all_stitches_like_one_process(trained, tmp_path, way):
    _, folder = trained
    tool = ROOT / 'tools' / 'test_all_stitches.py'
    call = [tool, folder / 'config.py', folder / 'run' / 'iter_6.pth', '--out']
    count = str(torch.cuda.device_count())
    for out, start, more in (
        ('one', (), ['--one-by-one']), ('all', (*TORCHRUN, count), ['--launcher', 'pytorch', *way])
    ):  # fmt: skip
        done = run_python(*start, *call, tmp_path / out, *more)
        assert done.returncode == 0, done.stderr
    one, many = (
        {row['name']: row['metrics']['mIoU'] for row in map(json.loads, text.splitlines())}
        for text in ((tmp_path / out / 'stitches.jsonl').read_text() for out in ('one', 'all'))
    )
    assert one.keys() == many.keys() == set(NAMES)
    assert many == pytest.approx(one, abs=0.5)


@pytest.fixture(scope='module')
def exchanged(tmp_path_factory):
    """What two processes with models on one card found, which exchange gradients by gloo."""
    return found_by_two_processes(tmp_path_factory.mktemp('exchanged') / 'found', DEVICE)


@pytest.mark.parametrize('name', SCENARIOS)
def test_exchanged_gradients_are_those_of_torchs_wrapper(exchanged, name):
    for theirs, ours, _ in (process[name] for process in exchanged):
        for expected, gradients in zip(theirs, ours):
            assert expected.keys() == gradients.keys()
            for key, value in expected.items():
                torch.testing.assert_close(gradients[key], value, rtol=5e-2, atol=1e-4)


NCCL = """
import os, torch
from torch import distributed
from mmsnnet.engine import StitchDistributedDataParallel
from tests.builders import random_images, tiny_backbone

rank = int(os.environ['LOCAL_RANK'])
torch.cuda.set_device(rank)
distributed.init_process_group('nccl')
found = []
for wraps in (False, True):
    backbone = tiny_backbone(drop_path_rate=0.0).cuda().train()
    model = StitchDistributedDataParallel(backbone, bucket_cap_mb=0.01) if wraps else backbone
    for stitch in ('S6', 'L12', 'S3-L6'):
        backbone.set_training_stitch(stitch)
        backbone.zero_grad(set_to_none=True)
        images = random_images(seed=rank).cuda()
        sum(item.square().mean() for item in model(images)).backward()
        gradients = [p.grad.clone() for p in backbone.parameters() if p.grad is not None]
        if not wraps:
            for gradient in gradients:
                distributed.all_reduce(gradient)
                gradient /= distributed.get_world_size()
        found.append(gradients)
for expected, gradients in zip(found[:3], found[3:]):
    assert len(expected) == len(gradients) > 50
    for one, other in zip(expected, gradients):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-4)
distributed.destroy_process_group()
"""


def test_nccl_carries_gradients_and_gloo_the_agreements(tmp_path):
    script = tmp_path / 'exchange.py'
    script.write_text(NCCL)
    done = run_python(*TORCHRUN, str(torch.cuda.device_count()), script)
    assert done.returncode == 0, done.stderr


TRAIN = """
import sys
from mmengine.config import Config
from mmengine.runner import Runner
import mmsnnet

cfg = Config.fromfile(sys.argv[1])
cfg.launcher = 'pytorch'
Runner.from_cfg(cfg).train()
"""


@pytest.mark.parametrize('wrapper', ['MMDistributedDataParallel', 'StitchDistributedDataParallel'])
def test_the_runner_trains_with_synchronised_norms_in_processes_of_nccl(data, tmp_path, wrapper):
    cfg = toy_config(data, tmp_path / 'run', optim_wrapper=OPTIM)
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.norm_cfg = dict(type='SyncBN')
    cfg.model_wrapper_cfg = dict(type=wrapper, find_unused_parameters=True)
    cfg.dump(tmp_path / 'config.py')
    (tmp_path / 'train.py').write_text(TRAIN)
    count = str(torch.cuda.device_count())
    done = run_python(*TORCHRUN, count, tmp_path / 'train.py', tmp_path / 'config.py')
    assert done.returncode == 0, done.stderr
    state = torch.load(tmp_path / 'run' / 'iter_6.pth', weights_only=False)['state_dict']
    assert all(bool(value.isfinite().all()) for value in state.values())


@pytest.mark.parametrize('stitch', ['S6', 'L6-S3', 'L12'])
def test_the_planned_peak_is_that_of_a_real_step(stitch):
    """Within a sixth: kernels of CUDA have workspaces of their own."""
    cfg = Config.fromfile(config_path('upernet_snnetv2_rooms.py'))
    batch, size = 8, (96, 96)
    plan = plan_training(build_without_data(cfg), cfg, [stitch], batch, size)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model).train().to(DEVICE)
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    backbone = find_stitched_backbone(model)
    backbone.skip_anchor_weights()
    backbone.mark_fitted()
    for parameter in model.parameters():  # so that the optimizer has the state of all
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    backbone.set_training_stitch(stitch)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.reset_peak_memory_stats()
        images, samples = training_batch(model, batch, size)
        samples = [sample.to(DEVICE) for sample in samples]
        model.parse_losses(model.loss(images.to(DEVICE), samples))[0].backward()
        optimizer.step()
    assert plan.stitches[0].memory.peak == pytest.approx(
        torch.cuda.max_memory_allocated(), rel=1 / 6
    )
