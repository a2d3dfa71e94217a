"""Runs a race: shards of images under the stitches that are left, and a look behind each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dist import broadcast_object_list, get_world_size, is_main_process

from mmsnnet.results.records import stitch_fields
from mmsnnet.stitching import CostTable, Stitch

from ..sweep.failing_together import failing_together
from ..sweep.one_pass_sweep import OnePassSweep
from ..sweep.progress import Progress
from .bootstrap import completing_weights, replicate_all
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
            shards = self._sweep.plan(left, (first, stop))
            rest = len(left) * (total - stop) // get_world_size()
            here = sum(shard.num_runs for shard in shards)
            progress.on_start(runs + here + rest)
            runs += here
            self._sweep.run(shards, invalid)
            gone = [()]
            with failing_together():
                if is_main_process():
                    gone = [self._look(stop, left, scored)]
            broadcast_object_list(gone)
            left = [stitch for stitch in left if stitch.name not in gone[0]]
            first = stop
        return runs, left

    def _look(
        self, stop: int, left: Sequence[Stitch], scored: Sequence[Stitch]
    ) -> tuple[str, ...]:
        """Names of the stitches that are dropped after a number of batches, put on the disk."""
        if stop in self._state.looks:  # before the race was killed
            return ()
        self._sweep.shards.refresh()
        images = [image for batch in self._sweep.images[:stop] for image in batch]
        drops = self._compare(stop, images, left, scored)
        rows = [self._row(drop, len(images)) for drop in drops]
        self._state.add(stop, rows)
        return tuple(drop.name for drop in drops)

    def _compare(
        self,
        stop: int,
        images: Sequence[int],
        left: Sequence[Stitch],
        scored: Sequence[Stitch],
    ) -> list[Drop]:
        valid = [one for one in left if not self._sweep.shards.is_invalid(one.name)]
        found = {one.name: self._seen(one, stop) for one in valid}
        before = {one.name: self._sweep.statistics.read(one.name) for one in scored}
        metric, rivals = self._options.metric, {}
        for name, by_prefix in {**before, **found}.items():
            place = measured_by(by_prefix, metric)
            if place is None and by_prefix and name in found:
                raise ValueError(
                    f'There are no statistics of images for {metric}: give another --metric, or '
                    'leave out --front.'
                )
            if place is not None:
                one: ImageStatistics = by_prefix[place[0]]
                rivals[name], key = one.of_images(images) if name in before else one, place[1]
        if not rivals:
            return []
        counts = len(images), sum(map(len, self._sweep.images))
        weights = completing_weights(*counts, NUM_RESAMPLES, self._options.seed)
        values = replicate_all(rivals, key, weights)
        return self._losers(list(rivals), values, found)

    def _losers(
        self, names: Sequence[str], values: np.ndarray, racing: Any
    ) -> list[Drop]:
        defined = np.isfinite(values).all(0)
        names = [name for name, is_defined in zip(names, defined) if is_defined]
        values = values[:, defined] * (1 if self._options.rule == 'greater' else -1)
        space = self._sweep.space
        programs = {name: space.program(space[name]) for name in names}
        required = required_probability(blocks_saved(programs), names, self._options.confidence)
        kept = {one.name for one in space if len(one.route.segments) == 1} | (
            set(names) - set(racing)
        )
        costs = np.array([self._costs[space[name]].flops for name in names])
        return find_losers(names, costs, values, required, frozenset(kept))

    def _seen(self, stitch: Stitch, stop: int) -> dict[str, ImageStatistics]:
        """Statistics of a stitch on the first batches."""
        results = self._sweep.shards.read(stitch.name)[:stop]
        return collect(self._sweep.loop.evaluator, results)

    def _row(self, drop: Drop, num_images: int) -> dict[str, Any]:
        stitch = self._sweep.space[drop.name]
        return dict(
            **stitch_fields(stitch, self._costs[stitch]),
            images=num_images,
            of=sum(map(len, self._sweep.images)),
            beaten_by=drop.beaten_by,
            probability=drop.probability,
        )
