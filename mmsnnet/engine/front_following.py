"""Which stitches a validation scores to follow the front of a model that is still learning.

A validation can pay for a few forwards of an image. It spends them on the anchors, on the front by
what is known so far, and on explorers. What is known was found at different times, and a model
gets better all the while; so older values are carried forward by what those stitches gained in
between that were scored at consecutive validations (the median of their gains; the anchors are
always among them).

Explorers are taken in turn from the stitches that were never scored, the one that is farthest in
cost from all that were, and from those that were: values wander about like a random walk, whose
spread grows with the root of its age, so the stitch with the least distance below the front over
the root of its age is the likeliest to be on it now.

All of it is a function of the validations so far and a seed, so all processes choose alike, and a
resumed training as an uninterrupted one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from mmsnnet.results.pareto import Point, pareto_front


@dataclass(frozen=True)
class FollowOptions:
    """How a front is followed.

    Attributes:
        max_forwards: Stitches that are scored at a validation, at most.
        explorers: Those among them that are not of the front, at least.
        seed: Breaks ties between explorers.

    Raises:
        TypeError: If one is no integer.
        ValueError: If one is below its least value.
    """

    max_forwards: int = 12
    explorers: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f'front.{one.name} must be an integer, got {value!r}.')
            if value < 0:
                raise ValueError(f'front.{one.name} must be 0 or more, got {value}.')

    @classmethod
    def of(cls, settings: Mapping[str, int]) -> FollowOptions:
        """Options of a config.

        Raises:
            ValueError: If there is an unknown one.
        """
        known = [one.name for one in fields(cls)]
        unknown = sorted(settings.keys() - set(known))
        if unknown:
            raise ValueError(f'front has no {", ".join(unknown)}: it takes {", ".join(known)}.')
        return cls(**settings)


@dataclass(frozen=True)
class Validation:
    """What a validation found.

    Attributes:
        iteration: Iterations of the training before it.
        values: Metric by name of the stitch; NaN where it has none.
    """

    iteration: int
    values: Mapping[str, float]


class FrontFollowing:
    """Chooses the stitches of the next validation.

    Args:
        costs: FLOPs of all stitches by name, in the order of their ids.
        anchors: Names of the anchors, which are always scored.
        rule: 'greater' or 'less', which value is better.
        options: The budget and its use.

    Raises:
        ValueError: If the budget does not hold the anchors and the explorers.
    """

    def __init__(
        self,
        costs: Mapping[str, int],
        anchors: Sequence[str],
        rule: str,
        options: FollowOptions,
    ) -> None:
        least = len(anchors) + options.explorers
        if options.max_forwards < min(least, len(costs)):
            raise ValueError(
                f'front.max_forwards={options.max_forwards} is too few for {len(anchors)} anchors '
                f'and {options.explorers} explorers: give {least} or more, or fewer explorers.'
            )
        self._costs = costs
        self._anchors = tuple(anchors)
        self._sign = 1 if rule == 'greater' else -1
        self._options = options
        order = np.random.default_rng(options.seed).permutation(len(costs)).tolist()
        self._ties = dict(zip(costs, order))

    def choose(self, validations: Sequence[Validation]) -> tuple[str, ...]:
        """Names of the stitches to score after some validations, in the order of their ids."""
        budget = min(self._options.max_forwards, len(self._costs))
        known = self._estimates(validations)
        ages = self._ages(validations)
        front = {point.name for point in self._front(known)}
        chosen = list(self._anchors)
        oldest = sorted(front - set(chosen), key=lambda name: (-ages[name], self._costs[name]))
        chosen += oldest[: budget - len(chosen) - self._options.explorers]
        self._explore(chosen, budget, known, ages)
        return tuple(name for name in self._costs if name in chosen)

    def _explore(
        self,
        chosen: list[str],
        budget: int,
        known: Mapping[str, float],
        ages: Mapping[str, int],
    ) -> None:
        """Fill up what is chosen with explorers."""
        front = self._front(known)
        unknown = [name for name in self._costs if name not in ages and name not in chosen]
        scored = {name: self._reach(name, known, front) / math.sqrt(ages[name])
                  for name in ages if name not in chosen}  # fmt: skip
        members = {point.name for point in front}  # those that have no room wait for their turn
        likeliest = sorted(
            scored, key=lambda name: (name in members, scored[name], self._ties[name])
        )
        taken = {*ages, *chosen}
        for turn in range(budget - len(chosen)):
            if unknown and (turn % 2 == 0 or not likeliest):
                name = self._farthest(unknown, taken)
                unknown.remove(name)
                taken.add(name)
            else:
                name = likeliest.pop(0)
            chosen.append(name)

    def _farthest(self, names: Sequence[str], taken: set[str]) -> str:
        """The stitch whose cost is farthest from those that are taken, or scored."""
        costs = [self._costs[name] for name in taken]

        def rank(name: str) -> tuple[int, int]:
            distance = min(abs(cost - self._costs[name]) for cost in costs)
            return -distance, self._ties[name]

        return min(names, key=rank)

    def _reach(self, name: str, known: Mapping[str, float], front: Sequence[Point]) -> float:
        """How much better a stitch must be to be on the front; infinite without a value."""
        if name not in known:
            return math.inf
        rivals = [point.quality for point in front if point.cost <= self._costs[name]]
        return max(rivals) - known[name]

    def _front(self, known: Mapping[str, float]) -> list[Point]:
        return pareto_front(Point(name, self._costs[name], known[name]) for name in known)

    def _estimates(self, validations: Sequence[Validation]) -> dict[str, float]:
        """What stitches are worth by now, greater being better; of those with a value."""
        level, before = 0.0, {}
        found: dict[str, float] = {}
        for validation in validations:
            values = {
                name: self._sign * value
                for name, value in validation.values.items()
                if math.isfinite(value)
            }
            gains = [values[name] - before[name] for name in values if name in before]
            level += statistics.median(gains) if gains else 0.0
            for name in validation.values:
                found.pop(name, None)
            found.update({name: value - level for name, value in values.items()})
            before = values
        return {name: found[name] + level for name in self._costs if name in found}

    def _ages(self, validations: Sequence[Validation]) -> dict[str, int]:
        """Validations since stitches were scored, 1 at least; of those that ever were."""
        last = {name: number for number, one in enumerate(validations) for name in one.values}
        return {name: len(validations) - last[name] for name in self._costs if name in last}
