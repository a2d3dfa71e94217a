"""Plans against real steps of a small training."""

from __future__ import annotations

from functools import partial

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

BATCH, SIZE = 4, (96, 96)
STITCHES = ('S6', 'L6-S3', 'L12')


def recipe() -> Config:
    cfg = Config.fromfile(config_path('upernet_snnetv2_rooms.py'))
    cfg.model.backbone.drop_path_rate = 0.0
    return cfg


@pytest.fixture(scope='module')
def plan():
    cfg = recipe()
    return plan_training(build_without_data(cfg), cfg, STITCHES, BATCH, SIZE, gpus=4)


@pytest.fixture(scope='module')
def real():
    """A model that can be trained, and its optimizer."""
    cfg = recipe()
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model).train()
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    backbone = find_stitched_backbone(model)
    backbone.skip_anchor_weights()
    backbone.mark_fitted()
    return model, backbone, optimizer


def nbytes(tensors):
    return sum(one.numel() * one.element_size() for one in tensors)


def backward(model):
    images, samples = training_batch(model, BATCH, SIZE)
    model.parse_losses(model.loss(images, samples))[0].backward()


def measured_peak(run):
    """Most bytes that torch's allocator had given out during a call, by its profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        run()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == '[memory]']
    live = peak = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def test_weights_and_state_of_the_optimizer_are_those_of_the_real_training(plan, real):
    model, _, _ = real
    learning = [p for p in model.parameters() if p.requires_grad]
    memory = plan.stitches[0].memory
    assert memory.weights == nbytes((*model.parameters(), *model.buffers()))
    # AdamW keeps two moments of each weight, and the number of its steps in float32.
    assert memory.optimizer == 2 * nbytes(learning) + 4 * len(learning)
    assert plan.gradient_bytes == plan.bucket_bytes == nbytes(learning)
    assert plan.sent_bytes == 2 * 3 / 4 * nbytes(learning)


@pytest.mark.parametrize('number', range(len(STITCHES)))
def test_gradients_and_peak_are_those_of_a_real_step(plan, real, number):
    model, backbone, optimizer = real
    planned = plan.stitches[number]
    assert planned.name == STITCHES[number]
    backbone.set_training_stitch(planned.name)
    optimizer.zero_grad(set_to_none=True)
    backward(model)  # buffers that kernels make once
    optimizer.zero_grad(set_to_none=True)
    peak = measured_peak(partial(backward, model))
    trained = [p for p in model.parameters() if p.grad is not None]
    assert planned.memory.gradients == nbytes(trained)
    assert planned.idle_share == pytest.approx(1 - nbytes(trained) / plan.gradient_bytes, abs=1e-3)
    before = planned.memory.weights + planned.memory.optimizer
    assert planned.memory.peak - before == pytest.approx(peak, rel=0.1)


def test_the_largest_batch_fits_and_one_image_more_does_not(plan):
    stitch = plan.stitches[-1]
    memory = plan.device_bytes(stitch) + 2.5 * stitch.per_image
    assert plan.largest_batch(stitch, memory) == BATCH + 2
    assert plan.largest_batch(stitch, 0) == 0


def test_a_config_without_an_optimizer_is_refused():
    cfg = recipe()
    model = build_without_data(cfg)
    cfg.pop('optim_wrapper')
    with pytest.raises(ValueError, match='has no optim_wrapper'):
        plan_training(model, cfg)


@pytest.mark.parametrize(
    ('wrong', 'said'),
    [(dict(gpus=0), '1 or more, got 0'), (dict(batch_size=0), '1 or more, got 0')],
)
def test_impossible_numbers_are_refused(wrong, said):
    cfg = recipe()
    with pytest.raises(ValueError, match=said):
        plan_training(build_without_data(cfg), cfg, ['S6'], **{'batch_size': 2, **wrong})


def test_one_image_is_refused_where_a_norm_would_refuse_it_and_planned_where_norms_are_joint():
    """SyncBN sees the images of other processes too."""
    cfg = recipe()
    plan = plan_training(build_without_data(cfg), cfg, ['S6'], 1, SIZE, gpus=2)
    assert plan.batch_size == 1 and plan.stitches[0].memory.activations > 0
    with pytest.raises(ValueError, match='batch size of 1 cannot train this model'):
        plan_training(build_without_data(cfg), cfg, ['S6'], 1, SIZE, gpus=1)
