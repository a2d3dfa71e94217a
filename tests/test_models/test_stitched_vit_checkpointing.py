"""Training whose forwards are run again in the backward pass, or that records no gradients."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from mmengine.runner import turn_on_activation_checkpointing
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmsnnet.models import StitchedViT
from tests.builders import random_images, tiny_backbone

SHAPE = ((2, 32), (4, 48))


class Model(nn.Module):
    """What a segmentor is to its backbone."""

    def __init__(self, backbone: StitchedViT) -> None:
        super().__init__()
        self.backbone = backbone

    def loss(self, images: Tensor) -> Tensor:
        return sum(one.square().mean() for one in self.backbone(images))


def toy(**settings) -> StitchedViT:
    return tiny_backbone(SHAPE, drop_path_rate=0.0, **settings).train()


def plain_gradients(images: list[Tensor], passes: int) -> tuple[list[float], dict[str, Tensor]]:
    """Losses, and gradients that add up over some passes, of a backbone without checkpointing."""
    backbone = toy()
    return run(Model(backbone), backbone, images, passes)


def run(
    model: Model, backbone: StitchedViT, images: list[Tensor], passes: int
) -> tuple[list[float], dict[str, Tensor]]:
    losses = []
    for _ in range(passes):
        loss = [model.loss(one) for one in images]
        losses += [float(one.detach()) for one in loss]
        sum(loss).backward()
    named = backbone.named_parameters()
    return losses, {name: one.grad for name, one in named if one.grad is not None}


def checkpointed_from_within(reentrant: bool) -> tuple[Model, StitchedViT]:
    """A model whose whole loss is checkpointed, so that the backbone is called twice."""
    backbone = toy()
    model = Model(backbone)
    plain = model.loss
    model.loss = lambda images: checkpoint(
        plain, images.clone().requires_grad_(reentrant), use_reentrant=reentrant
    )
    return model, backbone


def checkpointed_by_mmengine() -> tuple[Model, StitchedViT]:
    backbone = toy()
    model = Model(backbone)
    turn_on_activation_checkpointing(model, ['backbone'])
    return model, backbone


WAYS = {
    'mmengine': checkpointed_by_mmengine,
    'from within': lambda: checkpointed_from_within(False),
    'from within, reentrant': lambda: checkpointed_from_within(True),
}


@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint')
@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('crops', [1, 3])
def test_the_backward_pass_runs_the_stitch_of_the_forward_again(way, crops):
    images = [random_images(1, 16, seed=seed) for seed in range(crops)]
    losses, expected = plain_gradients(images, 4)
    model, backbone = WAYS[way]()
    found_losses, found = run(model, backbone, images, 4)
    assert found_losses == pytest.approx(losses, rel=1e-6)
    assert len(set(losses)) > 2  # several stitches
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint')
@pytest.mark.parametrize('way', WAYS)
def test_forwards_that_are_run_again_do_not_advance_the_sampler(way):
    model, backbone = WAYS[way]()
    run(model, backbone, [random_images(1, 16)], 5)
    assert int(backbone.training_steps) == 5


def test_parts_of_one_tensor_are_told_apart():
    images = random_images(4, 16)
    _, expected = plain_gradients([images[:2].clone(), images[2:].clone()], 3)
    backbone = toy()
    model = Model(backbone)
    for _ in range(3):
        parts = [checkpoint(model.loss, one, use_reentrant=False) for one in images.split(2)]
        sum(parts).backward()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            backbone.get_parameter(name).grad, gradient, rtol=1e-4, atol=1e-6
        )


def test_one_tensor_that_ran_as_two_stitches_is_refused():
    backbone, images = toy(), random_images(1, 16)
    model = Model(backbone)
    losses = [checkpoint(model.loss, images, use_reentrant=False) for _ in range(4)]
    with pytest.raises(RuntimeError, match=r'images whose stitch ran .* with_cp=True') as caught:
        sum(losses).backward()
    assert '\n' not in str(caught.value)


def test_one_tensor_serves_again_after_its_backward_pass():
    backbone, images = toy(), random_images(1, 16)
    model = Model(backbone)
    _, expected = plain_gradients([images], 6)
    for _ in range(6):
        checkpoint(model.loss, images, use_reentrant=False).backward()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            backbone.get_parameter(name).grad, gradient, rtol=1e-4, atol=1e-6
        )


def test_a_stitch_that_was_set_is_run_again():
    backbone, images = toy(), random_images(1, 16)
    model = Model(backbone)
    backbone.set_training_stitch('S1-L2')
    first = checkpoint(model.loss, images, use_reentrant=False)
    backbone.set_training_stitch('L4')
    first.backward()
    ran = {name for name, one in backbone.named_parameters() if one.grad is not None}
    assert any(name.startswith('anchors.S.') for name in ran)
    assert not any('L.vit.blocks.0.' in name for name in ran)


def test_nothing_is_remembered_of_freed_images():
    backbone = toy()
    for seed in range(400):
        backbone._forwards.add(random_images(1, 8, seed=seed), backbone.stitch)
    gc.collect()
    assert len(backbone._forwards._records) <= 64


def test_copies_do_not_share_what_is_remembered():
    backbone = toy()
    Model(backbone).loss(random_images(1, 16)).backward()
    twin = copy.deepcopy(backbone)
    assert not twin._forwards._records
    Model(twin).loss(random_images(1, 16)).backward()
    assert int(twin.training_steps) == 2 and int(backbone.training_steps) == 1


@torch.no_grad()
def test_without_gradients_the_chosen_stitch_runs_and_does_not_count():
    backbone, images = toy(fitted=False), random_images(1, 16)
    for name in ('S2', 'L4', 'L2-S1'):
        backbone.set_stitch(name)
        for one, other in zip(backbone(images), backbone.run(images, name)):
            assert torch.equal(one, other)
    assert int(backbone.training_steps) == 0 and not backbone.is_fitted


def test_the_stitch_of_one_forward_can_be_given():
    backbone, images = toy(), random_images(1, 16)
    for one, other in zip(backbone(images, 'S1-L2'), backbone.run(images, 'S1-L2')):
        assert torch.equal(one, other)
    assert int(backbone.training_steps) == 0
