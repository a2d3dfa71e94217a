"""mIoU on ADE20K that the authors of SN-Netv2 published for their stitches of DeiT3-S and L.

In the order of the published ids, 0 to 134 without 13, as `published_flops` has them.
"""

from __future__ import annotations

from tests.test_stitching.brute_force import make_space
from tests.test_stitching.published_flops import ROWS

_MIOU = (
    45.57, 51.35, 50.76, 50.69, 49.93, 49.28, 47.92, 46.54, 45.45, 45.05, 43.93, 45.39,
    44.81, 45.35, 45.49, 46.0, 46.94, 47.68, 48.78, 49.38, 49.25, 49.82, 49.38, 48.44,
    50.74, 49.89, 49.08, 47.74, 46.38, 45.51, 45.03, 43.82, 45.26, 44.45, 50.02, 49.64,
    48.27, 46.83, 45.94, 45.4, 44.0, 45.38, 44.57, 49.85, 48.6, 47.38, 46.23, 45.71,
    44.82, 45.71, 45.18, 49.3, 48.32, 46.77, 46.52, 45.39, 46.62, 45.99, 48.97, 47.82,
    46.84, 46.19, 47.27, 46.5, 48.19, 47.79, 47.05, 48.04, 47.45, 48.44, 48.02, 48.66,
    48.35, 47.18, 48.24, 48.06, 48.76, 48.35, 47.15, 44.84, 45.52, 46.5, 46.9, 47.89,
    48.9, 48.94, 49.12, 48.89, 47.9, 45.7, 46.75, 46.93, 48.11, 49.01, 48.62, 49.23,
    48.95, 47.92, 45.54, 46.0, 46.88, 48.04, 47.85, 48.49, 48.24, 47.3, 45.28, 46.23,
    47.66, 47.37, 48.24, 47.7, 46.62, 44.95, 46.13, 45.91, 46.67, 46.15, 45.29, 44.02,
    44.15, 44.63, 44.73, 44.1, 42.51, 43.03, 44.09, 42.87, 42.88, 43.45, 42.2, 41.65,
    40.86, 42.34,
)

#: Published id, FLOPs and mIoU of each stitch.
PUBLISHED = tuple((row[0], row[1], miou) for row, miou in zip(ROWS, _MIOU))


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
