"""What a race of stitches costs and loses, against random subsets and a few images.

The spaces are those of ``_front_spaces.py``. A seed draws the values of simulated images, orders
the images, and chooses the random subsets. Work is counted in runs of a block on an image, in
passes that run the tree of the stitches that are left, as a share of one pass for all stitches on
all images. The subsets get as much of it as the first race of the same seed spent. The truth is all
images: members are the stitches that are on the front in more than half of the resamples.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _front_spaces import PUBLISHED_MIOU, ReplayedSweep, SimulatedSweep, Sweep

from mmsnnet.evaluation.front.bootstrap import completing_weights
from mmsnnet.evaluation.front.certainty import on_front
from mmsnnet.evaluation.front.race import (
    CONFIDENCE,
    MIN_IMAGES,
    blocks_saved,
    find_losers,
    looks,
    race_order,
    required_probability,
)

__all__ = ['PUBLISHED_MIOU', 'main']

VOLUME_GOAL, WORK_GOAL = 0.999, 0.35
#: Draws of a look; a race of the tool takes more.
NUM_DRAWS = 500


@dataclass(frozen=True)
class Outcome:
    """What a way of looking for the front found.

    Attributes:
        work: Runs of blocks, as a share of those of the full pass.
        volume: Hypervolume of the front found, by the metric on all images, as a share of the
            true one.
        lost: Members of the true front that it has not.
    """

    work: float
    volume: float
    lost: int


@dataclass
class Found:
    """What is known while a search goes on.

    Attributes:
        scored: Numbers of stitches that were scored on all images, or that are believed in.
        runs: Runs of blocks so far.
    """

    scored: list[int] = field(default_factory=list)
    runs: int = 0


def judge(sweep: Sweep, found: Found) -> Outcome:
    """Compare what was found with the truth."""
    everything = range(len(sweep.names))
    work = found.runs / (sweep.blocks(everything) * sweep.num_images)
    volume = sweep.volume(found.scored) / sweep.volume(everything)
    return Outcome(work, volume, len(sweep.members - set(found.scored)))


def race(sweep: Sweep, seed: int, confidence: float) -> Found:
    """Let all stitches race."""
    left, order = list(range(len(sweep.names))), race_order(sweep.num_images, seed)
    done = runs = 0
    for stop in looks(sweep.num_images, 1, MIN_IMAGES):
        runs += sweep.blocks(left) * (stop - done)
        done = stop
        weights = completing_weights(stop, sweep.num_images, NUM_DRAWS, seed)
        values = sweep.metric(weights, order[:stop], left)
        names = [sweep.names[i] for i in left]
        saved = blocks_saved({name: sweep.programs[name] for name in names})
        required = required_probability(saved, names, confidence)
        drops = find_losers(names, sweep.costs[left], values, required, sweep.anchors)
        gone = {drop.name for drop in drops}
        left = [i for i in left if sweep.names[i] not in gone]
    return Found(left, runs + sweep.blocks(left) * (sweep.num_images - done))


def random_stitches(sweep: Sweep, seed: int, share: float) -> Found:
    """Random stitches, and the anchors, on all images, for a share of the full work."""
    order = np.random.default_rng([seed, 1]).permutation(len(sweep.names)).tolist()
    chosen = [i for i, name in enumerate(sweep.names) if name in sweep.anchors]
    limit = share * sweep.blocks(range(len(sweep.names)))
    for number in order:
        if number not in chosen and sweep.blocks([*chosen, number]) <= limit:
            chosen.append(number)
    return Found(chosen, sweep.blocks(chosen) * sweep.num_images)


def few_images(sweep: Sweep, seed: int, share: float) -> Found:
    """The front of all stitches on a share of the images, taken at its word."""
    count, everything = max(round(share * sweep.num_images), 1), range(len(sweep.names))
    drawn = race_order(sweep.num_images, seed)[:count]
    values = sweep.metric(np.ones((1, count), np.float32), drawn, everything)
    found = np.flatnonzero(on_front(sweep.costs, values)[0]).tolist()
    return Found(found, sweep.blocks(everything) * count)


def search(sweep: Sweep, seed: int, confidences: Sequence[float]) -> Iterator[tuple[str, Outcome]]:
    """Look for the front in each way; yields its name and what it found."""
    share = None
    for confidence in confidences:
        outcome = judge(sweep, race(sweep, seed, confidence))
        share = outcome.work if share is None else share
        yield f'race {confidence:g}', outcome
    subsets: dict[str, Callable[..., Found]] = {
        'random stitches': random_stitches, 'few images': few_images
    }  # fmt: skip
    for name, run in subsets.items():
        yield f'{name}, equal work', judge(sweep, run(sweep, seed, share))
    yield 'few images, 0.1', judge(sweep, few_images(sweep, seed, 0.1))


def print_rows(name: str, outcomes: dict[str, list[Outcome]]) -> None:
    """Print a line for each way: means and standard deviations over the seeds, and the worst."""
    for way, found in outcomes.items():
        work, volume, lost = (
            np.array([getattr(one, key) for one in found]) for key in ('work', 'volume', 'lost')
        )
        sys.stdout.write(
            f'{name:10} {way:27} {work.mean():6.3f} {work.std():6.3f} {volume.mean():8.5f} '
            f'{volume.std():8.5f} {volume.min():8.5f} {lost.mean():5.2f} {lost.max():4d}\n'
        )
    sys.stdout.flush()


def misses(outcomes: Sequence[Outcome]) -> bool:
    """Whether a way misses the goals."""
    works = np.mean([one.work for one in outcomes])
    return works > WORK_GOAL or any(one.volume < VOLUME_GOAL or one.lost for one in outcomes)


def run_space(name: str | Path, args: argparse.Namespace) -> bool:
    """Print the rows of a space; returns whether the first race misses the goals."""
    replayed = ReplayedSweep(name) if isinstance(name, Path) else None
    label = str(name if replayed is None else name.name)[:10]
    outcomes: dict[str, list[Outcome]] = {}
    sizes, floors = [], []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        sweep = replayed or SimulatedSweep(name, args.images, seed)
        sizes.append(len(sweep.members))
        least = sweep.members | {sweep.space[anchor].id for anchor in sweep.anchors}
        floors.append(sweep.blocks(sorted(least)) / sweep.blocks(range(len(sweep.names))))
        for way, outcome in search(sweep, seed, args.confidence):
            outcomes.setdefault(way, []).append(outcome)
    print_rows(label, outcomes)
    sys.stdout.write(f'{label:10} {np.mean(sizes):.1f} members of the true front, which with the '
                     f'anchors take {np.mean(floors):.3f} of the work\n')  # fmt: skip
    return misses(next(iter(outcomes.values())))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns whether the race misses its goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--tables', default='ade20k,imagenet,synthetic', help='separated by commas')
    parser.add_argument('--replay', type=Path, nargs='*', default=[], metavar='DIR',
                        help='results folders of full sweeps with image_statistics of mIoU')
    parser.add_argument('--images', type=int, default=2000, help='that are simulated')
    parser.add_argument('--seeds', type=int, default=20)
    parser.add_argument('--first-seed', type=int, default=0)
    parser.add_argument('--confidence', type=float, nargs='+', default=[CONFIDENCE, 0.99])
    args = parser.parse_args(argv)
    sys.stdout.write(f'{"space":10} {"way":27} {"work":>6} {"+-":>6} {"volume":>8} {"+-":>8} '
                     f'{"least":>8} {"lost":>5} {"most":>4}\n')  # fmt: skip
    names = [*filter(None, args.tables.split(',')), *args.replay]
    missed = [run_space(name, args) for name in names]
    return int(any(missed))


if __name__ == '__main__':
    sys.exit(main())
