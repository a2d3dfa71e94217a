"""The least-squares fit of all stitch layers of a backbone."""

from __future__ import annotations

import gc
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from mmsnnet.models import StitchedViT, StitchFit
from mmsnnet.models.stitch_fit import evaluating
from tests.builders import random_images, tiny_anchor, tiny_backbone


def features_of_timm(backbone: StitchedViT, label: str, images: Tensor, norm: bool) -> list:
    """Tokens (N, C) behind each block of an anchor, as float64 arrays."""
    maps = backbone.anchors[label].vit.forward_intermediates(
        images, norm=norm, output_fmt='NLC', return_prefix_tokens=True, intermediates_only=True
    )
    return [torch.cat([p, x], 1).flatten(0, 1).detach().double().numpy() for x, p in maps]


def ends(backbone: StitchedViT, name: str, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Features of timm that a stitch layer maps from and to."""
    lift, source, start, target, stop = re.fullmatch(
        r'(lift_)?([A-Z])(\d+)_to_([A-Z])(\d+)', name
    ).groups()
    x = features_of_timm(backbone, source, images, bool(lift))[int(start) - 1]
    y = features_of_timm(backbone, target, images, bool(lift))[int(stop) - 1]
    return x, y


def fit_by_hand(backbone: StitchedViT, name: str, images: Tensor) -> tuple[np.ndarray, ...]:
    """Weight, bias and explained variance of a stitch layer, from timm's features and numpy."""
    x, y = ends(backbone, name, images)
    ones = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    solution = np.linalg.lstsq(ones, y, rcond=1e-6)[0]
    residual = np.square(ones @ solution - y).sum() / np.square(y - y.mean(0)).sum()
    return solution[:-1].T, solution[-1], 1 - residual


@pytest.mark.parametrize('norm', [False, True])
def test_every_layer_equals_a_fit_by_hand_from_features_of_timm(norm):
    backbone = tiny_backbone(out_indices=(2, 11), final_norm=norm, lora_rank=0)
    images = random_images(4)
    explained = backbone.fit_stitches(images)
    lifts = {'lift_S2_to_L4', 'lift_S6_to_L12'} if norm else {'S6_to_L12'}
    crossings = {f'S{k}_to_L{2 * k}' for k in range(1, 6)}
    assert set(explained) == crossings | {f'L{2 * k}_to_S{k}' for k in range(1, 6)} | lifts
    for name, share in explained.items():
        weight, bias, expected = fit_by_hand(backbone, name, images)
        layer = backbone.stitch_layers[name]
        found = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        # A LayerNorm's output lies in a plane, so only its image under the map is unique.
        x = ends(backbone, name, images)[0] if name.startswith('lift') else np.eye(len(weight[0]))
        error = np.abs((x @ found[0].T + found[1]) - (x @ weight.T + bias)).max()
        assert error < 1e-4, name
        assert share == pytest.approx(expected, abs=1e-9), name
        assert 0 < share < 1


def test_three_anchors_are_fitted_at_every_cut():
    shape = ((2, 32), (4, 48), (8, 96))
    scheme = dict(max_crossings=2, pairs='all')
    backbone = tiny_backbone(shape, out_indices=(7,), scheme=scheme, lora_rank=0)
    images = random_images(4)
    explained = backbone.fit_stitches(images)
    assert {'S1_to_M2', 'S1_to_L4', 'M3_to_L6', 'L4_to_S1', 'S2_to_L8', 'M4_to_L8'} < set(explained)
    for name, share in explained.items():
        weight, _, expected = fit_by_hand(backbone, name, images)
        found = backbone.stitch_layers[name].weight.detach().numpy()
        assert np.abs(found - weight).max() < 1e-5 * np.abs(weight).max(), name
        assert share == pytest.approx(expected, abs=1e-9), name


def test_many_batches_are_as_good_as_one():
    images = random_images(6)
    first, second, third = (tiny_backbone(lora_rank=0) for _ in range(3))
    first.fit_stitches(images)
    second.fit_stitches(iter(images.split(1)))
    for batch in images.split(2):
        third.fit_stitches(batch)
    for name, value in first.state_dict().items():
        for other in (second, third):
            torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_a_training_forward_ends_the_addition_of_calls():
    first, second = tiny_backbone(lora_rank=0), tiny_backbone(lora_rank=0)
    first.fit_stitches(random_images(4, seed=1))
    first.train()(random_images(1))
    first.eval().fit_stitches(random_images(4, seed=2))
    second.fit_stitches(random_images(4, seed=2))
    for name in ('S3_to_L6', 'L6_to_S3'):
        assert torch.equal(first.stitch_layers[name].weight, second.stitch_layers[name].weight)


def test_memory_does_not_grow_with_the_number_of_images():
    backbone = tiny_backbone()
    fit = StitchFit(backbone)

    def tensor_bytes() -> int:
        gc.collect()
        alive = (item for item in gc.get_objects() if type(item) is torch.Tensor)
        return sum(tensor.untyped_storage().nbytes() for tensor in alive)

    sizes = []
    for number in (1, 1, 5):
        for _ in range(number):
            fit.add(random_images(2))
        sizes.append(tensor_bytes())
    assert fit.num_samples == 7 * 2 * 65
    assert sizes[0] == sizes[1] == sizes[2]


def test_no_drop_path_acts_during_the_fit_and_modes_come_back():
    quiet, dropping = tiny_backbone(drop_path_rate=0.0), tiny_backbone(drop_path_rate=0.9)
    dropping.train()
    dropping.anchors['S'].vit.blocks[2].eval()
    modes = [module.training for module in dropping.modules()]
    quiet.fit_stitches(random_images(2))
    dropping.fit_stitches(random_images(2))
    assert [module.training for module in dropping.modules()] == modes
    for name, layer in quiet.stitch_layers.items():
        assert torch.equal(dropping.stitch_layers[name].weight, layer.weight)


def test_modes_come_back_after_an_error():
    backbone = tiny_backbone().train()
    inside = []

    def fail() -> None:
        with evaluating(backbone):
            inside.extend(module.training for module in backbone.modules())
            raise RuntimeError('nope')

    with pytest.raises(RuntimeError, match='nope'):
        fail()
    assert inside and not any(inside)
    assert all(module.training for module in backbone.modules())


def test_autocast_does_not_lower_the_precision_of_the_fit():
    plain, cast = tiny_backbone(), tiny_backbone()
    images = random_images(2)
    plain.fit_stitches(images)
    with torch.autocast('cpu', torch.bfloat16):
        cast.fit_stitches(images)
    for name, layer in plain.stitch_layers.items():
        assert torch.equal(cast.stitch_layers[name].weight, layer.weight)


def test_the_fit_touches_neither_rng_nor_gradients():
    backbone = tiny_backbone(drop_path_rate=0.5).train()
    state = torch.get_rng_state()
    backbone.fit_stitches(random_images(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_only_stitch_layers_and_the_mark_change():
    backbone = tiny_backbone(fitted=False)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.fit_stitches(random_images(2))
    after = backbone.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    layers = set(backbone.stitch_layers)
    parts = ('weight', 'bias', 'lora_b')
    assert changed == {
        'stitches_fitted', *(f'stitch_layers.{name}.{part}' for name in layers for part in parts)
    }
    assert backbone.is_fitted


def test_the_map_of_the_small_anchor_is_the_best_lift_of_its_last_block():
    backbone = tiny_backbone(lora_rank=0, out_indices=(11,))
    images = random_images(4)
    backbone.fit_stitches(images)
    weight, bias, _ = fit_by_hand(backbone, 'S6_to_L12', images)
    tokens = features_of_timm(backbone, 'S', images, False)[5].reshape(4, 65, 48)[:, 1:]
    expected = (tokens @ weight.T + bias).transpose(0, 2, 1).reshape(4, 96, 8, 8)
    found = backbone.run(images, 'S6')[0].detach().numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_identical_anchors_explain_each_other_wholly():
    backbone = tiny_backbone(((4, 48), (4, 48)), out_indices=(3,), lora_rank=0)
    backbone.anchors['L'].load_state_dict(backbone.anchors['S'].state_dict())
    explained = backbone.fit_stitches(random_images(2))
    assert min(explained.values()) > 1 - 1e-9
    images = random_images(1, seed=9)
    for name in ('S1-L3', 'L2-S1-L1'):
        torch.testing.assert_close(
            backbone.run(images, name)[0], backbone.run(images, 'L4')[0], rtol=1e-3, atol=1e-3
        )


def test_fewer_samples_than_channels_still_give_a_finite_fit():
    anchors = [tiny_anchor(2, 48), tiny_anchor(2, 96)]
    backbone = tiny_backbone(anchors=anchors, out_indices=(1,), lora_rank=0)
    explained = backbone.fit_stitches(random_images(1, 16, 24))
    assert min(explained.values()) > 1 - 1e-6
    assert all(torch.isfinite(p).all() for p in backbone.stitch_layers.parameters())


def test_no_images_are_refused():
    with pytest.raises(ValueError, match='No samples were added'):
        tiny_backbone().fit_stitches([])


def test_weights_that_are_not_finite_are_named():
    backbone = tiny_backbone()
    with torch.no_grad():
        backbone.anchors['S'].vit.blocks[0].mlp.fc2.bias.fill_(float('nan'))
    with pytest.raises(ValueError, match='not finite: check the weights of the anchors'):
        backbone.fit_stitches(random_images(1))


def test_images_of_different_sizes_can_be_mixed():
    backbone = tiny_backbone()
    fit = StitchFit(backbone)
    fit.add(random_images(1, 64, 48))
    fit.add(random_images(2, 30, 64))
    assert fit.num_samples == (8 * 6 + 1) + 2 * (4 * 8 + 1)
    assert len(fit.solve()) == len(backbone.stitch_layers)
