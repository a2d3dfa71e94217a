"""Draws the stitches of one or several sweeps over their cost.

The ending of --out tells what is written: .png, .svg, or .html for a page that shows each stitch
with its route; a folder gets pareto.png, pareto.svg and pareto.html.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _cli

KINDS = ('png', 'svg', 'html')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line as a namespace."""
    parser = _cli.Parser(prog='plot_pareto', description=__doc__.splitlines()[0])
    parser.add_argument('results', nargs='+', help='results folders of test_all_stitches.py')
    parser.add_argument('--out', required=True, help='file (.png, .svg, .html) or folder')
    parser.add_argument('--names', nargs='+', help='names of the sweeps (default: the folders)')
    parser.add_argument(
        '--axis', choices=('gflops', 'params', 'ms', 'mb'), default='gflops', help='cost'
    )
    parser.add_argument(
        '--latency',
        nargs='+',
        metavar='FILE',
        help='files of measure_latency.py for ms and MB: one for each sweep, or one for all',
    )
    parser.add_argument('--metric', help='metric (default: that of the sweeps)')
    parser.add_argument(
        '--rule', choices=('greater', 'less'), help='which is better (default: by the sweep)'
    )
    parser.add_argument('--title', help='heading')
    parser.add_argument(
        '--from-zero', action='store_true', help='let both axes of png and svg begin at 0'
    )
    return parser.parse_args(argv)


def names_of(folders: Sequence[str], given: Sequence[str] | None) -> list[str]:
    """A different name for each sweep: those given, or as much of the paths as tells them apart.

    Raises:
        ValueError: If names do not fit in number, or two are equal.
    """
    if given is None:
        paths = [Path(folder).resolve().parts for folder in folders]
        longest = max(map(len, paths))
        lengths = (
            length for length in range(1, longest + 1)
            if len({path[-length:] for path in paths}) == len(paths)
        )  # fmt: skip
        length = next(lengths, longest)
        given = ['/'.join(path[-length:]) for path in paths]
    if len(given) != len(folders) or len(set(given)) != len(given):
        raise ValueError(
            f'{len(folders)} sweeps need as many different names, got {", ".join(given)}.'
        )
    return list(given)


def load(args: argparse.Namespace) -> dict[str, Any]:
    """Stitches of each sweep by its name.

    Raises:
        FileNotFoundError: If results or latency are missing.
        ValueError: If numbers of arguments do not fit.
    """
    from mmsnnet.results.chooser import chooser_of_results

    count = len(args.results)
    latency = args.latency or [None]
    if len(latency) not in (1, count):
        raise ValueError(f'--latency takes one file or {count}, got {len(latency)}.')
    latency = latency * count if len(latency) == 1 else latency
    names = names_of(args.results, args.names)
    return {
        name: chooser_of_results(folder, file, args.metric, args.rule)
        for name, folder, file in zip(names, args.results, latency)
    }


def plot(args: argparse.Namespace) -> list[Path]:
    """Write what is asked for; returns the files.

    Raises:
        FileNotFoundError: If results or latency are missing.
        ValueError: If the ending is unknown or sweeps cannot be compared.
    """
    from mmsnnet.evaluation.report.pareto_html import to_html
    from mmsnnet.evaluation.report.pareto_plot import draw_sweeps, to_png, to_svg

    out = Path(args.out)
    kind = out.suffix.lstrip('.').lower()
    if kind and kind not in KINDS:
        raise ValueError(f'--out {out} must end in {", ".join("." + k for k in KINDS)}.')
    sweeps = load(args)
    figure = draw_sweeps(sweeps, args.axis, args.title, args.from_zero)
    make = {
        'png': lambda: to_png(figure),
        'svg': lambda: to_svg(figure),
        'html': lambda: to_html(sweeps, args.title, args.axis).encode(),
    }
    files = {out: kind} if kind else {out / f'pareto.{kind}': kind for kind in KINDS}
    contents = {path: make[kind]() for path, kind in files.items()}
    for path, content in contents.items():  # only now: what is refused leaves no folder behind
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return list(files)


@_cli.command('plot_pareto')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    files = plot(args)
    for path in files:
        print(path)
    return 0


if __name__ == '__main__':
    sys.exit(main())
