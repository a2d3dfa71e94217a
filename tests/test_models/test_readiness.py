"""What a backbone says when it is about to run random weights, or another stitch than asked."""

from __future__ import annotations

import copy
import logging

import pytest
import torch

from mmsnnet.models import StitchedViT
from tests.builders import random_images, tiny_anchor, tiny_backbone

NAMED = [
    dict(tiny_anchor(2, 48), pretrained=True),
    dict(tiny_anchor(2, 96), pretrained=True),
]


def warnings(lines) -> list[str]:
    return lines.text(logging.WARNING)


@pytest.mark.parametrize('training', [False, True])
def test_anchors_that_were_never_loaded_are_named_once(log_lines, training):
    backbone = tiny_backbone(anchors=NAMED, out_indices=(1,)).train(training)
    backbone(random_images(1))
    backbone(random_images(1))
    assert len(warnings(log_lines)) == 1
    assert 'vit_tiny_patch16_224 and vit_tiny_patch16_224 were never loaded' in log_lines.text()[-1]


def test_anchors_meant_to_be_random_or_filled_by_other_means_are_no_reason(log_lines, tmp_path):
    tiny_backbone(((2, 48), (2, 96)), out_indices=(1,))(random_images(1))
    state = tiny_backbone(anchors=NAMED, out_indices=(1,)).state_dict()
    loaded = StitchedViT(NAMED, 64, (1,)).eval()
    loaded.load_state_dict(state)
    loaded(random_images(1))
    filled = tiny_backbone(anchors=NAMED, out_indices=(1,))
    filled.skip_anchor_weights()
    filled(random_images(1))
    assert not warnings(log_lines)


def test_stitch_layers_that_were_never_fitted_are_told_once_when_they_run(log_lines):
    backbone = tiny_backbone(fitted=False)
    backbone(random_images(1))
    assert not warnings(log_lines)  # the largest anchor needs none
    for name in ('S2-L8', 'S6'):
        backbone.set_stitch(name)
        backbone(random_images(1))
    assert [line.split(':')[0] for line in warnings(log_lines)] == [
        'S2-L8 runs stitch layers that were never fitted'
    ]


def test_a_lift_is_a_stitch_layer_too(log_lines):
    tiny_backbone(fitted=False, stitch='S6')(random_images(1))
    assert 'S6 runs stitch layers that were never fitted' in warnings(log_lines)[0]


@pytest.mark.parametrize('how', ['fit', 'load', 'copy'])
def test_a_fitted_backbone_says_nothing(log_lines, how):
    backbone = tiny_backbone(fitted=False, stitch='S2-L8')
    if how == 'fit':
        backbone.fit_stitches(random_images(4))
    elif how == 'load':
        backbone.load_state_dict(tiny_backbone().state_dict())
    else:
        backbone.mark_fitted()
        backbone = copy.deepcopy(backbone)
    backbone(random_images(1))
    assert not warnings(log_lines)


def test_a_copy_of_buffers_alone_is_seen():
    backbone = tiny_backbone(fitted=False)
    assert not backbone.is_fitted
    for own, other in zip(backbone.buffers(), tiny_backbone().buffers()):
        own.copy_(other)
    assert backbone.is_fitted


def test_set_stitch_in_train_mode_says_once_what_train_mode_does(log_lines):
    backbone = tiny_backbone().train()
    for name in ('S6', 'S2-L8'):
        backbone.set_stitch(name)
    assert len(warnings(log_lines)) == 1
    assert 'set_stitch chose S6 for eval mode, but' in warnings(log_lines)[0]
    with backbone.use_stitch('S6'):
        pass
    quiet = tiny_backbone().train()
    quiet.set_training_stitch('S6')
    quiet.set_stitch('S6')
    tiny_backbone().set_stitch('S6')
    assert len(warnings(log_lines)) == 1


def test_last_stitch_is_what_a_train_forward_ran_and_eval_leaves_it():
    backbone, images = tiny_backbone(drop_path_rate=0.0), random_images(1)
    backbone(images)
    assert backbone.last_stitch is None
    backbone.train()
    seen = set()
    for _ in range(6):
        features = backbone(images)
        assert torch.equal(features[0], backbone.run(images, backbone.last_stitch)[0])
        seen.add(backbone.last_stitch.name)
    assert len(seen) > 1
    former = backbone.last_stitch
    backbone.eval()(images)
    assert backbone.last_stitch is former
    backbone.train().set_training_stitch('S2-L8')
    backbone(images)
    assert backbone.last_stitch.name == 'S2-L8'


def test_a_first_eval_forward_changes_nothing_but_what_it_warned_of():
    backbone = tiny_backbone(fitted=False, stitch='S2-L8')
    before = {key: repr(value) for key, value in vars(backbone).items()}
    backbone(random_images(1))
    after = {key: repr(value) for key, value in vars(backbone).items()}
    assert after.keys() == before.keys()
    assert {key for key in after if after[key] != before[key]} <= {'warned_of', '_fitted'}


def test_an_unfitted_backbone_can_be_exported():
    backbone = tiny_backbone(((2, 48), (2, 96)), out_indices=(1,), fitted=False, stitch='S1-L1')
    images = random_images(1)
    program = torch.export.export(backbone, (images,))
    assert torch.allclose(program.module()(images)[0], backbone(images)[0], atol=1e-5)
