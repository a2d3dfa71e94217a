"""How long ``from mmsnnet import StitchedViT`` takes, against ``import timm, mmengine`` alone.

Each import runs in a fresh process, the two in turn, and CPU time is taken from the start of its
interpreter, so that a busy machine and a cold cache of files weigh little.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence

OURS, BASE = 'from mmsnnet import StitchedViT', 'import timm, mmengine'
GOAL = 1.2
_COUNT = '\nimport sys, time; sys.stdout.write(f"{time.process_time()} {len(sys.modules)}")'


def import_cost(statement: str) -> tuple[float, int]:
    """CPU-seconds and number of modules of a fresh process that runs an import.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', statement + _COUNT],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds, modules = done.stdout.split()[-2:]
    return float(seconds), int(modules)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures; the exit code is 0 if the goal is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--repeats', type=int, default=9, help='pairs of processes')
    repeats = parser.parse_args(argv).repeats
    if repeats < 2:
        parser.error(f'--repeats must be 2 or more to tell a spread, got {repeats}')
    for statement in (OURS, BASE):
        import_cost(statement)
    pairs = [(import_cost(OURS), import_cost(BASE)) for _ in range(repeats)]
    ratios = [ours[0] / base[0] for ours, base in pairs]
    low, ratio, high = statistics.quantiles(ratios, n=4, method='inclusive')
    for statement, found in ((OURS, [p[0] for p in pairs]), (BASE, [p[1] for p in pairs])):
        seconds = statistics.median(one[0] for one in found)
        sys.stdout.write(f'{statement}: {seconds:.2f} CPU-s, {found[0][1]} modules\n')
    sys.stdout.write(f'ratio {ratio:.3f} +- {(high - low) / 2:.3f} (goal {GOAL})\n')
    return int(ratio > GOAL)


if __name__ == '__main__':
    sys.exit(main())
