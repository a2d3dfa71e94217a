"""Specs of anchors: cost of their parts, labels, and which can be stitched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmsnnet.stitching import AnchorSpec, StitchSpace, check_stitchable, cost_order, default_labels


def vit(depth=2, width=8, **kwargs):
    return AnchorSpec.plain_vit(depth, width, **kwargs)


@pytest.mark.parametrize(
    ('width', 'flops'), [(384, 2_624_524_800), (768, 8_876_467_200), (1024, 15_059_660_800)]
)
def test_a_block_on_1025_tokens_costs_the_measured_flops(width, flops):
    assert vit(1, width).blocks[0].flops(1025) == flops


def test_the_parameters_of_a_plain_vit_are_those_of_its_layers_one_by_one():
    width, hidden = 96, 4 * 96
    qkv, proj = width * 3 * width + 3 * width, width * width + width
    mlp = width * hidden + hidden + hidden * width + width
    anchor = vit(1, width)
    assert anchor.blocks[0].params == qkv + proj + mlp + 2 * (width + width)
    assert anchor.embed_params == 3 * 16 * 16 * width + width + width  # projection, class token
    assert anchor.norm_params == 2 * width


def test_a_wider_mlp_costs_its_two_layers_more():
    narrow, wide = vit(1, 10, mlp_ratio=2).blocks[0], vit(1, 10, mlp_ratio=4).blocks[0]
    assert wide.per_token - narrow.per_token == 2 * (2 * 10 * 10)
    assert wide.per_token_pair == narrow.per_token_pair


@pytest.mark.parametrize(
    ('size', 'patches'),
    [((512, 512), 1024), ((480, 640), 1200), ((497, 512), 1024), ((497, 513), 1056), ((1, 1), 1)],
)
def test_a_partial_patch_counts_as_a_whole_one(size, patches):
    assert vit().num_patches(size) == patches
    assert vit(prefix_tokens=5).num_tokens(size) == patches + 5


def test_the_cost_of_an_anchor_is_its_embedding_and_its_blocks():
    anchor = replace(vit(3, 32, patch_size=8), embed_flops_per_token=7)
    blocks = sum(block.flops(4 * 6 + 1) for block in anchor.blocks)
    assert anchor.flops((32, 48)) == 4 * 6 * 3 * 8 * 8 * 32 + (4 * 6 + 1) * 7 + blocks


def test_cost_order_sorts_from_cheap_to_costly_and_keeps_ties():
    small, large = vit(2, 8), vit(4, 16)
    assert cost_order([large, small, large, small], (64, 64)) == (1, 3, 0, 2)


def test_cost_order_may_depend_on_the_image_size():
    # Wide and shallow pays for channels, narrow and deep for pairs of tokens.
    wide, deep = vit(1, 512), vit(12, 128)
    assert cost_order([wide, deep], (32, 32)) == (1, 0)
    assert cost_order([wide, deep], (1024, 1024)) == (0, 1)


def test_default_labels_are_small_medium_large_or_the_alphabet():
    assert default_labels(1) == ('A',)
    assert default_labels(2) == ('S', 'L')
    assert default_labels(3) == ('S', 'M', 'L')
    assert default_labels(4) == ('A', 'B', 'C', 'D')


@pytest.mark.parametrize('number', [0, 27])
def test_more_anchors_than_letters_are_refused(number):
    with pytest.raises(ValueError, match=f'{number} anchors: 1 to 26'):
        default_labels(number)


def test_a_given_label_is_kept_and_the_missing_one_filled_in():
    space = StitchSpace([vit(2, 8, label='Tiny'), vit(4, 16)], (3,))
    assert space.labels == ('Tiny', 'L')
    assert space[2].name == 'Tiny1-L2'


@pytest.mark.parametrize('label', ['S1', 'a-b', 'B ', 'Ä'])
def test_a_label_that_would_blur_names_is_refused(label):
    with pytest.raises(ValueError, match='letters only'):
        StitchSpace([vit(label=label), vit()], (1,))


def test_a_label_given_twice_is_refused():
    with pytest.raises(ValueError, match=r"\['L', 'L'\] are not unique"):
        StitchSpace([vit(label='L'), vit()], (1,))


@pytest.mark.parametrize(
    ('anchors', 'message'),
    [
        ([], 'at least one'),
        ([vit(0)], 'no block'),
        ([vit(patch_size=16), vit(patch_size=14)], 'patch sizes 16 and 14 differ'),
        ([vit(prefix_tokens=1), vit(prefix_tokens=5)], 'have 1 and 5 class and register tokens'),
        ([vit(depth=4), vit(depth=2, width=64)], r'larger depth \(4 > 2\)'),
        ([vit(width=16), vit(depth=9, width=8)], r'larger width \(16 > 8\)'),
        ([vit(2, 8), vit(4, 16), vit(3, 32)], r'larger depth \(4 > 3\)'),
    ],
)
def test_anchors_that_do_not_go_together_are_refused_with_the_reason(anchors, message):
    with pytest.raises(ValueError, match=message):
        check_stitchable(anchors)


def test_equal_anchors_can_be_stitched():
    check_stitchable([vit(), vit()])
