"""One graph for all stitches, in torch, against the stitched backbone."""
from __future__ import annotations

import pytest
import torch

from mmsnnet.deploy.switched import SwitchedBackbone, plan_units, select_row
from mmsnnet.models.stitched_vit import StitchedViT
from mmsnnet.stitching import Block, Cross
from tests.builders import random_images, tiny_backbone


def largest_difference(
    backbone: StitchedViT, names: list[str], size: tuple[int, int] = (64, 64)
) -> float:
    """Over all stitches and maps, relative to the largest value."""
    switched, images = SwitchedBackbone(backbone, names, size).eval(), random_images(2, *size)
    worst = 0.0
    for number, name in enumerate(names):
        for mine, theirs in zip(switched(images, torch.tensor(number)), backbone.run(images, name)):
            mine, theirs = (one[0] if isinstance(one, tuple) else one for one in (mine, theirs))
            worst = max(worst, float((mine - theirs).abs().max() / theirs.abs().max()))
    return worst


@pytest.mark.parametrize(('shape', 'settings'), [
    (((3, 32), (6, 48)), {}),
    (((3, 32), (6, 48)), dict(final_norm=True)),
    (((3, 32), (6, 48)), dict(output_cls_token=True)),
    (((4, 32), (4, 48)), {}),
    (((2, 16), (4, 32), (8, 48)), {}),
    (((3, 32), (5, 48)), dict(scheme=dict(max_crossings=3), out_indices=(1, 2, 4))),
    (((6, 48),), {}),
], ids=['6 of 3', 'norm', 'class token', 'equal depths', 'three', 'uneven', 'one'])  # fmt: skip
@torch.no_grad()
def test_every_stitch_gives_its_features(shape: tuple, settings: dict) -> None:
    backbone = tiny_backbone(shape, **settings)
    assert largest_difference(backbone, list(backbone.space.names)) <= 1e-5


@pytest.mark.parametrize('kind', ['EVA-02', 'DINOv3', 'published', 'shared table', 'registers'])
@torch.no_grad()
def test_every_kind_of_anchor_gives_its_features(kind: str) -> None:
    backbone = tiny_backbone(((2, 32), (4, 48)), kind)
    assert largest_difference(backbone, list(backbone.space.names)) <= 1e-5


@torch.no_grad()
def test_tables_of_bias_are_laid_out_for_another_size_in_a_copy() -> None:
    backbone = tiny_backbone(((2, 32), (4, 48)), 'two tables')
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    assert largest_difference(backbone, ['S1-L2', 'L4'], (96, 48)) <= 1e-5
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())


def test_each_block_and_crossing_stands_once() -> None:
    space = tiny_backbone(((3, 32), (6, 48))).space
    steps = [step for unit in plan_units(space, space.names) for step in unit]
    assert len(steps) == len(set(steps))
    assert sum(isinstance(step, Block) for step in steps) == 3 + 6
    crossings = {step for name in space.names for step in space.program(name)
                 if isinstance(step, Cross)}
    assert {step for step in steps if isinstance(step, Cross)} == crossings


def test_each_program_is_a_subsequence_of_whole_units() -> None:
    space = tiny_backbone(((4, 32), (6, 48), (12, 64)), out_indices=(1, 3, 7, 11)).space
    units = plan_units(space, space.names)
    for name in space.names:
        program = space.program(name)
        taken = [unit for unit in units if unit[0] in program]
        assert tuple(step for unit in taken for step in unit) == program


def test_what_no_chosen_stitch_runs_is_left_out() -> None:
    backbone = tiny_backbone(((3, 32), (6, 48)))
    some = SwitchedBackbone(backbone, ['S3', 'S2-L2'], (64, 64))
    blocks = some.network.anchors['L'].vit.blocks
    kept = [index for index, block in enumerate(blocks) if list(block.parameters())]
    assert kept == [4, 5]
    assert all('L' not in name.split('_to_')[0] for name in some.network.stitch_layers)


def test_the_stitched_backbone_stays_as_it_was() -> None:
    backbone = tiny_backbone(((3, 32), (6, 48)))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    SwitchedBackbone(backbone, ['S3'], (64, 64))
    after = backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize('number', [-1, -5, 3])
def test_a_number_of_no_stitch_is_refused(number: int) -> None:
    with pytest.raises((IndexError, RuntimeError), match=r'out of range'):
        select_row(torch.arange(6).reshape(3, 2), torch.tensor(number))


@pytest.mark.parametrize('names', [[], ['S3', 'S3']])
def test_stitches_must_be_named_once(names: list[str]) -> None:
    with pytest.raises(ValueError, match='each once'):
        SwitchedBackbone(tiny_backbone(((3, 32), (6, 48))), names, (64, 64))
