"""Runs a race: shards of images under the stitches that are left, and a look behind each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from mmengine.dist import get_rank, get_world_size

from mmsnnet.results.records import stitch_fields
from mmsnnet.stitching import CostTable, Stitch

from ..sweep.one_pass_sweep import OnePassSweep
from ..sweep.processes import broadcast, failing_together, gather
from ..sweep.progress import Progress
from .bootstrap import Replicates, completing_weights
from .certainty import NUM_RESAMPLES
from .image_statistics import ImageStatistics, first_figure, form_of, is_of_these
from .race import Drop, RaceOptions, blocks_saved, find_losers, looks, required_probability
from .race_file import RaceFile
from .statistics_folder import collect, measured_by


def check_can_race(evaluator: Any, num_images: int) -> None:
    """Refuse a race by metrics that have no statistics of images.

    Args:
        evaluator: Of the test.
        num_images: Images of its data set.

    Raises:
        ValueError: If no metric of the evaluator has any, or they are of other images.
    """
    metrics = getattr(evaluator, 'metrics', ())
    having = [metric for metric in metrics if form_of(metric)]
    if not having:
        names = ', '.join(type(metric).__name__ for metric in metrics) or 'none'
        raise ValueError(
            f'A race needs statistics of images, which are kept for IoUMetric, DepthMetric, '
            f'Accuracy and CocoMetric, not for {names}: leave out --front.'
        )
    for metric in having:
        if not is_of_these(metric, num_images):
            raise ValueError(
                f'A race needs the images that {type(metric).__name__} scores, and its ann_file '
                f'has others than the {num_images} of test_dataloader: leave out --front.'
            )


def first_metric(evaluator: Any) -> str:
    """Name of the first figure of the evaluator's first metric that has statistics of images."""
    return first_figure(next(metric for metric in evaluator.metrics if form_of(metric)))


def _expect(progress: Progress, others: int, here: int) -> None:
    """Report how many pairs of a batch and a stitch will be run, beside others some more here."""
    progress.on_start(others + here)


class Race:
    """Drops stitches that others beat, while images are scored.

    Args:
        sweep: Runs batches, in a random order.
        options: How the race goes.
        costs: Of all stitches.
        state: The race on the disk; in the main process alone, else None.
    """

    def __init__(
        self,
        sweep: OnePassSweep,
        options: RaceOptions,
        costs: CostTable,
        state: RaceFile | None,
    ) -> None:
        self._sweep = sweep
        self._options = options
        self._costs = costs
        self._state = state

    def run(
        self,
        stitches: Sequence[Stitch],
        scored: Sequence[Stitch],
        invalid: set[str],
        progress: Progress,
    ) -> tuple[int, list[Stitch]]:
        """Score stitches on more and more images; to be called in all processes alike.

        Args:
            stitches: Those that race.
            scored: Those that were scored before on all images; they beat, and are not beaten.
            invalid: Gets the names of stitches that predict NaN.
            progress: Called while it goes on.

        Returns:
            Pairs of a batch and a stitch that were run here, and the stitches that are left, to be
            scored on what is left of the images.

        Raises:
            ValueError: If the metric has no statistics of images, in all processes alike.
        """
        left, first, runs = list(stitches), 0, 0
        total, size = self._sweep.shards.num_batches, self._sweep.loop.dataloader.batch_size
        for stop in looks(total, size, self._options.min_images):
            rest = len(left) * (total - stop) // get_world_size()
            expect = partial(_expect, progress, runs + rest)
            runs += self._sweep.run(self._sweep.plan(left, (first, stop)), invalid, expect)
            gone = self._look(stop, left, scored)
            left = [stitch for stitch in left if stitch.name not in gone]
            first = stop
        return runs, left

    def _look(
        self, stop: int, left: Sequence[Stitch], scored: Sequence[Stitch]
    ) -> tuple[str, ...]:
        """Names of the stitches that are dropped after a number of batches, put on the disk.

        Each process works out the resamples of some stitches; the main process compares them.
        """
        if broadcast(self._state and stop in self._state.looks):  # before the race was killed
            return ()
        self._sweep.shards.refresh()
        images = [image for batch in self._sweep.images[:stop] for image in batch]
        found: dict[str, np.ndarray | None] = {}
        with failing_together():
            found = self._resampled(stop, images, left, scored)
        found = {name: values for part in gather(found) for name, values in part.items()}
        names: tuple[str, ...] = ()
        with failing_together():
            if self._state is not None:
                drops = self._losers(found, [one.name for one in scored])
                self._state.add(stop, [self._row(drop, len(images)) for drop in drops])
                names = tuple(drop.name for drop in drops)
        return broadcast(names)

    def _resampled(
        self,
        stop: int,
        images: Sequence[int],
        left: Sequence[Stitch],
        scored: Sequence[Stitch],
    ) -> dict[str, np.ndarray]:
        """The metric in resamples (R,) of the stitches of this process.

        Raises:
            ValueError: If the metric has no statistics of images.
        """
        shards, metric = self._sweep.shards, self._options.metric
        racing = [(one, False) for one in left if not shards.is_invalid(one.name)]
        entries = [*((one, True) for one in scored), *racing]
        counts = len(images), sum(map(len, self._sweep.images))
        weights = completing_weights(*counts, NUM_RESAMPLES, self._options.seed)
        replicates: dict[str, Replicates] = {}
        values = {}
        for stitch, is_scored in entries[get_rank() :: get_world_size()]:
            if is_scored:
                statistics = self._sweep.statistics.read(stitch.name)
            else:
                statistics = collect(
                    self._sweep.loop.evaluator, shards.read(stitch.name)[:stop]
                )
            place = measured_by(statistics, metric)
            if place is not None:
                one: ImageStatistics = statistics[place[0]]
                one = one.of_images(images) if is_scored else one
                same = replicates.setdefault(place[1], Replicates(place[1], weights))
                values[stitch.name] = same.of(one)
            elif statistics and not is_scored:
                raise ValueError(
                    f'There are no statistics of images for {metric}: give another --metric, or '
                    'leave out --front.'
                )
        return values

    def _losers(
        self, found: Mapping[str, np.ndarray], scored: Sequence[str]
    ) -> list[Drop]:
        """Who is beaten, of the stitches whose metric is defined in all resamples."""
        space = self._sweep.space
        names = [one.name for one in space if np.isfinite(found.get(one.name, np.nan)).all()]
        if not names:
            return []
        sign = 1 if self._options.rule == 'greater' else -1
        values = np.stack([sign * found[name] for name in names], 1)
        programs = {name: space.program(space[name]) for name in names}
        required = required_probability(blocks_saved(programs), names, self._options.confidence)
        anchors = {one.name for one in space if len(one.route.segments) == 1}
        costs = np.array([self._costs[space[name]].flops for name in names])
        return find_losers(names, costs, values, required, frozenset(anchors | set(scored)))

    def _row(self, drop: Drop, num_images: int) -> dict[str, Any]:
        stitch = self._sweep.space[drop.name]
        return dict(
            **stitch_fields(stitch, self._costs[stitch]),
            images=num_images,
            of=sum(map(len, self._sweep.images)),
            beaten_by=drop.beaten_by,
            probability=drop.probability,
            lead=drop.lead,
        )
