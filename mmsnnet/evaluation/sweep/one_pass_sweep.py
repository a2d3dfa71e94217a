"""One pass over the data for many stitches, in shards that are kept on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, get_dist_info, is_main_process

from mmsnnet.stitching import Stitch, StitchSpace
from mmsnnet.stitching.route_tree import RouteTree

from ..front.race import race_order
from ..front.statistics_folder import StatisticsFolder, collect
from .batches import batch_indices, load_batches
from .failing_together import failing_together
from .shards import Shard, ShardFolder
from .sweep_options import SweepOptions, share_of


def in_cheapest_order(space: StitchSpace, stitches: Sequence[Stitch]) -> tuple[str, ...]:
    """Names of stitches, those next to each other that share most."""
    return RouteTree({stitch.name: space.program(stitch) for stitch in stitches}).order


class OnePassSweep:
    """Runs what is not yet on the disk of some stitches, alone or as one of several processes.

    The work is cut into shards of consecutive batches. Processes take shards in turn, with the
    batches that one process would make, so the results of several are those of one.

    Args:
        loop: Test loop of stitches, as ``StitchTestLoop``.
        directory: Results folder, shared by all processes.
        space: Space of the stitches.
        options: Shards, memory and share of the work.
        order_seed: Of the random order in which batches are run, and numbered in shards; None for
            that of the data. Results do not depend on it.

    Raises:
        ValueError: If the order of the data is not fixed.
    """

    def __init__(
        self,
        loop: Any,
        directory: Path,
        space: StitchSpace,
        options: SweepOptions,
        order_seed: int | None = None,
    ) -> None:
        self.loop = loop
        self.space = space
        self.options = options
        batches = batch_indices(loop.dataloader)
        self._order = list(range(len(batches)))
        if order_seed is not None:
            self._order = race_order(len(batches), order_seed)
        self._batches = [batches[number] for number in self._order]
        self.shards = ShardFolder(directory, len(self._batches), is_main_process())
        self.statistics = StatisticsFolder(directory)

    @property
    def images(self) -> list[list[int]]:
        """Images of each batch, in the order in which batches are run."""
        return self._batches

    def plan(
        self, stitches: Sequence[Stitch], within: tuple[int, int] | None = None
    ) -> list[Shard]:
        """Shards of this process; to be called in all processes alike.

        Args:
            stitches: What is wanted.
            within: First batch, and the one behind the last, in the order in which they are run;
                None for all.
        """
        rank, world = get_dist_info()
        names = in_cheapest_order(self.space, stitches) if stitches else ()
        first, stop = within or (0, self.shards.num_batches)
        size = self.options.shard_size // self.loop.dataloader.batch_size
        if self.options.share_by == 'images':
            index, count = self.options.share
            if within is None:
                first, stop = stop * index // count, stop * (index + 1) // count
            size = min(size, -(-(stop - first) // world))  # something for every process
        plan = [self.shards.plan(names, max(size, 1), (first, stop))]
        broadcast_object_list(plan)
        if self.options.share_by == 'images':
            return plan[0][rank::world]
        mine = [Shard(s.first, s.stop, share_of(s.stitches, rank, world)) for s in plan[0]]
        return [shard for shard in mine if shard.stitches]

    def run(self, shards: Sequence[Shard], invalid: set[str]) -> None:
        """Run shards and put each on the disk; ends when all processes have ended.

        Args:
            shards: Those of this process.
            invalid: Gets the names of stitches that predict NaN, and is cleared after each shard.
        """
        numbers = [number for shard in shards for number in range(shard.first, shard.stop)]
        loader = load_batches(self.loop.dataloader, [self._batches[n] for n in numbers])
        with failing_together():
            self._run(shards, iter(loader), invalid)

    def _run(
        self, shards: Sequence[Shard], batches: Iterator[Any], invalid: set[str]
    ) -> None:
        for shard in shards:
            stitches = [self.space[name] for name in shard.stitches]
            noted: dict[str, list[Any]] = {name: [] for name in shard.stitches}
            with self.loop.together(stitches, self.options.max_memory) as one_pass:
                for number in range(shard.first, shard.stop):
                    for name, results in one_pass.run_batch(
                        self._order[number], next(batches)
                    ).items():
                        noted[name].append(results)
            self.shards.add(shard, noted, invalid)
            invalid.clear()

    def finish(
        self,
        stitches: Sequence[Stitch],
        on_stitch: Callable[[Stitch, dict[str, float], bool], None],
    ) -> None:
        """Work out the metrics of stitches of which all is there; for one process alone.

        What the metrics need of each image is kept (see :class:`StatisticsFolder`).

        Args:
            stitches: Those that are wanted.
            on_stitch: Called with each, its metrics, and whether it predicted NaN.
        """
        self.shards.refresh()
        for stitch in stitches:
            if self.shards.is_complete(stitch.name):
                found = self.shards.read(stitch.name)
                results = [result for _, result in sorted(zip(self._order, found), key=_number)]
                invalid = self.shards.is_invalid(stitch.name)
                if not invalid:
                    statistics = collect(self.loop.evaluator, results, whole=True)
                    self.statistics.add(stitch.name, statistics)
                on_stitch(stitch, self.loop.evaluate_alone(stitch, results), invalid)


def _number(pair: tuple[int, Any]) -> int:
    return pair[0]
