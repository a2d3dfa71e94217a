"""A race of stitches over shards of images: which of them can be dropped before all are seen.

The images come in an order that is random but fixed by a seed. At some of them, the looks, the
metrics of all stitches that are left are compared in the same draws of what the images that are not
seen yet may be like; a stitch that one of no more FLOPs surely beats on the whole data set is
dropped. That is racing as of Maron and Moore, "Hoeffding Races" (NIPS 1993), with a paired
bootstrap for the bound.

How large is large enough goes by what dropping saves. Stitches share the blocks of their common
beginnings, so that dropping one saves those blocks alone that no other needs. The risk that the
confidence leaves is dealt out in proportion to these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mmsnnet.stitching.program import Block
from mmsnnet.stitching.route_tree import Program

from .certainty import check_confidence

#: Shares of the images after which stitches are dropped.
LOOKS = (0.03, 0.05, 0.08, 0.12, 0.18, 0.25, 0.35, 0.5, 0.7)
#: Fewest images of a look: below, a bootstrap says too little of the spread of images.
MIN_IMAGES = 30
#: That a stitch is beaten, before it is dropped. With 134 stitches and 9 looks there are many
#: comparisons, so that it is much higher than for one of them (tools/benchmark/front_race.py).
CONFIDENCE = 0.998
#: Bounds of what a stitch may save, in units of what one saves on average.
_SAVINGS = (0.5, 2.0)


@dataclass(frozen=True)
class RaceOptions:
    """How a race goes.

    Attributes:
        metric: Metric that stitches race by; None for the first that has statistics of images.
        rule: 'greater' or 'less', which is better.
        confidence: That a stitch is beaten, before it is dropped.
        seed: Of the order of images and of the draws.
        min_images: Fewest images after which stitches are dropped.

    Raises:
        ValueError: If the confidence is not between 0 and 1, or there are no images.
    """

    metric: str | None = None
    rule: str = 'greater'
    confidence: float = CONFIDENCE
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
        probability: That this one is better on the whole data set.
        lead: By how much it is expected to be, in units of the metric.
    """

    name: str
    beaten_by: str
    probability: float
    lead: float


def race_order(num_batches: int, seed: int) -> list[int]:
    """Numbers of batches in the random order of a seed."""
    return np.random.default_rng(seed).permutation(num_batches).tolist()


def looks(num_batches: int, batch_size: int, min_images: int = MIN_IMAGES) -> list[int]:
    """Numbers of batches after which stitches are dropped, ascending; none is all of them."""
    least = max(math.ceil(LOOKS[0] * num_batches), -(-min_images // batch_size))
    found = {least, *(math.ceil(share * num_batches) for share in LOOKS)}
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

    How surely is by the mean and the spread of the difference over the draws, as of a normal
    distribution: shares of a thousand draws would not tell 0.998 from 0.999.

    Args:
        names: Of all stitches that are left.
        costs: Their FLOPs (S,).
        values: Their metric in the draws (R, S), greater is better.
        required: See :func:`required_probability`.
        kept: Names that are never dropped.
    """
    scores = _scores_against(costs, values)
    limits = np.array([NormalDist().inv_cdf(one) for one in required])
    surest, drops = scores.max(1), []
    for number in np.flatnonzero(surest >= limits):
        if names[number] not in kept:
            rivals = np.flatnonzero(scores[number] == surest[number])
            rival = int(rivals[values[:, rivals].mean(0).argmax()])
            probability = NormalDist().cdf(float(scores[number, rival]))
            lead = float(f'{(values[:, rival] - values[:, number]).mean():.6g}')
            drops.append(Drop(names[number], names[rival], round(probability, 4), lead))
    return drops


def _scores_against(costs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean lead of stitch j over stitch i in standard deviations (S, S); -inf for no rivals."""
    means = values.mean(0)
    centred = values - means
    covariance = centred.T @ centred / len(values)
    variances = np.diag(covariance)
    spread = np.sqrt(np.maximum(variances[:, None] + variances[None] - 2 * covariance, 0))
    lead = means[None] - means[:, None]
    with np.errstate(divide='ignore', invalid='ignore'):
        scores = lead / spread
    return np.where((costs[None] <= costs[:, None]) & (lead > 0), scores, -np.inf)
