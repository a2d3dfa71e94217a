"""Spaces of stitches whose values on all images are known: published, drawn, or replayed.

- ade20k, imagenet: the 134 stitches of anchors of 12 and 24 blocks, their means those that the
  authors of SN-Netv2 published, their values on images simulated;
- synthetic: the same with means that are drawn anew for each seed;
- a results folder with statistics of images: mIoU from the areas of its images.

A simulated value of a stitch on an image is its mean, plus what the image is worth to all stitches,
plus what it is worth to stitches of like routes, plus a part of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmsnnet.evaluation.front.bootstrap import resample_weights
from mmsnnet.evaluation.front.certainty import on_front
from mmsnnet.evaluation.front.statistics_folder import StatisticsFolder
from mmsnnet.results.pareto import Point, hypervolume
from mmsnnet.results.records import read_records
from mmsnnet.results.run_file import read_run
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

#: Top-1 accuracy on ImageNet that they published, of the same.
PUBLISHED_TOP1 = (
    82.91, 86.98, 86.58, 86.65, 86.5, 86.26, 85.79, 85.08, 83.69, 81.71, 79.51, 80.64, 82.25, 82.66,
    82.95, 83.09, 83.25, 83.45, 83.56, 83.43, 83.59, 84.87, 86.23, 86.43, 86.39, 86.23, 85.92,
    85.57, 84.9, 83.54, 81.43, 79.16, 80.37, 81.91, 86.45, 86.06, 85.78, 85.11, 83.77, 81.7, 79.46,
    80.71, 82.23, 86.22, 85.84, 85.2, 83.93, 82, 79.7, 80.89, 82.46, 85.92, 85.44, 84.2, 82.29,
    79.98, 81.04, 82.62, 85.53, 84.41, 82.49, 80.29, 81.2, 82.8, 84.65, 82.58, 80.36, 81.38, 82.97,
    83.16, 80.68, 81.55, 82.86, 81.61, 81.45, 83.02, 83.91, 84.31, 85.91, 82.14, 82.23, 82.63,
    82.85, 82.99, 82.98, 82.96, 84.33, 85.86, 86.03, 82.55, 82.82, 83.04, 83.07, 83.02, 83.22,
    84.55, 85.92, 86.19, 82.49, 82.79, 82.93, 82.83, 82.88, 84.25, 85.76, 86.01, 82.32, 82.37,
    82.34, 82.58, 83.95, 85.55, 85.77, 81.86, 81.82, 81.99, 83.43, 85.15, 85.35, 81.17, 80.94, 82.5,
    84.36, 84.52, 79.97, 81.11, 83.04, 83.02, 79.16, 80.58, 80.97, 77.88, 77.85, 78.12,
)

#: The truth of all seeds is judged by the same resamples.
resamples = functools.lru_cache(maxsize=1)(resample_weights)
DEPTHS, WIDTHS = (12, 24), (384, 1024)
#: FLOPs of a block of each anchor at 512 x 512, and what every stitch needs beside its blocks.
BLOCK_FLOPS, OTHER_FLOPS = (2_624_524_800, 15_059_660_800), 2_028_208_128


class Sweep:
    """A space whose stitches were scored on all images.

    Attributes:
        names: Of the stitches, in the order of the space.
        costs: Their FLOPs (S,).
        num_images: Number of images.
        programs: Their steps, by name.
        anchors: Names of the anchors.

    Args:
        space: The space.
        costs: See above.
        num_images: See above.
    """

    def __init__(self, space: StitchSpace, costs: np.ndarray, num_images: int) -> None:
        self.space = space
        self.names = [stitch.name for stitch in space]
        self.costs = costs
        self.num_images = num_images
        self.programs = {stitch.name: tuple(space.program(stitch)) for stitch in space}
        self.anchors = frozenset(stitch.name for stitch in space.anchor_stitches)

    def metric(
        self, weights: np.ndarray, images: Sequence[int], chosen: Sequence[int]
    ) -> np.ndarray:
        """Metric (R, S) of some stitches for weightings (R, N) of some images."""
        raise NotImplementedError

    @functools.cached_property
    def quality(self) -> np.ndarray:
        """Metric (S,) on all images."""
        images = range(self.num_images)
        everything = np.ones((1, self.num_images), np.float32)
        return self.metric(everything, images, range(len(self.names)))[0]

    @functools.cached_property
    def members(self) -> set[int]:
        """Stitches that are on the front of all images in more than half of the resamples."""
        weights = resamples(self.num_images, 1000, seed=0)
        values = self.metric(weights, range(self.num_images), range(len(self.names)))
        return set(np.flatnonzero(on_front(self.costs, values).mean(0) > 0.5))

    def blocks(self, chosen: Sequence[int]) -> int:
        """Blocks that a pass runs for some stitches on one image."""
        if not len(chosen):
            return 0
        return RouteTree({self.names[i]: self.programs[self.names[i]] for i in chosen}).num_blocks

    def volume(self, chosen: Sequence[int]) -> float:
        """Hypervolume, by the metric on all images, of the front of some stitches."""
        points = [Point(self.names[i], self.costs[i], self.quality[i]) for i in chosen]
        return hypervolume(points, max_cost=self.costs.max(), worst=0.0, best=100.0)


class SimulatedSweep(Sweep):
    """Stitches of two anchors whose values on images are drawn.

    Args:
        table: 'ade20k', 'imagenet' or 'synthetic'.
        num_images: Number of images.
        seed: Of the values.
    """

    def __init__(self, table: str, num_images: int, seed: int) -> None:
        random = np.random.default_rng([seed, 7])
        anchors = [AnchorSpec.plain_vit(depth, width) for depth, width in zip(DEPTHS, WIDTHS)]
        space = StitchSpace(anchors, (9, 14, 19, 23))
        segments = [stitch.route.segments for stitch in space]
        blocks = np.array([
            [sum(len(one) for one in route if one.anchor == anchor) for anchor in (0, 1)]
            for route in segments
        ])  # fmt: skip
        super().__init__(space, blocks @ np.array(BLOCK_FLOPS, float) + OTHER_FLOPS, num_images)
        # What routes have in common: the share of the large anchor, early, middle and late.
        places = np.array([
            [sum(one.anchor == 1 and one.start / 24 <= t < one.stop / 24 for one in route)
             for t in (0.1, 0.5, 0.9)] for route in segments
        ], float)  # fmt: skip
        if table == 'synthetic':
            crossings = np.array([len(route) - 1 for route in segments])
            share = blocks[:, 1] / DEPTHS[1]
            mean = 44 + 7 * share**0.7 - 0.8 * crossings + random.normal(0, 0.5, len(space))
        else:
            mean = np.array(dict(ade20k=PUBLISHED_MIOU, imagenet=PUBLISHED_TOP1)[table])
        images = random.normal(0, 18, (num_images, 1))
        alike = random.normal(0, 2.0, (num_images, 3)) @ (places - places.mean(0)).T
        own = random.normal(0, 3.0, (num_images, len(space)))
        self._values = images + alike + own
        self._values += mean - self._values.mean(0)

    def metric(
        self, weights: np.ndarray, images: Sequence[int], chosen: Sequence[int]
    ) -> np.ndarray:
        """The mean over the images; see :class:`Sweep`."""
        seen = self._values[np.ix_(images, chosen)]
        return weights @ seen / weights.sum(1, keepdims=True, dtype=np.float64)


class ReplayedSweep(Sweep):
    """Stitches of a results folder with statistics of images, all of them scored by mIoU.

    Args:
        directory: The folder.
    """

    def __init__(self, directory: Path) -> None:
        records = sorted(read_records(directory), key=lambda record: record['id'])
        described = read_run(directory)['details']['space']
        # Widths only need to increase: costs are those of the records.
        anchors = [AnchorSpec.plain_vit(d, 64 * (i + 1)) for i, d in enumerate(described['depths'])]
        taps = (described['depths'][-1] - 1,)
        space = StitchSpace(anchors, taps, described['scheme'])
        if [stitch.name for stitch in space] != [record['name'] for record in records]:
            raise ValueError(f'{directory} is not of all stitches of its space.')
        folder = StatisticsFolder(directory)
        self._areas = []
        for record in records:
            (one,) = folder.read(record['name']).values()
            self._areas.append(one.areas[:2].astype(np.float32))
            self._labels = one.areas[2].astype(np.float32)
        costs = np.array([record['flops'] for record in records], float)
        super().__init__(space, costs, one.num_images)

    def metric(
        self, weights: np.ndarray, images: Sequence[int], chosen: Sequence[int]
    ) -> np.ndarray:
        """The mIoU of the summed areas; see :class:`Sweep`."""
        labels, columns = weights @ self._labels[images], []
        for number in chosen:
            inter, pred = (weights @ areas[images] for areas in self._areas[number])
            with np.errstate(divide='ignore', invalid='ignore'):
                columns.append(100 * np.nanmean(inter / (pred + labels - inter), 1))
        return np.stack(columns, 1)
