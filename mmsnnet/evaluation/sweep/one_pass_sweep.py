"""One pass over the data for many stitches, in shards that are kept on the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, broadcast_object_list, get_dist_info

from mmsnnet.stitching import Stitch, StitchSpace
from mmsnnet.stitching.route_tree import RouteTree

from .batches import batch_indices, load_batches
from .partial_results import PartialResults, Shard
from .sweep_options import SweepOptions, part


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
        options: Shards, memory and part of the work.

    Raises:
        ValueError: If the order of the data is not fixed, or a file of results is damaged.
    """

    def __init__(
        self, loop: Any, directory: Path, space: StitchSpace, options: SweepOptions
    ) -> None:
        self.loop = loop
        self.space = space
        self.options = options
        self._batches = batch_indices(loop.dataloader)
        self.partial = PartialResults(directory, len(self._batches))

    def plan(self, stitches: Sequence[Stitch]) -> list[Shard]:
        """Shards of this process; to be called in all processes alike."""
        rank, world = get_dist_info()
        names = in_cheapest_order(self.space, stitches) if stitches else ()
        first, stop = 0, self.partial.num_batches
        size = self.options.shard_size // self.loop.dataloader.batch_size
        if self.options.share_by == 'images':
            index, count = self.options.share
            first, stop = stop * index // count, stop * (index + 1) // count
            size = min(size, -(-(stop - first) // world))  # something for every process
        plan = [self.partial.plan(names, max(size, 1), (first, stop))]
        broadcast_object_list(plan)
        if self.options.share_by == 'images':
            return plan[0][rank::world]
        mine = [Shard(s.first, s.stop, part(s.stitches, rank, world)) for s in plan[0]]
        return [shard for shard in mine if shard.stitches]

    def run(self, shards: Sequence[Shard]) -> None:
        """Run shards and put each on the disk; ends when all processes have ended."""
        numbers = [number for shard in shards for number in range(shard.first, shard.stop)]
        loader = load_batches(self.loop.dataloader, [self._batches[n] for n in numbers])
        batches = iter(loader)
        for shard in shards:
            stitches = [self.space[name] for name in shard.stitches]
            noted: dict[str, list[Any]] = {name: [] for name in shard.stitches}
            with self.loop.together(stitches, self.options.max_memory) as one_pass:
                for number in range(shard.first, shard.stop):
                    for name, results in one_pass.run_batch(number, next(batches)).items():
                        noted[name].append(results)
            self.partial.add(shard, noted)
        barrier()

    def finish(
        self,
        stitches: Sequence[Stitch],
        on_stitch: Callable[[Stitch, dict[str, float]], None],
    ) -> None:
        """Work out the metrics of stitches of which all is there; for one process alone.

        Args:
            stitches: Those that are wanted.
            on_stitch: Called with each and its metrics.
        """
        self.partial.refresh()
        for stitch in stitches:
            if self.partial.is_complete(stitch.name):
                on_stitch(stitch, self.loop.evaluate_alone(stitch, self.partial.read(stitch.name)))
