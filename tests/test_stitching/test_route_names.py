"""Routes read back from names, against the enumeration that named them."""

from __future__ import annotations

import pytest

from mmsnnet.stitching import StitchSpace
from mmsnnet.stitching.anchor import AnchorSpec
from mmsnnet.stitching.route_names import anchors_of_names, parse_name, route_of_name
from tests.builders import tiny_backbone

SPACES = [((6, 48), (12, 96)), ((3, 32), (6, 48), (12, 96)), ((4, 48), (6, 48)), ((4, 48),)]


@pytest.mark.parametrize('shape', SPACES)
def test_every_stitch_of_a_space_is_read_back(shape):
    space = tiny_backbone(shape, out_indices=(0,)).space
    assert isinstance(space, StitchSpace) and isinstance(space.anchors[0], AnchorSpec)
    depths = [anchor.depth for anchor in space.anchors]
    for stitch in space:
        assert route_of_name(stitch.name, stitch.family, space.labels, depths) == stitch.route
    families = {stitch.name: stitch.family for stitch in space}
    assert anchors_of_names(families) == dict(zip(space.labels, depths))


def test_labels_may_end_in_digits():
    assert parse_name('V25-V112', 'V2-V1') == [('V2', 5), ('V1', 12)]


@pytest.mark.parametrize(
    ('name', 'family', 'message'),
    [
        ('S5', 'S-L', "'S5' is not the name of a stitch of the family 'S-L'"),
        ('S5-Lx', 'S-L', 'is not the name'),
        ('S5-M3', 'S-M', r"runs 'M', which is none of \['S', 'L'\]"),
        ('S5-L13', 'S-L', r'is no route of anchors of \[12, 24\] blocks'),
        ('S5-L15', 'S-L', 'is no route'),
        ('L3-S9', 'L-S', 'is no route'),
    ],
)
def test_names_of_other_routes_are_refused(name, family, message):
    with pytest.raises(ValueError, match=message):
        route_of_name(name, family, ('S', 'L'), (12, 24))
