"""What a race of stitches and a guided search cost and lose, against subsets at random.

The spaces are those of ``_front_spaces.py``. A seed draws the values of simulated images, orders
the images, and chooses the random subsets. Work is counted in runs of a block on an image, in
passes that run the tree of the stitches that are left, as a share of one pass for all stitches on
all images. Each set of a guided search is a pass of its own. Subsets get as much work as the race,
or the guided search, of the same seed spent. The truth is all images: members are the stitches that
are on the front in more than half of the resamples.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _front_spaces import PUBLISHED_MIOU, ReplayedSweep, SimulatedSweep, Sweep

from mmsnnet.evaluation.front.bootstrap import completing_weights
from mmsnnet.evaluation.front.certainty import on_front
from mmsnnet.evaluation.front.guide import (
    Candidates,
    GuideOptions,
    first_set,
    next_count,
    propose,
)
from mmsnnet.evaluation.front.marginal_blocks import MarginalBlocks
from mmsnnet.evaluation.front.race import (
    CONFIDENCE,
    MIN_IMAGES,
    blocks_saved,
    find_losers,
    looks,
    race_order,
    required_probability,
)
from mmsnnet.evaluation.front.route_features import route_features

__all__ = ['PUBLISHED_MIOU', 'main']

VOLUME_GOAL, WORK_GOAL = 0.999, 0.35
#: Draws of a look; a race of the tool takes more.
NUM_DRAWS = 500
#: The races of a seed look at the same draws.
draws = functools.lru_cache(maxsize=10)(completing_weights)


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
        beaten: By number of a dropped stitch, who beat it and by how much.
    """

    scored: list[int] = field(default_factory=list)
    runs: int = 0
    beaten: dict[int, tuple[int, float]] = field(default_factory=dict)


def judge(sweep: Sweep, found: Found) -> Outcome:
    """Compare what was found with the truth."""
    everything = range(len(sweep.names))
    work = found.runs / (sweep.blocks(everything) * sweep.num_images)
    volume = sweep.volume(found.scored) / sweep.volume(everything)
    return Outcome(work, volume, len(sweep.members - set(found.scored)))


def race(
    sweep: Sweep,
    seed: int,
    confidence: float,
    racing: Sequence[int] | None = None,
    found: Found | None = None,
) -> Found:
    """Let stitches race, all or some, against each other and those that were scored before."""
    found = found or Found()
    left = list(range(len(sweep.names)) if racing is None else racing)
    before, order, done = list(found.scored), race_order(sweep.num_images, seed), 0
    kept = sweep.anchors | {sweep.names[i] for i in before}
    for stop in looks(sweep.num_images, 1, MIN_IMAGES):
        found.runs += sweep.blocks(left) * (stop - done)
        done, numbers = stop, before + left
        names = [sweep.names[i] for i in numbers]
        weights = draws(stop, sweep.num_images, NUM_DRAWS, seed)
        values = sweep.metric(weights, order[:stop], numbers)
        saved = blocks_saved({name: sweep.programs[name] for name in names})
        required = required_probability(saved, names, confidence)
        for drop in find_losers(names, sweep.costs[numbers], values, required, kept):
            number = sweep.space[drop.name].id
            left.remove(number)
            found.beaten[number] = sweep.space[drop.beaten_by].id, drop.lead
    found.runs += sweep.blocks(left) * (sweep.num_images - done)
    found.scored += left
    return found


def guided(sweep: Sweep, seed: int, share: float, confidence: float | None = None) -> Found:
    """A guided search for a share of the stitches; its sets race where there is a confidence."""
    options, found = GuideOptions(round(share * len(sweep.names)), seed=seed), Found()
    features = route_features(sweep.space, dict(zip(sweep.names, sweep.costs)))

    def candidates() -> Candidates:
        return Candidates(sweep.names, sweep.costs, features, MarginalBlocks(sweep.programs))

    names = first_set(candidates(), sorted(sweep.anchors), options)
    while names:
        chosen = [sweep.space[name].id for name in names]
        if confidence is None:
            found.runs += sweep.blocks(chosen) * sweep.num_images
            found.scored += chosen
        else:
            race(sweep, seed, confidence, chosen, found)
        values = np.full(len(sweep.names), math.nan)
        values[found.scored] = sweep.quality[found.scored]
        count = next_count(options, len(found.scored) + len(found.beaten))
        proposal = propose(candidates(), values, guesses_of(found, values), count, seed)
        names = proposal.names if proposal.gain >= options.min_gain else ()
    return found


def guesses_of(found: Found, values: np.ndarray) -> dict[int, float]:
    """What dropped stitches would be worth: the value of who beat them, less its lead."""
    guesses: dict[int, float] = {}
    for number, (rival, lead) in reversed(found.beaten.items()):
        guesses[number] = guesses.get(rival, values[rival]) - lead
    return guesses


def random_stitches(sweep: Sweep, seed: int, share: float) -> Found:
    """Random stitches, and the anchors, on all images, for a share of the full work."""
    order = np.random.default_rng([seed, 1]).permutation(len(sweep.names)).tolist()
    chosen = [i for i, name in enumerate(sweep.names) if name in sweep.anchors]
    blocks, everything = MarginalBlocks(sweep.programs), range(len(sweep.names))
    blocks.add(sweep.anchors)
    left = share * sweep.blocks(everything) - sweep.blocks(chosen)
    for number in order:
        cost = blocks.of(sweep.names[number])
        if number not in chosen and cost <= left:
            chosen.append(number)
            blocks.add([sweep.names[number]])
            left -= cost
    return Found(chosen, sweep.blocks(chosen) * sweep.num_images)


def few_images(sweep: Sweep, seed: int, share: float) -> Found:
    """The front of all stitches on a share of the images, taken at its word."""
    count, everything = max(round(share * sweep.num_images), 1), range(len(sweep.names))
    drawn = race_order(sweep.num_images, seed)[:count]
    values = sweep.metric(np.ones((1, count), np.float32), drawn, everything)
    found = np.flatnonzero(on_front(sweep.costs, values)[0]).tolist()
    return Found(found, sweep.blocks(everything) * count)


def search(
    sweep: Sweep, seed: int, confidences: Sequence[float], share: float | None
) -> Iterator[tuple[str, Outcome]]:
    """Look for the front in each way; yields its name and what it found.

    Args:
        sweep: The space.
        seed: See above.
        confidences: Of races.
        share: Of the stitches, the budget of a guided search; None for none.
    """
    works: dict[str, float] = {}
    for confidence in confidences:
        outcome = judge(sweep, race(sweep, seed, confidence))
        works.setdefault('race', outcome.work)
        yield f'race {confidence:g}', outcome
    if share is not None:
        outcome = judge(sweep, guided(sweep, seed, share))
        works['guided'] = outcome.work
        yield f'guided {share:g}', outcome
        yield f'guided {share:g}, race', judge(sweep, guided(sweep, seed, share, confidences[0]))
    for name, work in works.items():
        yield f'random stitches, as {name}', judge(sweep, random_stitches(sweep, seed, work))
    for name, work in {**works, '0.1': 0.1}.items():
        prefix = 'as ' if name in works else ''
        yield f'few images, {prefix}{name}', judge(sweep, few_images(sweep, seed, work))


def print_rows(name: str, outcomes: dict[str, list[Outcome]]) -> None:
    """Print a line for each way: means and standard deviations over the seeds, and the worst."""
    for way, found in outcomes.items():
        work, volume, lost = (
            np.array([getattr(one, key) for one in found]) for key in ('work', 'volume', 'lost')
        )
        sys.stdout.write(
            f'{name:10} {way:26} {work.mean():6.3f} {work.std():6.3f} {volume.mean():8.5f} '
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
        for way, outcome in search(sweep, seed, args.confidence, args.budget):
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
    parser.add_argument('--budget', type=float, metavar='SHARE', help='of the stitches, for guided '
                        'searches (needs scikit-learn; default: none)')  # fmt: skip
    args = parser.parse_args(argv)
    sys.stdout.write(f'{"space":10} {"way":26} {"work":>6} {"+-":>6} {"volume":>8} {"+-":>8} '
                     f'{"least":>8} {"lost":>5} {"most":>4}\n')  # fmt: skip
    names = [*filter(None, args.tables.split(',')), *args.replay]
    missed = [run_space(name, args) for name in names]
    return int(any(missed))


if __name__ == '__main__':
    sys.exit(main())
