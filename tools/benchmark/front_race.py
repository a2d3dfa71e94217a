"""What a race of stitches costs and loses, against random subsets and a small set of images.

The stitches are the 134 of anchors of 12 and 24 blocks. Their mean quality is either the mIoU that
the authors of SN-Netv2 published for ADE20K, or that of a synthetic space of the same range. The
quality of a stitch on an image is its mean, plus what the image is worth to all stitches, plus what
it is worth to stitches of like routes, plus a part of its own; the race sees images one after the
other. Work is counted in runs of a block on an image, in one pass that runs the tree of the
stitches that are left. The truth is all images: members are the stitches that are on the front in
more than half of the resamples.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmsnnet.evaluation.front.bootstrap import resample_weights
from mmsnnet.evaluation.front.certainty import on_front
from mmsnnet.evaluation.front.race import (
    blocks_saved,
    find_losers,
    looks,
    race_order,
    required_probability,
)
from mmsnnet.results.pareto import Point, hypervolume
from mmsnnet.stitching import AnchorSpec, StitchSpace
from mmsnnet.stitching.route_tree import RouteTree

#: mIoU on ADE20K that the authors of SN-Netv2 published for S+L, in the order of the space.
PUBLISHED_MIOU = (
    45.57, 51.35, 50.76, 50.69, 49.93, 49.28, 47.92, 46.54, 45.45, 45.05, 43.93, 45.39,
    44.81, 45.35, 45.49, 46.0, 46.94, 47.68, 48.78, 49.38, 49.25, 49.82, 49.38, 48.44,
    50.74, 49.89, 49.08, 47.74, 46.38, 45.51, 45.03, 43.82, 45.26, 44.45, 50.02, 49.64,
    48.27, 46.83, 45.94, 45.4, 44.0, 45.38, 44.57, 49.85, 48.6, 47.38, 46.23, 45.71,
    44.82, 45.71, 45.18, 49.3, 48.32, 46.77, 46.52, 45.39, 46.62, 45.99, 48.97, 47.82,
    46.84, 46.19, 47.27, 46.5, 48.19, 47.79, 47.05, 48.04, 47.45, 48.44, 48.02, 48.66,
    48.35, 47.18, 48.24, 48.06, 48.76, 48.35, 47.15, 44.84, 45.52, 46.5, 46.9, 47.89,
    48.9, 48.94, 49.12, 48.89, 47.9, 45.7, 46.75, 46.93, 48.11, 49.01, 48.62, 49.23,
    48.95, 47.92, 45.54, 46.0, 46.88, 48.04, 47.85, 48.49, 48.24, 47.3, 45.28, 46.23,
    47.66, 47.37, 48.24, 47.7, 46.62, 44.95, 46.13, 45.91, 46.67, 46.15, 45.29, 44.02,
    44.15, 44.63, 44.73, 44.1, 42.51, 43.03, 44.09, 42.87, 42.88, 43.45, 42.2, 41.65,
    40.86, 42.34,
)

DEPTHS, WIDTHS = (12, 24), (384, 1024)
#: FLOPs of a block of each anchor at 512 x 512, and what every stitch needs beside its blocks.
BLOCK_FLOPS, OTHER_FLOPS = (2_624_524_800, 15_059_660_800), 2_028_208_128
VOLUME_GOAL, WORK_GOAL = 0.999, 0.35


@dataclass(frozen=True)
class Sweep:
    """A space whose stitches were scored on all images.

    Attributes:
        names: Of the stitches.
        programs: Their steps by name.
        costs: Their FLOPs (S,).
        quality: Of each image under each stitch (N, S); the metric is its mean.
        anchors: Names of the anchors.
    """

    names: list[str]
    programs: dict[str, tuple]
    costs: np.ndarray
    quality: np.ndarray
    anchors: frozenset[str]

    def blocks(self, chosen: Sequence[int]) -> int:
        """Blocks that a pass runs for some stitches on one image."""
        return RouteTree({self.names[i]: self.programs[self.names[i]] for i in chosen}).num_blocks


def make_sweep(table: str, num_images: int, seed: int) -> Sweep:
    """Sweep of the 134 stitches of two anchors, of 'published' or 'synthetic' mean quality."""
    random = np.random.default_rng([seed, 7])
    anchors = [AnchorSpec.plain_vit(depth, width) for depth, width in zip(DEPTHS, WIDTHS)]
    space = StitchSpace(anchors, (9, 14, 19, 23))
    blocks = np.array([
        [sum(s.stop - s.start for s in stitch.route.segments if s.anchor == a) for a in (0, 1)]
        for stitch in space
    ])  # fmt: skip
    crossings = np.array([len(stitch.route.segments) - 1 for stitch in space])
    costs = blocks @ np.array(BLOCK_FLOPS, float) + OTHER_FLOPS
    # What routes have in common: the share of the large anchor, early, middle and late.
    places = np.array([
        [sum(s.anchor == 1 and s.start / 24 <= t < s.stop / 24 for s in stitch.route.segments)
         for t in (0.1, 0.5, 0.9)] for stitch in space
    ], float)  # fmt: skip
    if table == 'published':
        mean = np.array(PUBLISHED_MIOU)
    else:
        share = blocks[:, 1] / DEPTHS[1]
        mean = 44 + 7 * share**0.7 - 0.8 * crossings + random.normal(0, 0.5, len(space))
    images = random.normal(0, 18, (num_images, 1))
    alike = random.normal(0, 2.0, (num_images, 3)) @ (places - places.mean(0)).T
    own = random.normal(0, 3.0, (num_images, len(space)))
    quality = images + alike + own
    quality += mean - quality.mean(0)
    names = [stitch.name for stitch in space]
    return Sweep(
        names,
        {stitch.name: tuple(space.program(stitch)) for stitch in space},
        costs,
        quality,
        frozenset(one.name for one in space if len(one.route.segments) == 1),
    )


@dataclass(frozen=True)
class Outcome:
    """What a way of looking for the front found.

    Attributes:
        work: Runs of blocks, as a share of those of the full pass.
        volume: Hypervolume of the front found, by the quality on all images, as a share of the
            true one.
        lost: Members of the true front that it has not.
    """

    work: float
    volume: float
    lost: int


def truth(sweep: Sweep, num_resamples: int = 1000) -> set[int]:
    """Stitches that are on the front of all images in more than half of the resamples."""
    weights = resample_weights(len(sweep.quality), num_resamples, seed=0)
    values = weights @ sweep.quality / len(sweep.quality)
    return set(np.flatnonzero(on_front(sweep.costs, values).mean(0) > 0.5))


def judge(sweep: Sweep, members: set[int], found: Sequence[int], runs: float) -> Outcome:
    """Outcome of having scored some stitches on all images, or of having believed in them."""
    quality = sweep.quality.mean(0)

    def volume(chosen: Sequence[int]) -> float:
        points = [Point(sweep.names[i], sweep.costs[i], quality[i]) for i in chosen]
        return hypervolume(points, max_cost=sweep.costs.max(), worst=0.0, best=100.0)

    everything = range(len(sweep.names))
    full = sweep.blocks(everything) * len(sweep.quality)
    lost = len(members - set(found))
    return Outcome(runs / full, volume(found) / volume(everything), lost)


def race(sweep: Sweep, seed: int, confidence: float, by_tree: bool = True) -> tuple[list[int], int]:
    """Stitches that a race leaves, and the block runs that it takes."""
    count, left, runs, done = len(sweep.quality), list(range(len(sweep.names))), 0, 0
    order = race_order(count, seed)
    for stop in [*looks(count, 1), count]:
        runs += sweep.blocks(left) * (stop - done)
        done = stop
        if stop == count:
            break
        weights = resample_weights(stop, 500, seed)
        values = weights @ sweep.quality[np.ix_(order[:stop], left)] / stop
        names = [sweep.names[i] for i in left]
        saved = blocks_saved({name: sweep.programs[name] for name in names})
        required = required_probability(saved, names, confidence)
        if not by_tree:
            required = np.full(len(names), confidence)
        drops = find_losers(names, sweep.costs[left], values, required, sweep.anchors)
        gone = {drop.name for drop in drops}
        left = [i for i in left if sweep.names[i] not in gone]
    return left, runs


def random_stitches(sweep: Sweep, seed: int, share: float) -> tuple[list[int], int]:
    """Random stitches, anchors included, on all images, for a share of the full work."""
    order = np.random.default_rng([seed, 1]).permutation(len(sweep.names)).tolist()
    chosen = [i for i, name in enumerate(sweep.names) if name in sweep.anchors]
    limit = share * sweep.blocks(range(len(sweep.names)))
    for number in order:
        if number not in chosen and sweep.blocks([*chosen, number]) <= limit:
            chosen.append(number)
    return chosen, sweep.blocks(chosen) * len(sweep.quality)


def few_images(sweep: Sweep, seed: int, share: float) -> tuple[list[int], int]:
    """The front of all stitches on a share of the images, taken at its word."""
    count = round(share * len(sweep.quality))
    drawn = race_order(len(sweep.quality), seed)[:count]
    values = sweep.quality[drawn].mean(0)[None]
    runs = sweep.blocks(range(len(sweep.names))) * count
    return np.flatnonzero(on_front(sweep.costs, values)[0]).tolist(), runs


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns whether the race misses its goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=2000)
    parser.add_argument('--seeds', type=int, default=20)
    parser.add_argument('--confidence', type=float, default=0.99)
    args = parser.parse_args(argv)
    ways: dict[str, Callable] = {
        f'race {args.confidence:g}': lambda s, seed: race(s, seed, args.confidence),
        f'race {args.confidence:g}, not by the tree': lambda s, seed: race(
            s, seed, args.confidence, by_tree=False
        ),
        'race 0.95': lambda s, seed: race(s, seed, 0.95),
        'random stitches 0.35': lambda s, seed: random_stitches(s, seed, 0.35),
        'all stitches, 0.35 of images': lambda s, seed: few_images(s, seed, 0.35),
        'all stitches, 0.1 of images': lambda s, seed: few_images(s, seed, 0.1),
    }
    missed = False
    print(f'{"space":10} {"way":30} {"work":>6} {"volume":>7} {"least":>7} {"lost":>5} {"most":>5}')
    for table in ('published', 'synthetic'):
        found: dict[str, list[Outcome]] = {way: [] for way in ways}
        sizes = []
        for seed in range(args.seeds):
            sweep = make_sweep(table, args.images, seed)
            members = truth(sweep)
            sizes.append(len(members))
            for way, run in ways.items():
                found[way].append(judge(sweep, members, *run(sweep, seed)))
        for way, outcomes in found.items():
            work, volume = (np.array([getattr(o, k) for o in outcomes]) for k in ('work', 'volume'))
            lost = [o.lost for o in outcomes]
            print(f'{table:10} {way:30} {work.mean():6.3f} {volume.mean():7.4f} '
                  f'{volume.min():7.4f} {np.mean(lost):5.2f} {max(lost):5d}')  # fmt: skip
        first = next(iter(found.values()))
        missed |= any(o.volume < VOLUME_GOAL or o.work > WORK_GOAL or o.lost for o in first)
        print(f'{table:10} {np.mean(sizes):.1f} members of the true front on average')
    return int(missed)


if __name__ == '__main__':
    sys.exit(main())
