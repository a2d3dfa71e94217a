"""Checkpoints of other image sizes: the grid that their position embeddings are laid out for."""

from __future__ import annotations

import pytest
import torch
from timm.layers import resample_abs_pos_embed

from tests.builders import tiny_anchor, tiny_backbone


def test_a_checkpoint_of_an_oblong_size_is_resampled_from_its_own_grid():
    given = tiny_backbone(img_size=(128, 32))
    square, oblong = tiny_backbone(img_size=(64, 64), seed=1), tiny_backbone(img_size=(128, 32))
    square.load_state_dict(given.state_dict())
    for label, anchor in given.anchors.items():
        expected = resample_abs_pos_embed(
            anchor.vit.pos_embed, new_size=[8, 8], old_size=[16, 4], num_prefix_tokens=1
        )
        assert torch.equal(square.anchors[label].vit.pos_embed, expected)
    oblong.load_state_dict(given.state_dict())
    assert torch.equal(oblong.anchors['S'].vit.pos_embed, given.anchors['S'].vit.pos_embed)


def test_the_grid_stays_that_of_the_config_after_loading():
    backbone = tiny_backbone(img_size=(64, 64))
    backbone.load_state_dict(tiny_backbone(img_size=(128, 32)).state_dict())
    assert backbone.position_grid.tolist() == [8, 8]


def test_a_checkpoint_that_does_not_say_its_grid_counts_as_square():
    given = tiny_backbone(img_size=64).state_dict()
    del given['position_grid']
    wide = tiny_backbone(img_size=(32, 128))
    wide.load_state_dict(given)
    assert wide.anchors['S'].vit.pos_embed.shape == given['anchors.S.vit.pos_embed'].shape


def test_tables_of_an_oblong_size_serve_that_size_alone():
    given = tiny_backbone(kind='BEiT', img_size=(128, 32)).state_dict()
    tiny_backbone(kind='BEiT', img_size=(128, 32), seed=1).load_state_dict(given)
    with pytest.raises(ValueError, match=r'tables of relative positions for \(16, 4\) patches'):
        tiny_backbone(kind='BEiT', img_size=64).load_state_dict(given)


def test_a_biased_class_without_tables_is_resampled_from_an_oblong_grid():
    def backbone(size):
        anchors = [tiny_anchor(3, 48, 'published'), tiny_anchor(6, 48, 'published')]
        for anchor in anchors:
            anchor['model_kwargs']['use_rel_pos_bias'] = False
        return tiny_backbone(anchors=anchors, img_size=size, out_indices=(2, 5))

    given, square = backbone((128, 32)), backbone((64, 64))
    square.load_state_dict(given.state_dict())
    expected = resample_abs_pos_embed(
        given.anchors['L'].vit.pos_embed, new_size=[8, 8], old_size=[16, 4], num_prefix_tokens=1
    )
    assert torch.equal(square.anchors['L'].vit.pos_embed, expected)
