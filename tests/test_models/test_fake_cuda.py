"""Forwards on CUDA mix no devices, which fake tensors tell without a GPU.

All parameters and buffers become fake tensors on 'cuda' and so do the images; an operator that
meets a tensor of the CPU too (an index, a table, a grid made on the way) raises, as it would on a
GPU. Nothing is computed.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmsnnet.compat.installation import numbers_of
from mmsnnet.models import SimpleFeaturePyramid, build_sampler
from mmsnnet.models.prefix_cache import HeldTensors, PrefixCache
from tests.builders import ALL_KINDS, tiny_anchor
from tests.segmentors import (
    build,
    build_segmentor,
    head,
    multi_level_neck,
    setr_head,
    single_head,
    tiny_stitched,
)


def wants_a_driver() -> bool:
    """Whether this torch makes fake tensors on 'cuda' only where there is a GPU, as 2.1 does."""
    try:
        with FakeTensorMode():
            torch.empty(1, device='cuda')
    except RuntimeError as error:
        return 'driver' in str(error)
    return False


pytestmark = pytest.mark.skipif(
    numbers_of(torch.__version__) < (2, 6) and wants_a_driver(),
    reason=f'torch {torch.__version__} makes fake tensors on cuda only with a driver',
)


def fake_of(tensor: torch.Tensor) -> torch.Tensor:
    """Its fake on 'cuda', under a FakeTensorMode."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device='cuda')


def onto_fake_cuda(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """The module, with fake tensors on 'cuda' in place of its parameters and buffers."""
    with mode:
        for child in module.modules():
            for name, tensor in child._buffers.items():
                if tensor is not None:
                    child._buffers[name] = fake_of(tensor)
            for name, tensor in child._parameters.items():
                if tensor is not None:
                    child._parameters[name] = nn.Parameter(fake_of(tensor), tensor.requires_grad)
    return module


def assert_on_cuda(outputs, count):
    tensors = [t for item in outputs for t in (item if isinstance(item, tuple) else (item,))]
    assert len(tensors) == count
    assert {tensor.device.type for tensor in tensors} == {'cuda'}


class OnTheCpu(nn.Module):
    """Makes a table on the CPU in every forward."""

    def forward(self, x):
        return x + torch.arange(x.shape[-1]).float()


def test_a_tensor_of_the_cpu_is_noticed():
    mode = FakeTensorMode()
    module = onto_fake_cuda(OnTheCpu(), mode)
    with mode, pytest.raises(RuntimeError, match='device'):
        module(torch.empty(2, 3, device='cuda'))


BACKBONES = {
    **{kind: dict(kind=kind) for kind in ALL_KINDS},
    'windows': dict(window_size=3, global_blocks=(1, 3)),
    'final norm': dict(final_norm=True),
    'class tokens': dict(output_cls_token=True),
}


@pytest.mark.parametrize('name', BACKBONES)
def test_every_kind_of_anchor_runs_every_family_in_both_modes_and_at_another_size(name):
    settings = dict(BACKBONES[name])
    kind = settings.pop('kind', 'class token')
    config = dict(tiny_stitched(**settings), anchors=[
        tiny_anchor(2, 32, kind), tiny_anchor(4, 64, kind)])  # fmt: skip
    backbone = build(config)
    mode = FakeTensorMode()
    onto_fake_cuda(backbone, mode)
    stitches = [next(s for s in backbone.space if s.family == f) for f in backbone.space.families]
    with mode:
        for training, size in ((True, (64, 64)), (False, (48, 72))):
            images = torch.empty(2, 3, *size, device='cuda')
            for stitch in stitches:
                outputs = backbone.train(training).run(images, stitch)
                assert_on_cuda(outputs, 8 if settings.get('output_cls_token') else 4)


SEGMENTORS = {
    'SETR': dict(head=setr_head(norm_cfg=dict(type='BN'))),
    'UPerNet behind a neck': dict(head=head('UPerHead', 32), neck=multi_level_neck()),
    'UPerNet behind a pyramid': dict(
        head=head('UPerHead'),
        neck=dict(type='Feature2Pyramid', embed_dim=64, norm_cfg=dict(type='BN')),
    ),
    'Segformer': dict(head=head('SegformerHead')),
    'an auxiliary head': dict(head=single_head('FCNHead'), auxiliary=single_head('FCNHead')),
    'depth': dict(
        head=dict(type='DPTDepthHead', in_channels=[64] * 4, channels=16,
                  post_process_channels=[8] * 4, readout_type='project'),
        backbone=tiny_stitched(output_cls_token=True), type='DepthEstimator',
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', SEGMENTORS)
def test_necks_and_heads_run_behind_the_backbone(name):
    model = build_segmentor(**copy.deepcopy(SEGMENTORS[name])).eval()
    mode = FakeTensorMode()
    onto_fake_cuda(model, mode)
    with mode, torch.no_grad():
        outputs = model.forward(torch.empty(1, 3, 64, 64, device='cuda'), mode='tensor')
    assert_on_cuda([outputs], 1)


@pytest.mark.parametrize('training', [False, True])
def test_the_simple_feature_pyramid_runs(training):
    mode = FakeTensorMode()
    neck = onto_fake_cuda(SimpleFeaturePyramid(64, 32).train(training), mode)
    with mode:
        assert_on_cuda(neck((torch.empty(2, 64, 8, 12, device='cuda'),)), 5)


@pytest.mark.parametrize('learns', [False, True])
def test_stitches_that_share_beginnings_run_as_in_a_sweep_and_in_a_training_step(
    learns, monkeypatch
):
    """Fake tensors have no place in memory, so what is held is not counted here."""
    monkeypatch.setattr(HeldTensors, 'add', lambda *_: None)
    monkeypatch.setattr(HeldTensors, 'remove', lambda *_: None)
    backbone = build(tiny_stitched()).train(learns)
    backbone.mark_fitted()
    mode = FakeTensorMode()
    onto_fake_cuda(backbone, mode)
    cache = PrefixCache(backbone, backbone.space.names, learns=learns)
    with mode, torch.set_grad_enabled(learns), cache.activate():
        images = torch.empty(2, 3, 64, 64, device='cuda')
        outputs = [item for _ in cache.routes() for item in backbone(images)]
    assert_on_cuda(outputs, 4 * len(cache.tree))


def test_a_training_forward_counts_and_samples_without_reading_the_device():
    """Reading would wait for the GPU, and raises here."""
    backbone = build(tiny_stitched()).train()
    backbone.mark_fitted()
    mode = FakeTensorMode()
    onto_fake_cuda(backbone, mode)
    sampler = build_sampler(backbone)
    with mode:
        for step in range(3):
            stitch = sampler.sample(step)
            backbone.set_training_stitch(stitch)
            assert_on_cuda(backbone(torch.empty(2, 3, 64, 64, device='cuda')), 4)
            assert backbone.last_stitch is stitch
    assert backbone.training_steps.device.type == 'cuda'
