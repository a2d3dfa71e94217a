"""Stitched backbones under names of timm."""

from __future__ import annotations

import pytest
import timm
import torch

from mmsnnet.integrations import timm_models
from mmsnnet.models import StitchedViT
from tests.builders import random_images, tiny_anchor

ANCHORS = [tiny_anchor(2, 48), tiny_anchor(4, 96)]


def test_names_are_listed_by_timm():
    assert {'stitched_vit', 'stitched_vit_deit3_s_l'} <= set(timm.list_models('stitched*'))
    assert all(hasattr(timm_models, name) for name in timm.list_models('stitched*'))


def test_features_come_as_timm_gives_them():
    model = timm.create_model(
        'stitched_vit', anchors=ANCHORS, img_size=32, features_only=True, out_indices=(1, 3)
    )
    assert isinstance(model, StitchedViT)
    maps = model(random_images(1, 32))
    assert [tuple(one.shape) for one in maps] == [(1, 96, 4, 4)] * 2
    assert model.feature_info.channels() == [96, 96]


@torch.no_grad()
def test_features_of_an_anchor_are_those_that_timm_gives_of_it_alone():
    settings = dict(img_size=32, features_only=True, out_indices=(1, 3))
    model = timm.create_model('stitched_vit', anchors=ANCHORS, **settings).eval()
    alone = ANCHORS[1]
    theirs = timm.create_model(alone['model_name'], **alone['model_kwargs'], **settings).eval()
    missing = theirs.model.load_state_dict(model.anchor(1).vit.state_dict(), strict=False)
    assert not missing.missing_keys
    images = random_images(2, 32)
    model.set_stitch('L4')
    for one, other in zip(model(images), theirs(images)):
        assert torch.equal(one, other)
    for entry in ('channels', 'reduction'):
        assert getattr(model.feature_info, entry)() == getattr(theirs.feature_info, entry)()


@pytest.mark.parametrize('settings', [{}, dict(anchors=[])])
def test_without_anchors_there_is_one_line(settings):
    with pytest.raises(ValueError, match="'stitched_vit' needs anchors") as raised:
        timm.create_model('stitched_vit', **settings)
    assert '\n' not in str(raised.value)


def test_other_channels_of_images_are_taken():
    model = timm.create_model('stitched_vit', anchors=ANCHORS, img_size=32, in_chans=5)
    assert model(torch.zeros(1, 5, 32, 32))[0].shape == (1, 96, 4, 4)


def test_data_settings_follow_from_the_model():
    model = timm.create_model('stitched_vit', anchors=ANCHORS, img_size=32)
    config = timm.data.resolve_data_config(model=model)
    assert config['input_size'] == (3, 32, 32)
    assert (config['mean'], config['std']) == model.normalization


@pytest.mark.parametrize('name', ['stitched_vit_deit3_s_b'])
def test_named_pairs_have_their_anchors(name):
    with torch.device('meta'):
        model = timm.create_model(name, features_only=True)
    assert [anchor.width for anchor in model.space.anchors] == [384, 768]


def test_a_classifier_is_refused():
    with pytest.raises(ValueError, match='features_only=False is not possible'):
        timm.create_model('stitched_vit', anchors=ANCHORS, features_only=False)
