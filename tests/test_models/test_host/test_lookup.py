"""Finding the stitched backbone inside a model."""

from __future__ import annotations

import pytest
from torch import nn

from mmsnnet.models import find_stitched_backbone
from tests.builders import tiny_backbone


def test_it_is_found_at_any_depth_and_inside_wrappers():
    backbone = tiny_backbone(((2, 32), (2, 48)), out_indices=(1,))
    inner = nn.ModuleDict({'backbone': backbone, 'head': nn.Linear(2, 2)})
    for model in (backbone, inner, nn.DataParallel(inner), nn.Sequential(nn.Sequential(inner))):
        assert find_stitched_backbone(model) is backbone


def test_a_model_without_one_is_refused():
    with pytest.raises(ValueError, match='Linear has 0 StitchedViT backbones; exactly one'):
        find_stitched_backbone(nn.Linear(2, 2))


def test_a_model_with_two_is_refused():
    pair = [tiny_backbone(((1, 32),), out_indices=(0,)) for _ in range(2)]
    with pytest.raises(ValueError, match='Sequential has 2 StitchedViT backbones'):
        find_stitched_backbone(nn.Sequential(*pair))


def test_one_that_is_shared_counts_once():
    backbone = tiny_backbone(((1, 32),), out_indices=(0,))
    assert find_stitched_backbone(nn.Sequential(backbone, backbone)) is backbone
