"""Objects of rooms one by one: square crops by kind, for classification."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .kinds import LABELS, SURFACES

OBJECT_KINDS = tuple(sorted(name for name in LABELS if name not in SURFACES))
"""The kinds that are objects, in the order of their classes: that of their folders' names."""

LEAST_SHARE = 120 / 96**2
"""Least share of a room's picture that an object must cover to have a picture of its own."""

MARGIN = 1 / 8
"""Margin on each side of an object, as a share of the longer side of its box."""


def pictured(instances: np.ndarray) -> list[int]:
    """Ids of the objects of a room that are large enough for a picture of their own, ascending.

    Args:
        instances: (H, W) instance ids, 0 where there is no object.
    """
    ids, areas = np.unique(instances, return_counts=True)
    least = LEAST_SHARE * instances.size
    return [int(key) for key, area in zip(ids, areas) if key and area >= least]


def square(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the square around an object.

    It is the object's box with a margin, moved into the picture where it would stand out. In a
    picture whose shorter side is below the square's, the square has that side and shows the
    middle of the object.

    Args:
        mask: (H, W) boolean, somewhere true.
    """
    spans = []
    for axis in (1, 0):
        found = np.flatnonzero(mask.any(axis=axis))
        spans.append((int(found[0]), int(found[-1]) + 1))
    longest = max(stop - start for start, stop in spans)
    side = min(math.ceil(longest * (1 + 2 * MARGIN)), *mask.shape)
    rows, columns = (
        _window(start, stop, side, limit) for (start, stop), limit in zip(spans, mask.shape)
    )
    return rows, columns


def _window(start: int, stop: int, side: int, limit: int) -> slice:
    """``side`` pixels about the middle of [start, stop), within [0, limit)."""
    first = min(max((start + stop - side) // 2, 0), limit - side)
    return slice(first, first + side)


def crops(picture: np.ndarray, instances: np.ndarray, ids: Sequence[int]) -> list[np.ndarray]:
    """Pictures of objects of a room: (side, side, 3) uint8 each.

    Args:
        picture: (H, W, 3) uint8.
        instances: (H, W) instance ids.
        ids: Those of the objects.
    """
    return [picture[square(instances == key)] for key in ids]
