"""The depth of every weight of a backbone, against tables made by hand."""

from __future__ import annotations

import re

import pytest

from tests.builders import tiny_anchor, tiny_backbone


def block_depths(backbone):
    """Depths of the blocks of each anchor, in their order; all weights of a block must agree."""
    found = {}
    for label, anchor in backbone.anchors.items():
        for index, block in enumerate(anchor.vit.blocks):
            prefix = f'anchors.{label}.vit.blocks.{index}.'
            depths = {backbone.get_layer_depth(prefix + name)[0] for name, _ in
                      block.named_parameters()}  # fmt: skip
            assert len(depths) == 1
            found.setdefault(label, []).extend(depths)
    return found


@pytest.mark.parametrize(
    ('depths', 'table'),
    [
        (
            (12, 24),
            dict(S=[2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24], L=[*range(1, 25)]),
        ),
        ((6, 12), dict(S=[2, 4, 6, 8, 10, 12], L=[*range(1, 13)])),
        # The boundaries of S face 0 2 3 5 6 8 9 11 12 of M, whose each faces twice that of L.
        (
            (8, 12, 24),
            dict(
                S=[4, 6, 10, 12, 16, 18, 22, 24],
                M=[2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24],
                L=[*range(1, 25)],
            ),
        ),
        ((4, 4), dict(S=[1, 2, 3, 4], L=[1, 2, 3, 4])),
        ((5,), dict(A=[1, 2, 3, 4, 5])),
    ],
)
def test_blocks_lie_where_they_end_on_the_scale_of_the_largest_anchor(depths, table):
    shape = [(depth, 16 * (place + 1)) for place, depth in enumerate(depths)]
    backbone = tiny_backbone(shape, out_indices=(depths[-1] - 1,))
    assert block_depths(backbone) == table


def test_stitch_layers_lie_where_the_block_lies_that_they_lead_into():
    backbone = tiny_backbone(out_indices=(5, 11))
    table = {
        'S1_to_L2': 3, 'S2_to_L4': 5, 'S3_to_L6': 7, 'S4_to_L8': 9, 'S5_to_L10': 11,
        'L2_to_S1': 4, 'L4_to_S2': 6, 'L6_to_S3': 8, 'L8_to_S4': 10, 'L10_to_S5': 12,
        'S6_to_L12': 13,  # the lift behind the last block
    }  # fmt: skip
    found = {
        name.split('.')[1]: backbone.get_layer_depth(name)[0]
        for name, _ in backbone.named_parameters()
        if name.startswith('stitch_layers.')
    }
    assert found == table


def test_lifts_of_normed_taps_lie_where_those_of_others_do():
    backbone = tiny_backbone(out_indices=(5, 11), final_norm=True)
    assert backbone.get_layer_depth('stitch_layers.lift_S3_to_L6.bias') == (7, 14)
    assert backbone.get_layer_depth('stitch_layers.lift_S6_to_L12.bias') == (13, 14)
    assert backbone.get_layer_depth('anchors.S.vit.norm.weight') == (13, 14)


@pytest.mark.parametrize('kind', ['class token', 'registers', 'pre-norm', 'distilled'])
def test_everything_before_the_blocks_has_depth_zero(kind):
    backbone = tiny_backbone(((2, 32), (4, 48)), kind)
    outside = [
        name
        for name, _ in backbone.named_parameters()
        if name.startswith('anchors.') and '.blocks.' not in name and '.vit.norm.' not in name
    ]
    assert len(outside) >= 2 * 4
    assert {backbone.get_layer_depth(name) for name in outside} == {(0, 6)}


def test_frozen_stages_freeze_the_depths_up_to_them():
    for stages in (0, 1, 5, 12):
        backbone = tiny_backbone(frozen_stages=stages)
        depths = {
            name: backbone.get_layer_depth(name)[0]
            for name, _ in backbone.named_parameters()
            if name.startswith('anchors.') and '.vit.norm.' not in name
        }
        frozen = {n for n, p in backbone.named_parameters() if not p.requires_grad} & {*depths}
        assert frozen == {name for name, depth in depths.items() if depth <= stages}


def test_labels_of_ones_own_are_found():
    anchors = [tiny_anchor(2, 32, label='tiny'), tiny_anchor(4, 48, label='huge')]
    backbone = tiny_backbone(anchors=anchors, out_indices=(3,))
    assert backbone.get_layer_depth('anchors.tiny.vit.blocks.1.norm1.weight') == (4, 6)
    assert backbone.get_layer_depth('stitch_layers.huge2_to_tiny1.bias') == (4, 6)


@pytest.mark.parametrize(
    'name', ['blocks.0.norm1.weight', 'anchors.M.vit.cls_token', 'stitch_layers.S9_to_L9.bias']
)
def test_other_names_are_refused_with_those_possible(name):
    with pytest.raises(ValueError, match=rf"'{re.escape(name)}' is no parameter .*LABEL of S, L\)"):
        tiny_backbone(((2, 32), (4, 48))).get_layer_depth(name)


def test_names_are_read_behind_a_prefix_and_others_follow_the_backbone():
    backbone = tiny_backbone(((2, 32), (4, 48)))
    inside = 'backbone.anchors.L.vit.blocks.1.norm1.weight'
    assert backbone.get_layer_depth(inside, prefix='backbone.') == (2, 6)
    assert backbone.get_layer_depth('decode_head.conv_seg.bias', prefix='backbone.') == (5, 6)
