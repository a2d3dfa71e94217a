"""The parameters that a stitch runs are those that get gradients."""

from __future__ import annotations

import pytest
import torch

from mmsnnet.models.route_parameters import parameters_of_route
from tests.builders import ALL_KINDS, tiny_anchor
from tests.segmentors import build, tiny_stitched


@pytest.mark.parametrize('kind', ALL_KINDS)
@pytest.mark.parametrize('final_norm', [False, True])
def test_they_are_those_that_a_backward_reaches_for_every_family(kind, final_norm):
    anchors = [tiny_anchor(2, 32, kind), tiny_anchor(4, 64, kind)]
    backbone = build(dict(tiny_stitched(final_norm=final_norm), anchors=anchors)).train()
    for family in backbone.space.families:
        stitch = next(one for one in backbone.space if one.family == family)
        backbone.zero_grad(set_to_none=True)
        sum(map(torch.sum, backbone.run(torch.rand(2, 3, 64, 64), stitch))).backward()
        found = parameters_of_route(backbone, stitch)
        assert len(found) == len(set(found))
        reached = {p for p in backbone.parameters() if p.grad is not None}
        assert reached == {p for p in found if p.requires_grad}
