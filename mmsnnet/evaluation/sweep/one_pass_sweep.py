"""One pass over the data for many stitches, in shards that are kept on the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mmengine.dist import get_rank, get_world_size, is_main_process

from mmsnnet.stitching import Stitch, StitchSpace
from mmsnnet.stitching.route_tree import RouteTree

from ..front.race import race_order
from ..front.statistics_folder import StatisticsFolder, collect
from .batches import batch_indices, load_batches
from .processes import Deal, broadcast, failing_together, gather
from .shards import Shard, ShardFolder
from .sweep_options import SweepOptions, share_of

#: Shards for each process, at least: they are dealt out as processes finish, so that in the end
#: none waits for another longer than for this share of its work.
SHARDS_EACH = 4


def in_cheapest_order(space: StitchSpace, stitches: Sequence[Stitch]) -> tuple[str, ...]:
    """Names of stitches, those next to each other that share most."""
    return RouteTree({stitch.name: space.program(stitch) for stitch in stitches}).order


class _Dealt:
    """Batches of the shards that are dealt out to this process, as a loader asks for them.

    Args:
        shards: All that are to be run, the same in all processes.
        batches: Images of each batch.
        deal: Deals out numbers of shards.
        on_shard: Called with the number of pairs of a batch and a stitch that this process has
            run or is about to run, and those that it will probably run of the rest.

    Attributes:
        taken: Shards whose batches have been asked for, but were not yet run.
        num_runs: Pairs of a batch and a stitch in all shards of this process so far.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        batches: Sequence[list[int]],
        deal: Deal,
        on_shard: Callable[[int], None],
    ) -> None:
        self._shards = shards
        self._batches = batches
        self._deal = deal
        self._on_shard = on_shard
        self.taken: deque[Shard] = deque()
        self.num_runs = 0

    def __iter__(self) -> Iterator[list[int]]:
        rest = sum(shard.num_runs for shard in self._shards)
        former, expected = 0, rest // get_world_size()
        self._on_shard(expected)
        for number in self._deal:
            shard = self._shards[number]
            rest -= sum(one.num_runs for one in self._shards[former : number + 1])
            former = number + 1
            self.num_runs += shard.num_runs
            former_expected, expected = expected, self.num_runs + rest // get_world_size()
            if expected != former_expected:
                self._on_shard(expected)
            self.taken.append(shard)
            yield from self._batches[shard.first : shard.stop]


class OnePassSweep:
    """Runs what is not yet on the disk of some stitches, alone or as one of several processes.

    The work is cut into shards of consecutive batches. Each process takes the next one when it has
    finished its own, with the batches that one process would make, so the results of several are
    those of one.

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
        """Shards of all processes; to be called in all of them alike.

        Args:
            stitches: What is wanted.
            within: First batch, and the one behind the last, in the order in which they are run;
                None for all.
        """
        world = get_world_size()
        names = in_cheapest_order(self.space, stitches) if stitches else ()
        first, stop = within or (0, self.shards.num_batches)
        size = self.options.shard_size // self.loop.dataloader.batch_size
        if self.options.share_by == 'images':
            index, count = self.options.share
            if within is None:
                first, stop = stop * index // count, stop * (index + 1) // count
            if world > 1:
                size = min(size, (stop - first) // (world * SHARDS_EACH))
        plan = broadcast(self.shards.plan(names, max(size, 1), (first, stop)))
        if self.options.share_by == 'images':
            return plan
        parts = [
            Shard(shard.first, shard.stop, share_of(shard.stitches, part, world))
            for shard in plan
            for part in range(world)
        ]
        return [shard for shard in parts if shard.stitches]

    def run(
        self,
        shards: Sequence[Shard],
        invalid: set[str],
        on_shard: Callable[[int], None] = lambda runs: None,
    ) -> int:
        """Run shards and put each on the disk; ends when all processes have ended.

        Args:
            shards: Those of all processes, which take one after the other.
            invalid: Gets the names of stitches that predict NaN, and is cleared after each shard.
            on_shard: Called with the number of pairs of a batch and a stitch that will probably
                have been run here in the end, as often as more is known of it.

        Returns:
            How many were run here.
        """
        deal = Deal(len(shards))
        with failing_together(), deal:
            dealt = _Dealt(shards, self._batches, deal, on_shard)
            self._run(dealt, iter(load_batches(self.loop.dataloader, dealt)), invalid)
        self._await_shards(shards)
        return dealt.num_runs

    def _run(self, dealt: _Dealt, batches: Iterator[Any], invalid: set[str]) -> None:
        for batch in batches:  # the first one of a shard
            shard = dealt.taken.popleft()
            stitches = [self.space[name] for name in shard.stitches]
            noted: dict[str, list[Any]] = {name: [] for name in shard.stitches}
            numbers = range(shard.first, shard.stop)
            rest = islice(batches, len(numbers) - 1)
            with self.loop.together(stitches, self.options.max_memory) as one_pass:
                for number, data in zip(numbers, chain([batch], rest)):
                    for name, results in one_pass.run_batch(self._order[number], data).items():
                        noted[name].append(results)
            self.shards.add(shard, noted, invalid)
            invalid.clear()

    def _await_shards(self, shards: Sequence[Shard]) -> None:
        """Wait until this process sees the files that others have written, for all of them.

        Raises:
            ValueError: If some do not appear.
        """
        with failing_together():
            self.shards.await_files(shards)

    def finish(
        self,
        stitches: Sequence[Stitch],
        on_stitch: Callable[[Stitch, dict[str, float], bool], None],
    ) -> None:
        """Work out the metrics of stitches of which all is there; in all processes alike.

        Each takes another stitch. What the metrics need of each image is kept (see
        :class:`StatisticsFolder`).

        Args:
            stitches: Those that are wanted.
            on_stitch: Called in the main process with each in their order, its metrics, and
                whether it predicted NaN.
        """
        self.shards.refresh()
        complete = [stitch.name for stitch in stitches if self.shards.is_complete(stitch.name)]
        names, world = broadcast(complete), get_world_size()
        for first in range(0, len(names), world):
            mine = [self.space[name] for name in names[first : first + world][get_rank() :][:1]]
            with failing_together():
                found = [self._finish(stitch) for stitch in mine]
            gathered = gather(found)
            with failing_together():
                if is_main_process():
                    for name, (result,) in zip(names[first : first + world], gathered):
                        on_stitch(self.space[name], *result)

    def _finish(self, stitch: Stitch) -> tuple[dict[str, float], bool]:
        """Metrics of a stitch whose statistics are put on the disk; whether it predicted NaN."""
        found = self.shards.read(stitch.name)
        results = [result for _, result in sorted(zip(self._order, found), key=_number)]
        invalid = self.shards.is_invalid(stitch.name)
        if not invalid:
            self.statistics.add(stitch.name, collect(self.loop.evaluator, results, whole=True))
        return self.loop.evaluate_alone(stitch, results), invalid


def _number(pair: tuple[int, Any]) -> int:
    return pair[0]
