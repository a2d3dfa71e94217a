"""A race of stitches over shards of images: which of them can be dropped before all are seen.

The images come in an order that is random but fixed by a seed. At some of them, the looks, the
metrics of all stitches that are left are compared in the same bootstrap resamples of the images so
far; a stitch that one of no more FLOPs beats in a large enough share of them is dropped. That is
racing as of Maron and Moore, "Hoeffding Races" (NIPS 1993), with a paired bootstrap for the bound.

How large is large enough goes by what dropping saves. Stitches share the blocks of their common
beginnings, so that dropping one saves those blocks alone that no other needs. The risk that the
confidence leaves is dealt out in proportion to these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmsnnet.stitching.program import Block
from mmsnnet.stitching.route_tree import Program

from .certainty import check_confidence

#: Shares of the images after which stitches are dropped.
LOOKS = (0.03, 0.05, 0.08, 0.12, 0.18, 0.25, 0.35, 0.5, 0.7)
#: Fewest images of a look: below, a bootstrap says too little of the spread of images.
MIN_IMAGES = 50
#: Bounds of what a stitch may save, in units of what one saves on average.
_SAVINGS = (0.5, 2.0)


@dataclass(frozen=True)
class RaceOptions:
    """How a race goes.

    Attributes:
        metric: Metric that stitches race by; None for the first that has statistics of images.
        rule: 'greater' or 'less', which is better.
        confidence: That a stitch is beaten, before it is dropped. As there are many looks, it is
            higher than that of one comparison would be.
        seed: Of the order of images and of the resamples.
        min_images: Fewest images after which stitches are dropped.

    Raises:
        ValueError: If the confidence is not between 0 and 1, or there are no images.
    """

    metric: str | None = None
    rule: str = 'greater'
    confidence: float = 0.99
    seed: int = 0
    min_images: int = MIN_IMAGES

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if self.min_images < 1:
            raise ValueError(f'min_images={self.min_images} is not possible: give 1 image or more.')


@dataclass(frozen=True)
class Drop:
    """A stitch that is dropped.

    Attributes:
        name: Its name.
        beaten_by: Name of a stitch of no more FLOPs.
        probability: That this one is better.
    """

    name: str
    beaten_by: str
    probability: float


def race_order(num_batches: int, seed: int) -> list[int]:
    """Numbers of batches in the random order of a seed."""
    return np.random.default_rng(seed).permutation(num_batches).tolist()


def looks(num_batches: int, batch_size: int, min_images: int = MIN_IMAGES) -> list[int]:
    """Numbers of batches after which stitches are dropped, ascending; none is all of them."""
    least = -(-min_images // batch_size)
    found = {math.ceil(share * num_batches) for share in LOOKS}
    return sorted(number for number in found if least <= number < num_batches)


def blocks_saved(programs: Mapping[str, Program]) -> dict[str, int]:
    """Blocks that a pass saves without one of the stitches, by its name.

    Args:
        programs: Of all stitches that are left, by name.
    """
    users: dict[tuple, int] = {}
    prefixes = {
        name: [tuple(program[: end + 1]) for end, step in enumerate(program)
               if isinstance(step, Block)]
        for name, program in programs.items()
    }  # fmt: skip
    for places in prefixes.values():
        for place in places:
            users[place] = users.get(place, 0) + 1
    return {name: sum(users[place] == 1 for place in places) for name, places in prefixes.items()}


def required_probability(
    saved: Mapping[str, int], names: Sequence[str], confidence: float
) -> np.ndarray:
    """Probability of being beaten at which each stitch (S,) is dropped.

    Args:
        saved: Blocks that dropping it saves, by name.
        names: The stitches, in order.
        confidence: Of one that saves as much as they do on average.
    """
    blocks = np.array([saved[name] for name in names], float)
    scale = np.clip(blocks / max(blocks.mean(), 1e-9), *_SAVINGS)
    return 1 - (1 - confidence) * scale


def find_losers(
    names: Sequence[str],
    costs: np.ndarray,
    values: np.ndarray,
    required: np.ndarray,
    kept: frozenset[str] = frozenset(),
) -> list[Drop]:
    """Stitches that one of no more FLOPs, and better on average, beats surely enough.

    Args:
        names: Of all stitches that are left.
        costs: Their FLOPs (S,).
        values: Their metric in resamples (R, S), greater is better.
        required: See :func:`required_probability`.
        kept: Names that are never dropped.
    """
    drops, means = [], values.mean(0)
    for number, name in enumerate(names):
        rivals = np.flatnonzero((costs <= costs[number]) & (means > means[number]))
        if name in kept or not len(rivals):
            continue
        own, others = values[:, number, None], values[:, rivals]
        shares = (others > own).mean(0) + (others == own).mean(0) / 2
        surest = rivals[shares == shares.max()]
        best = int(surest[means[surest].argmax()])
        if shares.max() >= required[number]:
            drops.append(Drop(name, names[best], round(float(shares.max()), 4)))
    return drops
