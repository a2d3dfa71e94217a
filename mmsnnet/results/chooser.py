"""The right stitch for a budget, from what stitches cost and how well they did."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from mmsnnet.stitching.cost import CostTable
from mmsnnet.stitching.space import StitchSpace

from .candidate import UNITS, Candidate, check_axis
from .certainty import Certainty, read_certainty
from .latency_file import read_latency
from .pareto import Point, cheapest_above, dominated, knee_point, pareto_front
from .records import Record, metric_value
from .results_folder import read_results


class Chooser:
    """Answers which stitch to take.

    Args:
        candidates: Stitches to choose from.
        metric: Name of the metric that their quality is; None if none was scored. A budget alone
            then takes the stitch of most FLOPs that it allows.
        rule: 'greater' or 'less', which quality is better.
        certainty: How sure the qualities are; None where it is not known. One of another metric
            or of other stitches is left out.

    Raises:
        ValueError: If there are no candidates.
    """

    def __init__(
        self,
        candidates: Iterable[Candidate],
        metric: str | None = None,
        rule: str = 'greater',
        certainty: Certainty | None = None,
    ) -> None:
        self.candidates = tuple(candidates)
        self.metric = metric
        self.rule = rule
        names = [candidate.name for candidate in self.candidates]
        fits = certainty is not None and certainty.describes(names, metric, rule)
        self.certainty = certainty if fits else None
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
        cheapest = ', '.join(
            f'{one.name} with {one.cost(axis):.4g} {UNITS[axis]}' for axis, one in least.items()
        )
        return f'No stitch keeps within {wanted}; the cheapest is {cheapest}.'

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

    def not_told_apart(self, chosen: Candidate) -> list[Candidate]:
        """Other stitches of no more FLOPs that the data cannot tell from a chosen one.

        The best first; none where the certainty is not known.
        """
        known = () if self.certainty is None else self.certainty.stitches
        if chosen.name not in known:
            return []
        alike = [
            one
            for one in self.candidates
            if one.name in known
            and one.name != chosen.name
            and one.flops <= chosen.flops
            and not self.certainty.can_be_told_apart(one.name, chosen.name)
        ]
        sign = 1 if self.rule == 'greater' else -1
        return sorted(alike, key=lambda one: (-sign * one.quality, one.flops))

    def knee(self, axis: str = 'gflops') -> Candidate:
        """Knee of the front; see :func:`mmsnnet.results.pareto.knee_point`."""
        self._check_scored()
        return self[knee_point(self.points(axis), self.rule).name]

    def dominated(self, axis: str = 'gflops') -> list[Candidate]:
        """Stitches that some other one dominates, in the given order."""
        self._check_scored()
        return [self[point.name] for point in dominated(self.points(axis), self.rule)]

    def choose(
        self,
        min_metric: float | None = None,
        knee: bool | str = False,
        **limits: float | None,
    ) -> Candidate:
        """Stitch by limits of cost, a least quality, or the knee of the front.

        Args:
            min_metric: Quality that the cheapest stitch in GFLOPs is to reach.
            knee: True for the knee over GFLOPs, or the axis of cost.
            limits: Most that the stitch may cost, by axis.

        Raises:
            ValueError: Unless exactly one of the three is given, or if no stitch meets it.
        """
        for axis in limits:
            check_axis(axis)
        limits = {axis: limit for axis, limit in limits.items() if limit is not None}
        if sum((min_metric is not None, bool(knee), bool(limits))) != 1:
            raise ValueError(
                f'Ask for one thing: limits ({", ".join(f"{axis}=" for axis in UNITS)}), '
                'min_metric= or knee=.'
            )
        if limits:
            return self.within(**limits)
        if min_metric is not None:
            return self.reaching(min_metric)
        return self.knee('gflops' if knee is True else knee)

    def check_space(self, space: StitchSpace, source: object) -> Chooser:
        """The chooser itself.

        Args:
            space: Stitches of a model.
            source: What the candidates were read from, for the message.

        Raises:
            ValueError: If there are candidates that the space has not.
        """
        foreign = [one.name for one in self.candidates if one.name not in space]
        if foreign:
            raise ValueError(
                f'{source} has results of {len(foreign)} stitches that this model has not, such '
                f'as {foreign[0]}: they are of other anchors or of another scheme.'
            )
        return self

    def _check_scored(self) -> None:
        if self.metric is None:
            raise ValueError('No stitch was scored: give the results folder of a sweep.')
        if all(one.quality != one.quality for one in self.candidates):
            raise ValueError(
                f'None of the {len(self.candidates)} stitches has a value of {self.metric}: all '
                'are null. Choose another metric, or look at what was scored.'
            )


def chooser_of_results(
    directory: str | os.PathLike[str],
    latency: str | os.PathLike[str] | None = None,
    metric: str | None = None,
    rule: str | None = None,
) -> Chooser:
    """Chooser among the scored stitches of a results folder.

    Args:
        directory: Folder of ``tools/test_all_stitches.py``.
        latency: File of ``tools/measure_latency.py``, for limits in ms and MB.
        metric: See :func:`~mmsnnet.results.results_folder.read_results`.
        rule: See there.

    Raises:
        FileNotFoundError: If results or latency are missing.
        ValueError: If they are damaged.
    """
    results = read_results(directory, metric, rule)
    return chooser_of_records(
        results.records, results.metric, results.rule, latency, read_certainty(directory)
    )


def chooser_of_records(
    records: Iterable[Record],
    metric: str | None,
    rule: str = 'greater',
    latency: str | os.PathLike[str] | None = None,
    certainty: Certainty | None = None,
) -> Chooser:
    """Chooser among the stitches of records.

    Args:
        records: Dicts of ``name family flops params metrics``.
        metric: Metric to choose by; None if they have none.
        rule: 'greater' or 'less', which is better.
        latency: File of ``tools/measure_latency.py``.
        certainty: See :class:`Chooser`.
    """
    measured = read_latency(latency) if latency is not None else {}
    candidates = [
        Candidate(
            *(record[key] for key in ('name', 'family', 'flops', 'params')),
            metric_value(record, metric) if metric else float('nan'),
            *measured.get(record['name'], (None, None)),
            record['metrics'],
        )
        for record in records
    ]
    return Chooser(candidates, metric, rule, certainty)


def chooser_of_costs(
    costs: CostTable, latency: str | os.PathLike[str] | None = None
) -> Chooser:
    """Chooser among all stitches of a cost table, none of which was scored."""
    measured = read_latency(latency) if latency is not None else {}
    return Chooser(
        Candidate(stitch.name, stitch.family, costs[stitch].flops, costs[stitch].params,
                  float('nan'), *measured.get(stitch.name, (None, None)))
        for stitch in costs.space
    )  # fmt: skip
