"""How the network runs: kept states, shapes, activations kept for the backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmsnnet.models import StitchNetwork
from mmsnnet.models.anchors.build import build_anchors
from mmsnnet.stitching import StitchSpace
from tests.builders import random_images, tiny_anchor, tiny_backbone


@torch.no_grad()
def test_a_kept_state_can_be_taken_up_by_several_routes():
    backbone = tiny_backbone(out_indices=(1, 5, 11))
    images = random_images(1)
    names = ('L6-S3', 'L6-S1-L4', 'L6-S2-L2')
    programs = [backbone.space.program(name) for name in names]
    shared = 0
    while len({program[: shared + 1] for program in programs}) == 1:
        shared += 1
    state = backbone.advance(backbone.begin(images), programs[0][:shared])
    kept = {key: value.clone() for key, value in state.taps.items()}
    assert shared > 6 and sorted(kept) == [0, 1]
    for name, program in zip(names, programs):
        features = backbone.outputs(backbone.advance(state, program[shared:]))
        assert all(torch.equal(a, b) for a, b in zip(features, backbone.run(images, name)))
    assert sorted(state.taps) == [0, 1]
    assert all(torch.equal(state.taps[key], value) for key, value in kept.items())


@torch.no_grad()
def test_every_route_returns_contiguous_maps_of_the_same_shape():
    backbone = tiny_backbone(out_indices=(0, 5, 11))
    for name in backbone.space.names:
        features = backbone.run(random_images(2, 40, 56), name)
        assert [tuple(feature.shape) for feature in features] == [(2, 96, 5, 7)] * 3
        assert all(feature.is_contiguous() for feature in features)


def test_recomputing_blocks_gives_the_same_gradients():
    plain, saving = tiny_backbone(drop_path_rate=0.0), tiny_backbone(drop_path_rate=0.0)
    saving.with_cp = True
    images = random_images(1)
    for backbone in (plain, saving):
        backbone.train()
        backbone.set_training_stitch('L4-S2-L4')
        sum(out.square().mean() for out in backbone(images)).backward()
    grads = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert len(grads) > 100
    for name, parameter in saving.named_parameters():
        if name in grads:
            torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-5, atol=1e-7)
        else:
            assert parameter.grad is None


def test_recomputing_blocks_keeps_fewer_activations():
    kept = {}
    for with_cp in (False, True):
        backbone = tiny_backbone(with_cp=with_cp).train()
        backbone.set_training_stitch('L12')
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            backbone(random_images(1))
        kept[with_cp] = sum(sizes)
    assert kept[True] < 0.3 * kept[False]


@pytest.mark.parametrize(
    'images',
    [
        torch.zeros(3, 64, 64),
        torch.zeros(1, 1, 64, 64),
        torch.zeros(0, 3, 64, 64),
        torch.zeros(1, 64, 64, 3),
    ],
)
def test_images_of_another_layout_are_refused(images):
    with pytest.raises(ValueError, match=r'shape \(B, 3, H, W\), got \('):
        tiny_backbone()(images)


def test_a_class_token_cannot_be_returned_where_there_is_none():
    with pytest.raises(ValueError, match='output_cls_token=True needs anchors with a class token'):
        tiny_backbone(kind='no class token', output_cls_token=True)


def test_the_network_alone_can_be_built_and_run():
    anchors, specs = build_anchors([tiny_anchor(3, 96), tiny_anchor(3, 48)], (64, 64), 0.0, False)
    network = StitchNetwork(anchors, StitchSpace(specs, (2,), 'one_way'), lora_rank=4)
    assert network.space.names == ('S3', 'L3', 'S1-L2', 'S2-L1')
    assert (network.channels, network.patch_size) == (96, 8)
    assert network.run(random_images(1), 'S1-L2')[0].shape == (1, 96, 8, 8)
