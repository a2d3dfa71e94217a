"""Checkpoints of other image sizes: the grid that their position embeddings are laid out for."""

from __future__ import annotations

import torch
from timm.layers import resample_abs_pos_embed

from tests.builders import tiny_backbone


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
