"""mIoU on ADE20K that the authors of SN-Netv2 published for their stitches of DeiT3-S and L.

In the order of the published ids, 0 to 134 without 13, as `published_flops` has them.
"""

from __future__ import annotations

from tests.test_stitching.brute_force import make_space
from tests.test_stitching.published_flops import ROWS
from tools.benchmark.front_race import PUBLISHED_MIOU

#: Published id, FLOPs and mIoU of each stitch.
PUBLISHED = tuple((row[0], row[1], miou) for row, miou in zip(ROWS, PUBLISHED_MIOU))


def published_records() -> list[dict]:
    """Records of the 134 stitches, as a sweep would have written them."""
    space = make_space((12, 24), (9, 14, 19, 23))
    return [
        dict(
            id=stitch.id,
            name=stitch.name,
            family=stitch.family,
            flops=flops,
            params=1,
            metrics=dict(mIoU=miou),
        )
        for stitch, (number, flops, miou) in zip(space, PUBLISHED)
        if stitch.published_id == number
    ]
