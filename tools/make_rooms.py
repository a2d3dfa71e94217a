"""Renders furnished indoor rooms into a folder: layouts of ADE20K, NYUv2, COCO, and of objects.

    python tools/make_rooms.py data/rooms --train 3700 --val 300 --size 96 96

What is in the folder is described in ``tools/rooms/__init__.py``. After an interruption
the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, NoReturn, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rooms import LAYOUTS, RoomsSpec, write_rooms

LINE_SECONDS = 10.0


class Parser(argparse.ArgumentParser):
    """An argument parser that says errors in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with status 2."""
        self.exit(2, f'{self.prog}: error: {message}\n')


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(prog='make_rooms.py', description=(__doc__ or '').split('\n')[0])
    parser.add_argument('out', type=Path, help='folder to fill, new or begun by this tool')
    parser.add_argument('--train', type=int, default=3700, help='training rooms (%(default)s)')
    parser.add_argument('--val', type=int, default=300, help='validation rooms (%(default)s)')
    parser.add_argument('--size', type=int, nargs=2, default=(96, 96), metavar=('H', 'W'),
                        help='height and width in pixels, at least 32 (96 96)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the rooms (%(default)s)')
    parser.add_argument('--layout', default=','.join(LAYOUTS),
                        help='layouts to write, separated by commas (%(default)s)')
    parser.add_argument('--workers', type=int, default=_cores(),
                        help='processes (all cores: %(default)s)')
    parser.add_argument('--overwrite', action='store_true',
                        help='replace rooms of another seed or size')
    return parser


def _cores() -> int:
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LineReport:
    """Progress in lines, one in ten seconds, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.last: float | None = None

    def __call__(self, done: int, total: int) -> None:
        """Reports ``done`` of ``total`` rooms."""
        now = time.monotonic()
        if self.last is None or now - self.last >= LINE_SECONDS or done == total:
            self.last = now
            self.stream.write(f'rooms {done}/{total}\n')
            self.stream.flush()


def run(args: argparse.Namespace, report: Callable[[int, int], None]) -> str:
    """Writes the rooms and returns a line that sums up."""
    layouts = tuple(name.strip() for name in args.layout.split(',') if name.strip())
    spec = RoomsSpec(args.train, args.val, tuple(args.size), args.seed, layouts)
    rendered, kept = write_rooms(args.out, spec, args.workers, args.overwrite, report)
    return (f'{args.out}: {spec.train} train and {spec.val} val rooms, '
            f'{spec.size[0]}x{spec.size[1]}, seed {spec.seed}, layouts {",".join(layouts)} '
            f'({rendered} written, {kept} kept)')


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    args = build_parser().parse_args(argv)
    console = Console()
    try:
        if not console.is_terminal:
            summary = run(args, LineReport(sys.stdout))
        else:
            # No refreshing thread: the workers are forked while the bar is shown.
            with Progress('{task.description}', BarColumn(), MofNCompleteColumn(),
                          TimeRemainingColumn(), console=console, auto_refresh=False) as bar:
                task = bar.add_task('rooms', total=None)
                summary = run(args, lambda done, total: bar.update(
                    task, completed=done, total=total, refresh=True))
    except KeyboardInterrupt:
        sys.stderr.write('make_rooms.py: interrupted; the same command goes on from here\n')
        return 130
    except ValueError as error:
        sys.stderr.write(f'make_rooms.py: error: {error}\n')
        return 1
    except OSError as error:
        sys.stderr.write(f'make_rooms.py: error: cannot write to {error.filename or args.out}: '
                         f'{error.strerror or error}\n')
        return 1
    sys.stdout.write(summary + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
