"""Three anchors from cheap to costly, from the fit to a training step."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from mmengine.structures import PixelData

from mmsnnet.models import StitchedViT
from mmsnnet.stitching import AnchorSpec, StitchSpace, Tap
from tests.builders import random_images, tiny_anchor, tiny_backbone

SHAPES = ((3, 32), (3, 48), (6, 64))
ALL_PAIRS = dict(max_crossings=2, pairs='all')


def backbone_of(kind: str = 'class token', **settings) -> StitchedViT:
    anchors = [tiny_anchor(*shape, kind) for shape in SHAPES]
    settings = dict(out_indices=(1, 2, 4, 5), scheme=ALL_PAIRS) | settings
    return tiny_backbone(anchors=anchors, **settings)


def taps_of(space: StitchSpace) -> dict[str, Counter]:
    """How often each stitch delivers each output, by its name."""
    return {
        stitch.name: Counter(
            step.position for step in space.program(stitch) if isinstance(step, Tap)
        )
        for stitch in space
    }


@pytest.mark.parametrize(
    ('scheme', 'across'), [('two_way', set()), (ALL_PAIRS, {'S-L', 'L-S', 'S-L-M', 'L-S-M'})]
)
def test_routes_cross_between_neighbors_or_between_any_two(scheme, across):
    space = backbone_of(scheme=scheme).space
    assert space.labels == ('S', 'M', 'L')
    assert {'S', 'M', 'L', 'S-M', 'M-L', 'L-M', 'M-S', 'S-M-L', 'L-M-S'} <= set(space.families)
    found = {family for family in space.families if {'S-L', 'L-S'} & {family[:3], family[-3:]}}
    assert found >= across and bool(found) == bool(across)


@pytest.mark.parametrize('scheme', ['two_way', ALL_PAIRS])
@pytest.mark.parametrize('depths', [(3, 4, 6), (8, 12, 24), (12, 12, 24)])
def test_every_route_delivers_each_tap_once(depths, scheme):
    widths = (32, 48, 64)
    anchors = [AnchorSpec.plain_vit(depth, width) for depth, width in zip(depths, widths)]
    taps = tuple(depths[-1] * k // 4 - 1 for k in (2, 3, 4))
    found = taps_of(StitchSpace(anchors, taps, scheme))
    assert len(found) > 12
    assert all(count == {0: 1, 1: 1, 2: 1} for count in found.values())


@torch.no_grad()
@pytest.mark.parametrize('kind', ['class token', 'DINOv3'])
def test_every_route_of_fitted_anchors_is_finite_and_of_one_shape(kind):
    backbone = backbone_of(kind, fitted=False)
    explained = backbone.fit_stitches(random_images(8, seed=1))
    assert backbone.is_fitted and set(explained) == set(backbone.stitch_layers)
    images = random_images(1, 40, 72)
    assert len(backbone.space) > 20 and len(backbone.space.families) > 12
    for stitch in backbone.space:
        maps = backbone.run(images, stitch)
        assert [tuple(item.shape) for item in maps] == [(1, 64, 5, 9)] * 4
        assert all(torch.isfinite(item).all() for item in maps), stitch.name


def test_a_training_step_of_a_segmentor_changes_what_its_route_runs():
    from tests.segmentors import build_segmentor, head

    anchors = [tiny_anchor(*shape) for shape in SHAPES]
    backbone = dict(type='StitchedViT', anchors=anchors, img_size=64, out_indices=(1, 2, 4, 5))
    backbone |= dict(scheme=ALL_PAIRS, drop_path_rate=0.0)  # a dropped block learns nothing
    model = build_segmentor(head('UPerHead', 64), backbone=backbone).train()
    backbone = model.backbone
    backbone.mark_fitted()
    backbone.set_training_stitch('S1-L4')
    before = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    from mmseg.structures import SegDataSample

    samples = [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 5, (1, 64, 64))))] * 2
    losses = model.loss(random_images(), samples)
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    optimizer.step()
    changed = {name for name, p in backbone.named_parameters() if not torch.equal(p, before[name])}
    assert 'anchors.S.vit.blocks.0.attn.qkv.weight' in changed
    assert 'anchors.L.vit.blocks.5.attn.qkv.weight' in changed
    assert 'stitch_layers.S1_to_L2.bias' in changed
    assert not any('anchors.M.' in name or 'anchors.L.vit.blocks.1.' in name for name in changed)
