"""Times a route through StitchedViT against the same blocks and linear maps called by hand.

Both run in eval mode without gradients on one model and the same images, in pairs right after each
other. Memory is the most that torch holds at once during one forward, from its profiler.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from _cpu_time import paired_cpu_ratio
from _routes import anchor, build_backbone, forward_by_hand
from torch.profiler import ProfilerActivity, profile

TIME_GOAL, MEMORY_GOAL = 1.03, 1.0

#: Forwards shorter than this are told without a goal for their time: what shows there is the
#: fixed cost of finding the steps of a route, a tenth of a millisecond in a forward.
SHORTEST_MS = 20

#: Name: anchors, side of the image in pixels, stitches, and pairs per one asked for.
CASES: dict[str, tuple[list[dict[str, Any]], int, tuple[str, ...], int]] = {
    'tiny 6 x 48 + 12 x 96, 64 px': (
        [anchor(6, 48, 8, 16), anchor(12, 96, 8, 16)],
        64,
        ('S6', 'L12', 'S3-L6', 'L4-S2-L4'),
        20,
    ),
    'ViT-S + ViT-B, 224 px': (
        [anchor(12, 384), anchor(12, 768)],
        224,
        ('S12', 'L12', 'S6-L6', 'L4-S4-L4'),
        1,
    ),
}


def peak_bytes(run: Callable[[], Any]) -> int:
    """Most bytes that torch holds at once on the CPU during a call, beyond those before it."""
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # the profiler announces itself otherwise
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = run()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    del kept
    return peak


@torch.inference_mode()
def measure(name: str, batch: int, repeats: int) -> bool:
    """Print a line for each stitch of a case; returns whether all goals are met."""
    anchors, size, stitches, factor = CASES[name]
    backbone = build_backbone(anchors, size).eval()
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    print(f'{name}, batch {batch}')
    met = True
    for stitch in stitches:
        backbone.set_stitch(stitch)
        route = partial(backbone, images)
        by_hand = partial(forward_by_hand(backbone, stitch), images)
        same = all(torch.equal(a, b) for a, b in zip(route(), by_hand()))
        ratio, spread, time = paired_cpu_ratio(route, by_hand, factor * repeats)
        memory = peak_bytes(route) / peak_bytes(by_hand)
        slow = ratio > TIME_GOAL and 1000 * time >= SHORTEST_MS
        good = same and not slow and memory <= MEMORY_GOAL
        met = met and good
        print(
            f'  {stitch:<9} {1000 * time:8.2f} ms   time x {ratio:.3f} +- {spread:.3f} '
            f'({1000 * time * (1 - 1 / ratio):+.2f} ms)   '
            f'memory x {memory:.3f}   output {"equal" if same else "DIFFERENT"}'
            f'{"" if good else "   MISSED"}',
            flush=True,
        )
    return met


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog='route_forward', description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=15, help='pairs of forwards per stitch')
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    parser.add_argument('--batch', type=int, default=1, help='images in a forward')
    args = parser.parse_args(argv)
    if args.repeats < 2 or args.batch < 1 or args.threads < 1:
        parser.error('--repeats must be 2 or more, --batch and --threads 1 or more')
    torch.set_num_threads(args.threads)
    print(f'Route / the same by hand; goals: CPU time <= {TIME_GOAL}, memory <= {MEMORY_GOAL}')
    met = [measure(name, args.batch, args.repeats) for name in CASES]
    return 0 if all(met) else 1


if __name__ == '__main__':
    sys.exit(main())
