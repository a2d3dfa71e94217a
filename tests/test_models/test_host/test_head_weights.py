"""Neck and heads of a model against those of a checkpoint."""

from __future__ import annotations

import pytest
import torch

from mmsnnet.models.host.head_weights import check_heads_loaded, head_weights
from tests.segmentors import build_segmentor, head, multi_level_neck, single_head

NECK, HEAD = multi_level_neck(), head('UPerHead', 32, pool_scales=(1, 2))


@pytest.fixture(scope='module')
def model():
    return build_segmentor(HEAD, NECK)


def saved(model, folder):
    torch.save({'state_dict': model.state_dict()}, folder / 'model.pth')
    return str(folder / 'model.pth')


def test_the_weights_are_those_outside_of_the_backbone(model):
    expected = {*model.neck.state_dict(prefix='neck.')}
    expected |= {*model.decode_head.state_dict(prefix='decode_head.')}
    assert set(head_weights(model)) == expected


def test_a_checkpoint_of_the_model_fits(model, tmp_path):
    check_heads_loaded(model, saved(model, tmp_path))


def test_an_auxiliary_head_may_be_missing(tmp_path, model):
    auxiliary = single_head('FCNHead', 32, num_convs=1, concat_input=False)
    check_heads_loaded(build_segmentor(HEAD, NECK, auxiliary), saved(model, tmp_path))


def test_a_checkpoint_of_another_head_is_refused(model, tmp_path):
    file = saved(build_segmentor(single_head('FCNHead')), tmp_path)
    with pytest.raises(ValueError, match=r'the neck and head.*\d+ weights are missing, e\.g\. dec'):
        check_heads_loaded(model, file)


def test_a_checkpoint_of_other_classes_is_refused(model, tmp_path):
    other = build_segmentor(head('UPerHead', 32, pool_scales=(1, 2), num_classes=7), NECK)
    with pytest.raises(ValueError, match=r'conv_seg\.weight is \(7, 16, 1, 1\) there and \(5, 16'):
        check_heads_loaded(model, saved(other, tmp_path))
