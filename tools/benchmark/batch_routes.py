"""Times one pass in which routes are batched against one pass in which they are not.

The segmentor, the images and the way are those of ``one_pass.py``. Times hold the head, which is
not batched; ``blocks`` gives how many calls of blocks are left of those of a plain one pass.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
from _cpu_time import paired_cpu_ratio
from one_pass import build_loop


def block_calls(loop: Any, run: Callable[[], Any]) -> int:
    """Calls of blocks in one run."""
    calls = []
    anchors = loop.scoring.backbone.anchors.values()
    handles = [
        block.register_forward_hook(lambda *_: calls.append(1))
        for anchor in anchors
        for block in anchor.vit.blocks
    ]
    run()
    for handle in handles:
        handle.remove()
    return len(calls)


def runner_of(loop: Any, batch: Any, count: int) -> Callable[[], Any]:
    """Scores all stitches on a batch, in groups of some."""

    def run() -> None:
        with loop.together(loop.scoring.stitches, batch_routes=count) as shared:
            shared.run_batch(0, batch)

    return run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog='batch_routes', description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=5, help='pairs of runs')
    parser.add_argument('--size', type=int, default=64, help='side of the images in pixels')
    parser.add_argument('--widths', type=int, nargs=2, default=(64, 128), help='of the anchors')
    parser.add_argument('--routes', type=int, nargs='+', default=(4, 16, 134), help='in a group')
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    args = parser.parse_args(argv)
    if args.repeats < 2 or args.threads < 1 or min(args.routes) < 2:
        parser.error('--repeats and --routes must be 2 or more, --threads 1 or more')
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as work_dir:
        loop = build_loop(args.widths, args.size, 1, work_dir)
        batch = next(iter(loop.dataloader))
        plain = runner_of(loop, batch, 1)
        blocks = block_calls(loop, plain)
        print(f'{args.widths[0]} x 12 and {args.widths[1]} x 24, {args.size} px')
        for count in args.routes:
            batched = runner_of(loop, batch, count)
            left = block_calls(loop, batched) / blocks
            ratio, spread, time = paired_cpu_ratio(batched, plain, args.repeats)
            print(
                f'{count} routes: batched / one pass = {ratio:.3f} +- {spread:.3f} of the CPU '
                f'time ({time:.2f} s an image), blocks {left:.3f}',
                flush=True,
            )
    return 0


if __name__ == '__main__':
    sys.exit(main())
