"""Costs of per-image statistics and of the bootstrap: CPU time, memory and disk.

Three figures, each against its goal. Areas of 150 classes are drawn for the stitches of anchors of
12 and 24 blocks, with as many classes an image as ADE20K has (about ten labelled and a few that
are predicted alone); they are written as a sweep writes them and resampled as it resamples them.
Then a segmentor of anchors as wide and deep as DeiT3-S and DeiT3-L runs real shards of all 134
stitches on images of blocks, and what its statistics take is set against the whole.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from one_pass import build_loop

from mmsnnet.evaluation.front.certainty import certainty_of_results
from mmsnnet.evaluation.front.image_statistics import AreaStatistics
from mmsnnet.evaluation.front.statistics_folder import FOLDER_NAME, StatisticsFolder
from mmsnnet.evaluation.sweep import one_pass_sweep
from mmsnnet.evaluation.sweep.one_pass_sweep import OnePassSweep
from mmsnnet.evaluation.sweep.sweep_options import SweepOptions
from mmsnnet.stitching import AnchorSpec, StitchSpace

NUM_CLASSES = 150
GOALS = dict(seconds=20.0, gigabytes=1.0, kilobytes=20.0, overhead=0.03)


def draw_labels(generator: np.random.Generator, images: int) -> np.ndarray:
    """Pixels (N, 150) of the labelled classes of images of 512 x 683 pixels.

    Some classes are in most images, most in few; about ten are in one.
    """
    frequency = 10.0 / np.arange(1, NUM_CLASSES + 1)
    chance = np.minimum(frequency * 10 / np.minimum(frequency, 1).sum(), 1)
    present = generator.random((images, NUM_CLASSES)) < chance
    present[:, 0] = True
    shares = generator.lognormal(0, 1.5, present.shape) * present
    return (512 * 683 * shares / shares.sum(1, keepdims=True)).astype(np.int32)


def draw_areas(generator: np.random.Generator, label: np.ndarray) -> np.ndarray:
    """Areas (3, N, 150) of a prediction that misses parts, some of them to classes not there."""
    inter = (label * generator.beta(4, 1, label.shape)).astype(np.int32)
    pred = inter.copy()
    missed = (label - inter).sum(1)
    rows = np.arange(len(label))
    for share in (0.5, 0.3, 0.2):  # of the missed pixels, each to a class drawn anew
        pred[rows, generator.integers(NUM_CLASSES, size=len(label))] += (missed * share).astype(int)
    return np.stack([inter, pred, label])


def stitch_names() -> list[str]:
    """Names of the 134 stitches of anchors of 12 and 24 blocks."""
    anchors = [AnchorSpec.plain_vit(12, 384), AnchorSpec.plain_vit(24, 1024)]
    return [stitch.name for stitch in StitchSpace(anchors, (9, 14, 19, 23))]


def write_results(directory: Path, names: Sequence[str], images: int) -> list[dict[str, Any]]:
    """Statistics of stitches, and records whose metric is there but of no meaning."""
    generator = np.random.default_rng(0)
    label = draw_labels(generator, images)
    folder, records = StatisticsFolder(directory), []
    for number, name in enumerate(names):
        areas = draw_areas(generator, label)
        folder.add(name, {'': AreaStatistics(areas, 'float64', ('mIoU',), None, 1)})
        family = ''.join(letter for letter in name if not letter.isdigit())
        records.append(dict(name=name, family=family, flops=number, metrics=dict(mIoU=number)))
    return records


def measure_bootstrap(images: int) -> bool:
    """Print CPU-seconds, peak memory and disk; whether the goals are met."""
    with tempfile.TemporaryDirectory() as directory:
        records = write_results(Path(directory), stitch_names(), images)
        files = list((Path(directory) / FOLDER_NAME).iterdir())
        size = sum(path.stat().st_size for path in files) / len(files) / images * 100 / 1e3
        start = time.process_time()
        certainty, reason = certainty_of_results(Path(directory), records, 'mIoU', 'greater')
        seconds = time.process_time() - start
    if certainty is None:
        raise RuntimeError(reason)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(
        f'bootstrap of {len(records)} stitches x {images} images x {NUM_CLASSES} classes, '
        f'{certainty.resamples} resamples: {seconds:.1f} CPU-s (goal < {GOALS["seconds"]:g}), '
        f'peak of the process {peak:.2f} GB (goal <= {GOALS["gigabytes"]:g})\n'
        f'disk: {size:.1f} kB a stitch and 100 images (goal <= {GOALS["kilobytes"]:g})',
        flush=True,
    )
    return (
        seconds < GOALS['seconds']
        and peak <= GOALS['gigabytes']
        and size <= GOALS['kilobytes']
    )


class Meter:
    """Sums the CPU time of calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its CPU time counted."""

        def metered(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - start

        return metered


def measure_overhead(images: int, size: int) -> bool:
    """Print the share of a sweep's CPU time that its statistics take; whether the goal is met."""
    meter = Meter()
    with tempfile.TemporaryDirectory() as directory:
        loop = build_loop((384, 1024), size, images, directory, NUM_CLASSES, cell=size // 3)
        space = loop.scoring.backbone.space
        with mock.patch.object(one_pass_sweep, 'collect', meter.of(one_pass_sweep.collect)), \
                mock.patch.object(StatisticsFolder, 'add', meter.of(StatisticsFolder.add)):
            sweep = OnePassSweep(loop, Path(directory), space, SweepOptions())
            start = time.process_time()
            sweep.run(sweep.plan(list(space)), set())
            sweep.finish(list(space), lambda *_: None)
            seconds = time.process_time() - start
    share = meter.seconds / seconds
    print(
        f'statistics of {images} images of {size} px under {len(space)} stitches: {share:.2%} of '
        f'the CPU time of the sweep ({seconds:.0f} s; goal <= {GOALS["overhead"]:.0%})'
    )
    return share <= GOALS['overhead']


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog='image_statistics', description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=2000, help='of the bootstrap')
    parser.add_argument('--sweep-images', type=int, default=6, help='of the sweep')
    parser.add_argument('--size', type=int, default=96, help='of the sweep, in pixels')
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    met = [measure_bootstrap(args.images), measure_overhead(args.sweep_images, args.size)]
    return 0 if all(met) else 1


if __name__ == '__main__':
    sys.exit(main())
