"""Programs: the steps of a route, against brute-force routes and their taps."""

from __future__ import annotations

import pytest

from mmsnnet.stitching import Block, Cross, Embed, LayerKey, Tap
from tests.test_stitching.brute_force import (
    DEPTHS,
    as_tuples,
    block_of_tap,
    make_space,
    positions,
    tap_sets,
)


@pytest.mark.parametrize('depths', DEPTHS, ids=str)
def test_a_program_embeds_once_and_runs_the_blocks_of_its_segments_in_order(depths):
    space = make_space(depths)
    for stitch in space:
        program = space.program(stitch)
        route = as_tuples(stitch.route)
        assert [s for s in program if isinstance(s, Embed)] == [program[0]] == [Embed(route[0][0])]
        blocks = [(s.anchor, s.index) for s in program if isinstance(s, Block)]
        assert blocks == [(a, i) for a, start, stop in route for i in range(start, stop)]


@pytest.mark.parametrize('depths', DEPTHS, ids=str)
@pytest.mark.parametrize(
    'choice', range(6), ids=['spread', 'late', 'early', 'first', 'last', 'all']
)
def test_every_route_yields_every_tap_once_in_order_after_the_block_that_covers_it(depths, choice):
    taps = tap_sets(depths[-1])[choice]
    space = make_space(depths, taps)
    for stitch in space:
        found, last = [], None
        for step in space.program(stitch):
            if isinstance(step, Block):
                last = (step.anchor, step.index)
            elif isinstance(step, Tap):
                assert step.anchor == last[0]
                found.append((step.position, last))
        route = as_tuples(stitch.route)
        expected = [block_of_tap(depths, route, tap) for tap in taps]
        assert found == list(enumerate(expected))


@pytest.mark.parametrize('depths', DEPTHS, ids=str)
def test_crossings_stand_between_segments_and_join_boundaries_that_face_each_other(depths):
    space, rows = make_space(depths), positions(depths)
    for stitch in space:
        crossings = [s.layer for s in space.program(stitch) if isinstance(s, Cross)]
        route = as_tuples(stitch.route)
        pairs = zip(route, route[1:])
        joints = [LayerKey(a, stop, b, start) for (a, _, stop), (b, start, _) in pairs]
        assert crossings == joints
        for key in crossings:
            assert rows[key.source][key.source_boundary] == rows[key.target][key.target_boundary]


def test_the_program_of_a_small_example_is_this():
    space = make_space((2, 4), (1, 3))
    assert space.program('S1-L2') == (
        Embed(0),
        Block(0, 0),
        Tap(0, 0, LayerKey(0, 1, 1, 2)),
        Cross(LayerKey(0, 1, 1, 2)),
        Block(1, 2),
        Block(1, 3),
        Tap(1, 1, None),
    )
    assert space.program('L2-S1') == (
        Embed(1),
        Block(1, 0),
        Block(1, 1),
        Tap(0, 1, None),
        Cross(LayerKey(1, 2, 0, 1)),
        Block(0, 1),
        Tap(1, 0, LayerKey(0, 2, 1, 4)),
    )


@pytest.mark.parametrize('depths', [(12, 24), (8, 12, 24)], ids=str)
def test_taps_of_smaller_anchors_are_lifted_by_the_layer_behind_their_block(depths):
    space, rows = make_space(depths), positions(depths)
    largest = len(depths) - 1
    for stitch in space:
        program = space.program(stitch)
        for before, step in zip(program, program[1:]):
            if not isinstance(step, Tap) or not isinstance(before, Block):
                continue
            if step.anchor == largest:
                assert step.lift is None
            else:
                stop = before.index + 1
                facing = rows[step.anchor][stop]
                assert step.lift == LayerKey(step.anchor, stop, largest, facing)


def test_two_late_taps_on_one_small_block_share_its_lift():
    space = make_space((12, 24), (20, 21, 22, 23))
    taps = [step for step in space.program('S12') if isinstance(step, Tap)]
    eleventh, twelfth = LayerKey(0, 11, 1, 22), LayerKey(0, 12, 1, 24)
    assert [tap.lift for tap in taps] == [eleventh, eleventh, twelfth, twelfth]


def test_normed_taps_have_lifts_apart_from_the_crossings():
    plain, normed = make_space((2, 4), (1, 3)), make_space((2, 4), (1, 3), normed_taps=True)
    assert LayerKey(0, 1, 1, 2, lift=True) in normed.layers
    assert LayerKey(0, 1, 1, 2, lift=True) not in plain.layers
    assert len(normed.layers) == len(plain.layers) + 1  # the crossing S1 to L2 lifted taps too


def test_common_prefixes_of_programs_cost_894_blocks_instead_of_2412():
    space = make_space((12, 24), (9, 14, 19, 23))
    programs = [space.program(stitch) for stitch in space]
    prefixes = {program[: i + 1] for program in programs for i in range(len(program))}
    assert sum(isinstance(step, Block) for program in programs for step in program) == 2412
    assert sum(isinstance(prefix[-1], Block) for prefix in prefixes) == 894


def test_layer_names_tell_both_boundaries():
    assert LayerKey(0, 5, 1, 10).name(('S', 'L')) == 'S5_to_L10'
    assert LayerKey(1, 10, 0, 5).name(('S', 'L')) == 'L10_to_S5'
    assert LayerKey(0, 5, 1, 10, lift=True).name(('S', 'L')) == 'lift_S5_to_L10'
