"""Which stitches to score next, so that few of them give the front.

A first set of the anchors and of stitches that tell most of the others is scored. Then a surrogate
says what the others may be worth; taken are those by which the hypervolume is expected to grow most
for each block that they add to the tree of the pass, one after the other. Emmerich, Giannakoglou
and Naujoks, "Single- and Multiobjective Evolutionary Optimization Assisted by Gaussian Random Field
Metamodels" (IEEE Transactions on Evolutionary Computation 10, 2006) for the expected improvement of
the hypervolume; here by draws, since the costs are known and the front has one step a stitch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmsnnet.stitching import StitchSpace

from .marginal_blocks import MarginalBlocks
from .surrogate import draw_values, prior_covariance

#: Expected gain of all that is not scored, as a share of the hypervolume, at which to stop.
MIN_GAIN = 0.0003
NUM_DRAWS = 256
#: Shares of the budget of the first set, and of each that follows.
_FIRST, _NEXT = 0.4, 0.2
#: Standard deviation of the logarithm of what the seed adds to the order of the first set.
_JITTER = 0.3


@dataclass(frozen=True)
class GuideOptions:
    """How few stitches are to give the front.

    Attributes:
        budget: Most stitches that are looked at.
        metric: Metric of the front; None for the first there is.
        rule: 'greater' or 'less', which is better.
        worst: Worst value of the metric that matters.
        seed: Of the first set and of the draws.
        min_gain: Expected gain of what is not looked at, as a share of the hypervolume, below
            which the search stops.

    Raises:
        ValueError: If the budget or the bound is not possible.
    """

    budget: int
    metric: str | None = None
    rule: str = 'greater'
    worst: float = 0.0
    seed: int = 0
    min_gain: float = MIN_GAIN

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ValueError(f'A budget of {self.budget} stitches is not possible: give 1 or more.')
        if not 0 <= self.min_gain < 1:
            raise ValueError(
                f'min_gain={self.min_gain} is not possible: give a share from 0 to below 1.'
            )


@dataclass(frozen=True)
class Candidates:
    """Stitches that may be scored.

    Attributes:
        names: Their names.
        costs: Their FLOPs (S,).
        features: (S, F), see :func:`~.route_features.route_features`.
        blocks: Blocks that they add to a pass.
    """

    names: Sequence[str]
    costs: np.ndarray
    features: np.ndarray
    blocks: MarginalBlocks


@dataclass(frozen=True)
class Proposal:
    """What to score next.

    Attributes:
        names: Names of the stitches.
        gain: Expected gain in hypervolume of all that is not scored, as a share of what it would
            be with them.
        chances: Chance to be on the front, by name, of all that is not scored.
    """

    names: tuple[str, ...]
    gain: float
    chances: Mapping[str, float]


def check_budget(budget: int, space: StitchSpace, num_wanted: int) -> None:
    """Refuse a budget that does not fit the stitches.

    Raises:
        ValueError: If it is less than the anchors and one more, or more than there are.
    """
    least = len(space.anchor_stitches) + 1
    if not least <= budget <= num_wanted:
        raise ValueError(
            f'A budget of {budget} stitches is not possible: {num_wanted} are to choose from, and '
            f'the anchors and one more are {least}; give a number from {least} to {num_wanted}.'
        )


def first_set(
    candidates: Candidates, anchors: Sequence[str], options: GuideOptions
) -> tuple[str, ...]:
    """The anchors, and stitches that tell most of the others for each block that they add.

    What one tells is by how much it lowers the variance of all others under the prior of the
    surrogate (Krause, Singh and Guestrin, "Near-Optimal Sensor Placements in Gaussian Processes",
    JMLR 9, 2008, for the greedy choice).

    Args:
        candidates: The stitches.
        anchors: Names of the anchors; those that are no candidates are left out.
        options: The budget, and the seed.
    """
    names = candidates.names
    chosen = [number for number, name in enumerate(names) if name in anchors]
    count = min(max(math.ceil(_FIRST * options.budget), len(chosen) + 1), len(names))
    covariance = prior_covariance(candidates.features)
    jitter = np.exp(_JITTER * np.random.default_rng(options.seed).normal(size=len(names)))
    candidates.blocks.add(names[number] for number in chosen)
    for number in chosen:
        covariance = _given(covariance, number)
    while len(chosen) < count:
        told = jitter * (covariance**2).sum(0) / (covariance.diagonal() + 1e-4)
        rates = told / [candidates.blocks.of(name) for name in names]
        rates[chosen] = -1.0
        best = int(rates.argmax())
        chosen.append(best)
        candidates.blocks.add([names[best]])
        covariance = _given(covariance, best)
    return tuple(names[number] for number in sorted(chosen))


def _given(covariance: np.ndarray, number: int) -> np.ndarray:
    """Covariance of the values where one of them is known."""
    column = covariance[:, number]
    return covariance - np.outer(column, column) / (column[number] + 1e-9)


def propose(
    candidates: Candidates,
    values: np.ndarray,
    guesses: Mapping[int, float],
    count: int,
    seed: int,
) -> Proposal:
    """The set to score next.

    Args:
        candidates: The stitches, scored or not.
        values: What their metric is better than the worst (S,); NaN for those not scored.
        guesses: Values by number of stitches that a race dropped, which are not proposed.
        count: Most stitches of the set.
        seed: Of the draws.
    """
    fitted = values.copy()
    fitted[list(guesses)] = list(guesses.values())
    draws = draw_values(candidates.features, fitted, NUM_DRAWS, seed)
    search = _Search(candidates, values, draws)
    free = np.flatnonzero(~np.isfinite(fitted)).tolist()
    chances = search.chances(free)
    gain, picked = search.gain_of(free), search.pick(free, count)
    return Proposal(
        tuple(candidates.names[number] for number in picked),
        gain,
        {candidates.names[number]: round(float(chances[number]), 4) for number in free},
    )


def next_count(options: GuideOptions, num_known: int) -> int:
    """Most stitches of the next set; 0 where the budget is spent."""
    return max(min(math.ceil(_NEXT * options.budget), options.budget - num_known), 0)


class _Search:
    """Expected hypervolumes over draws of the values of stitches.

    Args:
        candidates: The stitches.
        values: (S,), NaN for those not scored.
        draws: (D, S).
    """

    def __init__(self, candidates: Candidates, values: np.ndarray, draws: np.ndarray) -> None:
        self._names, self._blocks = candidates.names, candidates.blocks
        self._order = np.argsort(candidates.costs, kind='stable')
        costs = candidates.costs[self._order]
        self._widths = np.append(np.diff(costs), 0) / costs[-1]
        self._draws = np.maximum(draws, 0)
        self._base = np.maximum(np.nan_to_num(values, nan=0.0), 0)
        self._present = float(self._volumes(self._base[None])[0])

    def _volumes(self, values: np.ndarray) -> np.ndarray:
        """Hypervolume (D,) of values (D, S)."""
        return np.maximum.accumulate(values[:, self._order], 1) @ self._widths

    def _with(self, base: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
        values = base.copy()
        values[:, numbers] = self._draws[:, numbers]
        return values

    def _all_draws(self) -> np.ndarray:
        return np.repeat(self._base[None], len(self._draws), 0)

    def gain_of(self, numbers: Sequence[int]) -> float:
        """Expected gain of some stitches together, as a share of the hypervolume with them."""
        volume = float(self._volumes(self._with(self._all_draws(), numbers)).mean())
        return (volume - self._present) / volume if volume > 0 else 0.0

    def chances(self, numbers: Sequence[int]) -> np.ndarray:
        """Share of the draws (S,) in which each stitch is on the front, if some are scored."""
        values = self._with(self._all_draws(), numbers)[:, self._order]
        before = np.maximum.accumulate(values, 1)[:, :-1]
        shares = np.ones(len(self._order))
        shares[self._order[1:]] = (values[:, 1:] > before).mean(0)
        return shares

    def pick(self, numbers: Sequence[int], count: int) -> list[int]:
        """Stitches by their expected gain for each block that they add, one after the other."""
        values, left, picked = self._all_draws(), list(numbers), []
        while left and len(picked) < count:
            gains = self._gains(values, left)
            best = int(np.argmax(gains / [self._blocks.of(self._names[i]) for i in left]))
            picked.append(left.pop(best))
            self._blocks.add([self._names[picked[-1]]])
            values = self._with(values, picked[-1:])
        return sorted(picked)

    def _gains(self, values: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
        """Expected gain of each of some stitches alone, where values (D, S) are known."""
        best = np.maximum.accumulate(values[:, self._order], 1)
        places = np.argsort(self._order)  # of each stitch in the order of costs
        return np.array([
            (np.maximum(self._draws[:, [i]] - best[:, places[i] :], 0) @ self._widths[places[i] :])
            .mean() for i in numbers
        ])  # fmt: skip
