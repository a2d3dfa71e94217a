"""Matching the features of stitches to those of the largest anchor, without labels."""

from __future__ import annotations

import pytest
import torch

from mmsnnet.models import StitchedViT
from mmsnnet.models.feature_matching import MatchSettings, drawn_stitches, feature_error
from tests.builders import random_images, shake, tiny_backbone

SHAPE = ((3, 32), (4, 48))
MATCH = dict(iters=60, lr=3e-3)


def backbone_of(**settings) -> StitchedViT:
    settings = dict(lora_rank=4, out_indices=(1, 3), fitted=False) | settings
    backbone = tiny_backbone(SHAPE, **settings)
    shake(backbone.stitch_layers, seed=1)
    return backbone


def smooth_images(batch: int, seed: int) -> torch.Tensor:
    """Images (B, 3, 64, 64) of few blobs, so that unseen ones are like seen ones."""
    coarse = random_images(batch, 4, seed=seed)
    return torch.nn.functional.interpolate(coarse, (64, 64), mode='bilinear')


def errors_of(backbone: StitchedViT, images: torch.Tensor) -> dict[str, float]:
    with torch.no_grad():
        return {s.name: float(feature_error(backbone, s, images)) for s in backbone.space}


def test_errors_of_stitches_fall_on_unseen_images_and_anchors_stay_as_they_are():
    backbone = backbone_of(drop_path_rate=0.5)
    seen, unseen = smooth_images(32, 0), smooth_images(16, 1)
    anchors = {k: v.clone() for k, v in backbone.anchors.state_dict().items()}
    flags = [p.requires_grad for p in backbone.parameters()]
    backbone.fit_stitches(seen)
    before = errors_of(backbone, unseen)
    backbone.fit_stitches(seen.split(8), match=MATCH)  # adds up to the same fit
    after = errors_of(backbone, unseen)
    assert before['L4'] == after['L4'] == 0
    others = before.keys() - {'L4'}
    assert sum(after[name] for name in others) < 0.95 * sum(before[name] for name in others)
    assert sum(after[name] < before[name] for name in others) > len(others) * 0.8
    assert all(torch.equal(v, anchors[k]) for k, v in backbone.anchors.state_dict().items())
    assert flags == [p.requires_grad for p in backbone.parameters()]
    assert all(p.grad is None for p in backbone.parameters()) and not backbone.training


@torch.no_grad()
def test_the_error_is_the_squared_difference_over_the_variance_averaged_over_taps():
    backbone = backbone_of()
    images = random_images()
    features = [tap.flatten() for tap in backbone.advance(
        backbone.begin(images), backbone.space.program('L4')).taps.values()]  # fmt: skip
    given = [tap.flatten() for tap in backbone.advance(
        backbone.begin(images), backbone.space.program('S3')).taps.values()]  # fmt: skip
    by_hand = sum(float((a - b).square().mean() / b.var()) for a, b in zip(given, features)) / 2
    assert errors_of(backbone, images)['S3'] == pytest.approx(by_hand, rel=1e-4)


def test_the_same_seed_gives_the_same_layers_and_leaves_the_global_generators_alone():
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(states))
        generator = torch.get_rng_state()
        backbone = backbone_of()
        torch.set_rng_state(generator)
        backbone.fit_stitches(smooth_images(8, 0).split(4), match=dict(iters=8, seed=seed))
        assert torch.equal(torch.get_rng_state(), generator)
        states.append(backbone.stitch_layers.state_dict())
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())
    assert any(not torch.equal(v, states[2][k]) for k, v in states[0].items())


def test_without_steps_the_fit_is_that_of_least_squares_alone():
    one, other = backbone_of(), backbone_of()
    images = random_images(4)
    assert one.fit_stitches(images) == other.fit_stitches(images, match=0)
    for key, value in one.stitch_layers.state_dict().items():
        assert torch.equal(value, other.stitch_layers.state_dict()[key])


def test_every_stitch_but_the_largest_anchor_is_drawn_once_before_any_comes_again():
    space = backbone_of().space
    drawn = [s.name for s in drawn_stitches(backbone_of(), MatchSettings(2 * len(space) - 2))]
    others = {stitch.name for stitch in space} - {'L4'}
    assert set(drawn[: len(others)]) == set(drawn[len(others) :]) == others


def test_whole_stitch_layers_learn_where_they_have_no_low_rank_update():
    backbone = backbone_of(lora_rank=0)
    images = smooth_images(16, 0)
    backbone.fit_stitches(images)
    before = errors_of(backbone, images)['S1-L3']
    backbone.fit_stitches(images, match=MATCH)
    assert errors_of(backbone, images)['S1-L3'] < before


@pytest.mark.parametrize(
    ('settings', 'match', 'error', 'message'),
    [
        (dict(lift_taps=False, out_indices=(3,)), 2, ValueError, 'with lift_taps=False'),
        ({}, -1, ValueError, 'iters=-1 of match must be 0'),
        ({}, 1.5, TypeError, 'iters of match'),
        ({}, dict(iters=2, lr=0), ValueError, 'lr=0 of match must be positive'),
        ({}, dict(steps=2), ValueError, r"match does not know \['steps'\]"),
        ({}, dict(iters=3, lr=1e30), ValueError, 'an error is not finite. Lower lr'),
    ],
)
def test_what_cannot_be_matched_is_refused_in_one_line(settings, match, error, message):
    backbone = backbone_of(**settings)
    with pytest.raises(error, match=message) as caught:
        backbone.fit_stitches(random_images(2), match=match)
    assert '\n' not in str(caught.value)


def test_one_anchor_alone_has_nothing_to_match():
    backbone = tiny_backbone(((3, 32),), out_indices=(2,))
    with pytest.raises(ValueError, match='without stitch layers: one anchor alone has none'):
        backbone.fit_stitches(random_images(2), match=2)
