"""The right stitch for a budget, from what stitches cost and how well they did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .pareto import Point, cheapest_above, dominated, knee_point, pareto_front

#: Axes of cost: what a number on each is counted in.
UNITS = {'gflops': 'GFLOPs', 'params': 'M parameters', 'ms': 'ms', 'mb': 'MB'}


@dataclass(frozen=True)
class Candidate:
    """A stitch with what is known of it.

    Attributes:
        name: Name of the stitch.
        family: Labels of its segments.
        flops: Multiply-adds for one image.
        params: Parameters that take part.
        quality: Value of the metric; NaN when it has none or was not scored.
        ms: Measured milliseconds, if known.
        mb: Megabytes (10^6 bytes) that it takes, if known.
        metrics: All its metrics.
    """

    name: str
    family: str
    flops: int
    params: int
    quality: float = float('nan')
    ms: float | None = None
    mb: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict, compare=False)

    def cost(self, axis: str) -> float | None:
        """Cost on an axis of ``UNITS``; None where it was not measured."""
        known = dict(gflops=self.flops / 1e9, params=self.params / 1e6, ms=self.ms, mb=self.mb)
        return known[axis]


def check_axis(axis: str) -> str:
    """The axis itself.

    Raises:
        ValueError: If it is unknown.
    """
    if axis not in UNITS:
        raise ValueError(f'Unknown cost {axis!r}; choose one of {", ".join(UNITS)}.')
    return axis


class Chooser:
    """Answers which stitch to take.

    Args:
        candidates: Stitches to choose from.
        metric: Name of the metric that their quality is; None if none was scored. A budget alone
            then takes the stitch of most FLOPs that it allows.
        rule: 'greater' or 'less', which quality is better.

    Raises:
        ValueError: If there are no candidates.
    """

    def __init__(
        self, candidates: Iterable[Candidate], metric: str | None = None, rule: str = 'greater'
    ) -> None:
        self.candidates = tuple(candidates)
        self.metric = metric
        self.rule = rule
        self._by_name = {candidate.name: candidate for candidate in self.candidates}
        if not self.candidates:
            raise ValueError('There are no stitches to choose from.')

    def __getitem__(self, name: str) -> Candidate:
        """Candidate by name.

        Raises:
            ValueError: If there is none.
        """
        if name not in self._by_name:
            raise ValueError(f'Nothing is known of the stitch {name!r}.')
        return self._by_name[name]

    def points(self, axis: str = 'gflops') -> list[Point]:
        """Candidates in the plane of a cost and the metric.

        Raises:
            ValueError: If the cost is unknown of some.
        """
        check_axis(axis)
        unknown = [one.name for one in self.candidates if one.cost(axis) is None]
        if unknown:
            raise ValueError(
                f'{UNITS[axis]} of {len(unknown)} of {len(self.candidates)} stitches (such as '
                f'{unknown[0]}) are not known: give latency=FILE of tools/measure_latency.py.'
            )
        return [Point(one.name, one.cost(axis), one.quality) for one in self.candidates]

    def within(self, **limits: float | None) -> Candidate:
        """Best stitch that keeps every limit; of equals the one of fewer FLOPs, then the first.

        Without a metric it is the stitch of most FLOPs that keeps them; of equals the first.

        Args:
            limits: Most that it may cost, by axis: ``gflops=120, ms=30``. None is no limit.

        Raises:
            ValueError: If no limit is given, or no stitch keeps them; the cheapest is named.
        """
        limits = {axis: limit for axis, limit in limits.items() if limit is not None}
        if not limits:
            raise ValueError(f'Give a limit: {", ".join(f"{axis}=" for axis in UNITS)}.')
        for axis in limits:
            self.points(axis)
        fitting = [
            one
            for one in self.candidates
            if all(one.cost(axis) <= limit for axis, limit in limits.items())
        ]
        if not fitting:
            raise ValueError(self._unattainable(limits))
        if self.metric is None:
            return max(fitting, key=lambda one: one.flops)
        scored = [one for one in fitting if one.quality == one.quality]
        if not scored:
            raise ValueError(f'None of the stitches within the budget has a {self.metric}.')
        sign = 1 if self.rule == 'greater' else -1
        return max(scored, key=lambda one: (sign * one.quality, -one.flops))

    def _unattainable(self, limits: Mapping[str, float]) -> str:
        wanted = ' and '.join(f'{limit:g} {UNITS[axis]}' for axis, limit in limits.items())
        least = {axis: min(self.candidates, key=lambda one: one.cost(axis)) for axis in limits}
        told = ', '.join(
            f'{one.name} with {one.cost(axis):.4g} {UNITS[axis]}' for axis, one in least.items()
        )
        return f'No stitch keeps within {wanted}; the cheapest is {told}.'

    def reaching(self, quality: float, axis: str = 'gflops') -> Candidate:
        """Cheapest stitch on an axis that is at least as good as ``quality``.

        Raises:
            ValueError: If none is that good; the best is named.
        """
        self._check_scored()
        return self[cheapest_above(self.points(axis), quality, self.rule).name]

    def front(self, axis: str = 'gflops') -> list[Candidate]:
        """Stitches that no other one dominates, from cheap to costly."""
        self._check_scored()
        return [self[point.name] for point in pareto_front(self.points(axis), self.rule)]

    def knee(self, axis: str = 'gflops') -> Candidate:
        """Knee of the front; see :func:`mmsnnet.results.pareto.knee_point`."""
        self._check_scored()
        return self[knee_point(self.points(axis), self.rule).name]

    def dominated(self, axis: str = 'gflops') -> list[Candidate]:
        """Stitches that some other one dominates, in the given order."""
        self._check_scored()
        return [self[point.name] for point in dominated(self.points(axis), self.rule)]

    def _check_scored(self) -> None:
        if self.metric is None:
            raise ValueError('No stitch was scored: give the results folder of a sweep.')
