"""The stitched backbone: choice of stitches, modes, state, and what it refuses."""

from __future__ import annotations

import io

import pytest
import torch

from mmsnnet.models import StitchedViT
from tests.builders import random_images, tiny_backbone, tiny_vit


def snapshot(backbone: StitchedViT) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in backbone.state_dict().items()}


def assert_unchanged(backbone: StitchedViT, before: dict[str, torch.Tensor]) -> None:
    after = backbone.state_dict()
    assert [n for n in before if not torch.equal(after[n], before[n])] == []


def test_eval_runs_the_costliest_anchor_until_another_is_chosen():
    backbone, images = tiny_backbone(), random_images(1)
    assert backbone.stitch.name == 'L12'
    assert torch.equal(backbone(images)[0], backbone.run(images, 'L12')[0])
    for choice in ('S2-L8', 0, backbone.space['L4-S4']):
        backbone.set_stitch(choice)
        assert backbone.stitch is backbone.space[choice]
        assert torch.equal(backbone(images)[1], backbone.run(images, choice)[1])


@pytest.mark.parametrize('stitch', ['S6', 0])
def test_the_first_stitch_can_be_set_in_the_config(stitch):
    assert tiny_backbone(stitch=stitch).stitch.name == 'S6'


def test_use_stitch_restores_the_former_choice_also_after_an_error():
    backbone = tiny_backbone(stitch='S2-L8')
    with backbone.use_stitch('S6') as stitch:
        assert stitch.name == backbone.stitch.name == 'S6'
        with backbone.use_stitch('L12'):
            assert backbone.stitch.name == 'L12'
        assert backbone.stitch.name == 'S6'
    assert backbone.stitch.name == 'S2-L8'

    def fail() -> None:
        with backbone.use_stitch('S6'):
            raise RuntimeError('nope')

    with pytest.raises(RuntimeError, match='nope'):
        fail()
    assert backbone.stitch.name == 'S2-L8'


@pytest.mark.parametrize(
    ('stitch', 'error', 'message'),
    [
        ('S2-L9', ValueError, "Unknown stitch 'S2-L9' .* closest names: .*S2-L8"),
        (999, ValueError, 'Unknown stitch id 999; ids are 0 to 31'),
        (-1, ValueError, 'Unknown stitch id -1'),
        (1.5, TypeError, r'given by name or id, got 1\.5'),
    ],
)
def test_an_unknown_stitch_is_refused_and_the_choice_stays(stitch, error, message):
    backbone = tiny_backbone()
    for choose in (backbone.set_stitch, backbone.set_training_stitch):
        with pytest.raises(error, match=message):
            choose(stitch)
    assert backbone.stitch.name == 'L12'


def test_an_eval_forward_changes_no_state():
    backbone = tiny_backbone(drop_path_rate=0.5)
    before, rng = snapshot(backbone), torch.get_rng_state()
    for name in ('L12', 'S2-L8'):
        with backbone.use_stitch(name):
            first, second = backbone(random_images(1)), backbone(random_images(1))
            assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert_unchanged(backbone, before)
    assert torch.equal(torch.get_rng_state(), rng)


def test_changing_the_mode_changes_neither_weights_nor_eval_output():
    backbone = tiny_backbone(stitch='L4-S4')
    before, images = snapshot(backbone), random_images(1)
    first = backbone(images)[0]
    for mode in (True, False, True, True, False, False):
        backbone.train(mode)
    assert_unchanged(backbone, before)
    assert torch.equal(backbone(images)[0], first)


def test_a_training_forward_leaves_the_choice_of_eval_alone():
    backbone, images = tiny_backbone(stitch='S6'), random_images(1)
    before = backbone(images)[0]
    backbone.train()
    for _ in range(5):
        backbone(images)
    backbone.set_training_stitch('L12')
    backbone(images)
    assert backbone.stitch.name == 'S6'
    assert torch.equal(backbone.eval()(images)[0], before)


def test_a_training_forward_runs_the_stitch_that_was_set_for_it():
    backbone, images = tiny_backbone(drop_path_rate=0.0).train(), random_images(1)
    for name in ('S2-L8', 'L2-S5'):
        backbone.set_training_stitch(name)
        for _ in range(3):
            assert torch.equal(backbone(images)[0], backbone.run(images, name)[0])


def test_drop_path_acts_in_training_alone():
    backbone, images = tiny_backbone(drop_path_rate=0.9).train(), random_images(4)
    backbone.set_training_stitch('L12')
    assert not torch.equal(backbone(images)[0], backbone(images)[0])
    backbone.eval()
    assert torch.equal(backbone(images)[0], backbone(images)[0])


@pytest.mark.parametrize('training', [False, True])
def test_weights_saved_in_any_mode_give_the_same_features_elsewhere(training):
    backbone, images = tiny_backbone(), random_images(1)
    file = io.BytesIO()
    torch.save(backbone.train(training).state_dict(), file)
    file.seek(0)
    other = tiny_backbone(seed=5)
    other.load_state_dict(torch.load(file))
    for name in ('S6', 'L12', 'S2-L8', 'L2-S4-L2'):
        for a, b in zip(backbone.eval().run(images, name), other.run(images, name)):
            assert torch.equal(a, b)


def test_training_moves_what_it_should_and_keeps_the_fitted_weights():
    backbone = tiny_backbone(drop_path_rate=0.0).train()
    before = snapshot(backbone)
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    backbone.set_training_stitch('S2-L4-S2')
    sum(out.square().mean() for out in backbone(random_images(1))).backward()
    optimizer.step()
    after = backbone.state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    layers = {name.split('.')[1] for name in moved if name.startswith('stitch_layers')}
    assert layers == {'S2_to_L4', 'L8_to_S4', 'S6_to_L12'}
    assert not any(name.endswith('.weight') and 'stitch_layers' in name for name in moved)
    assert {f'stitch_layers.S2_to_L4.{part}' for part in ('bias', 'lora_a', 'lora_b')} <= moved
    blocks = {tuple(name.split('.')[1:5:3]) for name in moved if '.blocks.' in name}
    expected = {('S', str(i)) for i in (0, 1, 4, 5)} | {('L', str(i)) for i in range(4, 8)}
    assert blocks == expected


@torch.no_grad()
@pytest.mark.parametrize('size', [(64, 64), (32, 96), (128, 128), (8, 8)])
def test_other_image_sizes_interpolate_position_embeddings_as_timm_does(size):
    backbone = tiny_backbone()
    vit = tiny_vit(12, 96)
    vit.load_state_dict(backbone.anchors['L'].vit.state_dict())
    images = random_images(1, *size)
    theirs = vit.forward_intermediates(images, (5, 11), intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(backbone(images), theirs))


@torch.no_grad()
def test_an_oblong_layout_is_as_good_as_a_square_one():
    backbone = tiny_backbone(img_size=(40, 72))
    assert backbone.anchors['S'].vit.pos_embed.shape[1] == 1 + 5 * 9
    features = backbone.run(random_images(1, 40, 72), 'S2-L8')
    assert [tuple(feature.shape) for feature in features] == [(1, 96, 5, 9)] * 2


@torch.no_grad()
def test_a_big_image_with_partial_patches_gives_all_its_patches():
    backbone = tiny_backbone(((2, 32), (2, 32)), out_indices=(1,))
    assert backbone(random_images(1, 509, 251))[0].shape == (1, 32, 64, 32)


def test_costs_are_counted_at_the_size_of_the_config_or_at_another():
    backbone = tiny_backbone(img_size=(40, 72))
    assert backbone.costs.image_size == (40, 72)
    assert list(backbone.costs) == list(backbone.space.names)
    larger = backbone.costs.at(128)
    assert all(larger[name].flops > backbone.costs[name].flops for name in larger)
    assert all(larger[name].params == backbone.costs[name].params for name in larger)
