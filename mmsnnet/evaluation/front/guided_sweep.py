"""Chooses the sets of stitches of a guided search, from what is scored so far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np

from mmsnnet.results.records import Record, metric_names, metric_value
from mmsnnet.results.results_folder import ResultsFolder
from mmsnnet.stitching import Stitch, StitchSpace

from ..sweep.processes import broadcast, failing_together
from .guide import Candidates, GuideOptions, check_budget, first_set, next_count, propose
from .guide_file import BUDGET_SPENT, LITTLE_TO_GAIN, GuideFile
from .marginal_blocks import MarginalBlocks
from .race_file import RaceFile
from .route_features import route_features


class GuidedSweep:
    """Sets of stitches, each to be scored before the next is asked for.

    Args:
        space: Space of the stitches.
        flops: FLOPs of each by name.
        options: How few stitches are to give the front.
        results: Their records; in the main process alone, else None.
        state: The search on the disk; in the main process alone, else None.
        race_file: The race on the disk, whose looks begin anew with each set; in the main process
            alone, else None.
        shared: Whether the stitches of a set share the blocks of their common beginnings.
    """

    def __init__(
        self,
        space: StitchSpace,
        flops: Mapping[str, int],
        options: GuideOptions,
        results: ResultsFolder | None,
        state: GuideFile | None,
        race_file: RaceFile | None,
        shared: bool = True,
    ) -> None:
        self._space = space
        self._flops = flops
        self._options = options
        self._results = results
        self._state = state
        self._race_file = race_file
        self._shared = shared

    def sets(self, stitches: Sequence[Stitch]) -> Iterator[list[Stitch]]:
        """Sets of stitches to score; to be run through in all processes alike.

        Args:
            stitches: Those without a record that may be scored.

        Raises:
            ValueError: If the budget does not fit the stitches, in all processes alike.
        """
        while True:
            names: list[str] = []
            with failing_together():
                if self._results is not None:
                    names = self._next([stitch.name for stitch in stitches])
            names = broadcast(names)
            if not names:
                return
            yield [self._space[name] for name in names]

    def _next(self, pending: Sequence[str]) -> list[str]:
        scored = {record['name']: record for record in self._results.records}
        dropped = self._race_file.dropped
        wanted = {*pending, *scored, *dropped}
        names = [stitch.name for stitch in self._space if stitch.name in wanted]
        check_budget(self._options.budget, self._space, len(names))
        looked_at = scored.keys() | dropped.keys()
        if not self._state.sets:
            self._take(self._first(names, looked_at))
        begun = [name for name in self._state.sets[-1] if name not in looked_at]
        if begun:  # now, or before the search was killed
            return begun
        values = self._values(scored)
        guesses = self._guesses(values)
        proposal = propose(
            self._candidates(names),
            np.array([values.get(name, math.nan) for name in names]),
            {number: guesses[name] for number, name in enumerate(names) if name in guesses},
            next_count(self._options, len(looked_at)),
            self._options.seed,
        )
        is_little = proposal.gain < self._options.min_gain
        if is_little or not proposal.names:
            reason = LITTLE_TO_GAIN if is_little else BUDGET_SPENT
            self._state.end(reason, proposal.gain, proposal.chances)
            return []
        self._take(proposal.names)
        return list(proposal.names)

    def _first(self, names: Sequence[str], looked_at: Set[str]) -> list[str]:
        """The first set, less what earlier results hold and the budget does not."""
        anchors = [one.name for one in self._space.anchor_stitches]
        first = first_set(self._candidates(names), anchors, self._options)
        fresh = [name for name in first if name not in looked_at]
        return fresh[: max(self._options.budget - len(looked_at), 0)]

    def _take(self, names: Sequence[str]) -> None:
        # The looks first: without a stitch that is left to race they are of no more use.
        self._race_file.begin_looks()
        self._state.add(names)

    def _candidates(self, names: Sequence[str]) -> Candidates:
        programs = {name: self._space.program(self._space[name]) for name in names}
        return Candidates(
            names,
            np.array([self._flops[name] for name in names], float),
            route_features(self._space, self._flops)[[self._space[name].id for name in names]],
            MarginalBlocks(programs, self._shared),
        )

    def _values(self, scored: Mapping[str, Record]) -> dict[str, float]:
        """What the metric is better than the worst; records without a value count as worst.

        Raises:
            ValueError: If no record has the metric.
        """
        known = metric_names(list(scored.values()))
        metric = self._options.metric or (known[0] if known else None)
        if known and metric not in known:
            raise ValueError(
                f'There is no metric {metric!r} to search by; known: {", ".join(known)}.'
            )
        sign = 1 if self._options.rule == 'greater' else -1
        values = {
            name: math.nan if metric is None
            else sign * (metric_value(record, metric) - self._options.worst)
            for name, record in scored.items()
        }  # fmt: skip
        finite = [value for value in values.values() if math.isfinite(value)] or [0.0]
        # An error without bounds may be worse than the worst everywhere; what is best still is.
        shift = min(finite) if max(finite) <= 0 else 0.0
        least = min(0.0, *finite) - shift if len(finite) > 1 else 0.0
        return {
            name: value - shift if math.isfinite(value) else least
            for name, value in values.items()
        }

    def _guesses(self, values: Mapping[str, float]) -> dict[str, float]:
        """What dropped stitches would be worth: the value of who beat them, less its lead."""
        guesses: dict[str, float] = {}
        # Who beat a stitch may have been dropped later, so that its own guess comes later.
        for name, row in reversed(self._race_file.dropped.items()):
            rival = row['beaten_by']
            value = values.get(rival, guesses.get(rival))
            if value is not None:
                guesses[name] = value - row['lead']
        return guesses
