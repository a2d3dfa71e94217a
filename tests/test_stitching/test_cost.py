"""Costs of stitches: against the published tables and against closed formulas."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from mmsnnet.stitching import AnchorSpec, Cost, CostTable, StitchSpace, Tap, check_image_size
from tests.test_stitching.brute_force import as_tuples, block_of_tap, make_space
from tests.test_stitching.published_flops import COLUMNS, ROWS
from tests.test_stitching.published_imagenet_flops import ROWS as IMAGENET_ROWS

#: FLOPs published with SN-Netv2: ADE20K at 512x512 with the SETR head, NYUv2 at 480x640 with DPT.
PUBLISHED = [dict(zip(COLUMNS, row)) for row in ROWS]

SETR_HEAD = 920_125_440
DPT_HEAD = 167_782_809_600
SMALL, BASE, LARGE = (AnchorSpec.plain_vit(*shape) for shape in ((12, 384), (12, 768), (24, 1024)))


def published(column):
    return {row['published_id']: row[column] for row in PUBLISHED}


def num_lifts(space, stitch, positions):
    taps = (step for step in space.program(stitch) if isinstance(step, Tap))
    return sum(tap.lift is not None for tap in taps if tap.position in positions)


@pytest.fixture(scope='module')
def ade_space():
    return StitchSpace([SMALL, LARGE], (9, 14, 19, 23))


@pytest.fixture(scope='module')
def ade_costs(ade_space):
    return CostTable(ade_space, 512)


def test_all_134_published_ade20k_figures_are_met_to_the_digit(ade_space, ade_costs):
    # The published tracer overlooked the lifts of the second and third tap.
    uncounted = {
        stitch.published_id: num_lifts(ade_space, stitch, (1, 2)) * 1025 * 384 * 1024
        for stitch in ade_space
    }
    flops = {stitch.published_id: ade_costs[stitch].flops + SETR_HEAD for stitch in ade_space}
    figures = published('ade20k_s_l')
    assert {i: flops[i] - uncounted[i] for i in flops} == figures
    assert (figures[0], figures[1]) == (33_522_505_728, 363_157_291_008)
    assert len(set(figures.values())) == 47


def test_all_134_published_imagenet_figures_are_met_to_the_digit():
    # Nothing is lifted; the norm and the classifier of 1000 classes are those of the last anchor.
    space = StitchSpace([SMALL, LARGE], (23,), normed_taps=True, lift_taps=False)
    classifiers = [Cost(flops=1000 * anchor.width) for anchor in space.anchors]
    costs = CostTable(space, 224, by_last_anchor=classifiers)
    assert {s.published_id: costs[s].flops for s in space} == dict(IMAGENET_ROWS)


def test_a_cost_by_the_last_anchor_is_kept_at_another_size_and_added_up():
    space = make_space((3, 6))
    ends = [Cost(1, 10), Cost(2, 20)]
    table = CostTable(space, 32, by_last_anchor=ends).plus(Cost(100), ends).at(64)
    alone = CostTable(space, 64)
    for stitch in space:
        last = stitch.route.segments[-1].anchor
        more = Cost(100 + 2 * ends[last].flops, 2 * ends[last].params)
        assert table[stitch] == alone[stitch] + more


def test_costs_of_too_few_last_anchors_are_refused():
    with pytest.raises(ValueError, match='by_last_anchor has 1 costs for 2 anchors'):
        CostTable(make_space((3, 6)), 32, by_last_anchor=[Cost()])


@pytest.mark.parametrize(('small', 'column'), [(SMALL, 'nyuv2_s_l'), (BASE, 'nyuv2_b_l')])
def test_all_134_published_nyuv2_figures_are_met_to_the_digit(small, column):
    space = StitchSpace([small, LARGE], (4, 11, 17, 23))
    costs = CostTable(space, (480, 640), Cost(flops=DPT_HEAD))
    assert {s.published_id: costs[s].flops for s in space} == published(column)


def block_flops(tokens, width):
    return 12 * tokens * width**2 + 2 * tokens**2 * width + 10 * tokens * width


def closed_flops(depths, widths, stitch, taps, patches, patch):
    """FLOPs from the name alone: patches, blocks, crossings and taps of the narrow anchors."""
    tokens = patches + 1
    labels = 'SML' if len(depths) == 3 else 'SL'
    parts = [(labels.index(a), int(n)) for a, n in re.findall(r'([A-Z])(\d+)', stitch.name)]
    flops = 3 * patch**2 * widths[parts[0][0]] * patches
    flops += sum(number * block_flops(tokens, widths[a]) for a, number in parts)
    flops += sum(tokens * widths[a] * widths[b] for (a, _), (b, _) in zip(parts, parts[1:]))
    owners = [block_of_tap(depths, as_tuples(stitch.route), tap)[0] for tap in taps]
    narrow = [widths[a] for a in owners if a != len(depths) - 1]
    return flops + sum(tokens * width * widths[-1] for width in narrow)


@pytest.mark.parametrize('size', [(512, 512), (480, 640), (64, 32), (500, 333)], ids=str)
@pytest.mark.parametrize('depths', [(12, 24), (6, 12), (12, 18), (6, 12, 24), (8, 12, 24)], ids=str)
def test_flops_follow_from_the_name_at_any_size(depths, size):
    widths = [64 * (i + 1) for i in range(len(depths))]
    taps = (depths[-1] // 3, depths[-1] // 2, depths[-1] - 1)
    space = make_space(depths, taps)
    costs = CostTable(space, size)
    patches = ((size[0] + 15) // 16) * ((size[1] + 15) // 16)
    expected = {s.name: closed_flops(depths, widths, s, taps, patches, 16) for s in space}
    assert costs.flops == expected


def test_the_cost_of_an_anchor_stitch_is_the_anchor_and_its_lifts(ade_costs):
    assert ade_costs['L24'].flops == LARGE.flops((512, 512))
    assert ade_costs['S12'].flops == SMALL.flops((512, 512)) + 4 * 1025 * 384 * 1024


def test_unequal_blocks_are_counted_one_by_one():
    anchor = AnchorSpec.plain_vit(3, 32)
    wide = AnchorSpec.plain_vit(1, 32, mlp_ratio=8).blocks[0]
    mixed = replace(anchor, blocks=(anchor.blocks[0], wide, anchor.blocks[2]))
    space = StitchSpace([anchor, mixed], (2,))
    costs = CostTable(space, 64)
    more = 2 * 4 * 32 * 32 * (16 + 1)
    assert costs['L3'].flops - costs['S3'].flops + 17 * 32 * 32 == more  # S3 lifts its tap
    assert costs['S1-L2'].flops - costs['L2-S1'].flops == -17 * 32 * 32
    assert costs['S2-L1'].flops + more == costs['S1-L2'].flops


def test_normed_taps_cost_their_norms():
    anchors, taps = [AnchorSpec.plain_vit(2, 8), AnchorSpec.plain_vit(4, 16)], (1, 3)
    plain = CostTable(StitchSpace(anchors, taps), 64)
    normed = CostTable(StitchSpace(anchors, taps, normed_taps=True), 64)
    assert normed['S2'].flops - plain['S2'].flops == 2 * 17 * 5 * 8
    assert normed['L4'].flops - plain['L4'].flops == 2 * 17 * 5 * 16
    assert normed['S1-L2'].flops - plain['S1-L2'].flops == 17 * 5 * (8 + 16)
    assert normed['L4'].params - plain['L4'].params == 2 * 16
    # The crossing S1 to L2 no longer lifts the tap as well, and both final norms take part.
    assert normed['S1-L2'].params - plain['S1-L2'].params == (8 * 16 + 16) + 2 * 8 + 2 * 16


def test_a_layer_that_crosses_and_lifts_counts_its_parameters_once(ade_costs):
    # Tap 9 follows the fifth small block, where S5-L14 also crosses.
    layer = 384 * 1024 + 1024
    expected = SMALL.embed_params + 5 * SMALL.blocks[0].params + 14 * LARGE.blocks[0].params + layer
    assert ade_costs['S5-L14'].params == expected
    assert ade_costs['S6-L12'].params - expected == (
        SMALL.blocks[0].params - 2 * LARGE.blocks[0].params + layer
    )


def test_one_lift_that_serves_two_late_taps_counts_its_parameters_once():
    space = StitchSpace([SMALL, LARGE], (20, 21, 22, 23))
    anchor = SMALL.embed_params + sum(block.params for block in SMALL.blocks)
    assert CostTable(space, 512)['S12'].params == anchor + 2 * (384 * 1024 + 1024)


def test_parameters_of_the_largest_anchor_are_its_own(ade_costs):
    assert ade_costs['L24'].params == LARGE.embed_params + 24 * LARGE.blocks[0].params


def test_partial_patches_cost_as_much_as_whole_ones(ade_space):
    assert CostTable(ade_space, (497, 510)).flops == CostTable(ade_space, 512).flops
    assert CostTable(ade_space, (496, 512)).flops != CostTable(ade_space, 512).flops


def test_a_table_at_another_size_is_a_table_made_for_it(ade_space, ade_costs):
    moved = ade_costs.plus(Cost(5, 7)).at((480, 640))
    assert moved.image_size == (480, 640)
    assert dict(moved) == dict(CostTable(ade_space, (480, 640), Cost(5, 7)))


def test_a_constant_is_added_to_every_stitch_and_leaves_the_table_alone(ade_costs):
    before = dict(ade_costs)
    more = ade_costs.plus(Cost(100, 10)).plus(Cost(1, 2))
    assert dict(more) == {n: Cost(c.flops + 101, c.params + 12) for n, c in before.items()}
    assert dict(ade_costs) == before


def test_the_table_is_a_mapping_by_name_that_ids_and_stitches_open_too(ade_space, ade_costs):
    assert list(ade_costs) == list(ade_space.names)
    assert len(ade_costs) == 134 and 'S12' in ade_costs and 'S13' not in ade_costs
    assert ade_costs[20] == ade_costs[ade_space[20].name] == ade_costs[ade_space[20]]


def test_an_unknown_stitch_is_refused_with_the_closest_names(ade_costs):
    with pytest.raises(ValueError, match='S5-L14'):
        ade_costs['S5-L15']


def test_one_number_is_a_square_image():
    assert check_image_size(512) == check_image_size([512, 512]) == (512, 512)
    assert check_image_size((480, 640)) == (480, 640)


@pytest.mark.parametrize(
    ('size', 'error'),
    [(0, ValueError), ((512, -1), ValueError), ('512', TypeError), ((1, 2, 3), TypeError)]
    + [(size, TypeError) for size in (512.5, (512.5, 512), None, '48', (480, '640'), True)],
)
def test_an_impossible_image_size_is_refused(size, error):
    with pytest.raises(error, match='image size'):
        check_image_size(size)
