"""Chooses a stitch from the results of a sweep.

Prints one line for the stitch that keeps a budget, reaches a metric or is the knee of the front,
or a table of the front or of the dominated stitches. Units are GFLOPs, milliseconds, 10^6 bytes
and 10^6 parameters; milliseconds and bytes need --latency.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import _cli

AXES = ('gflops', 'params', 'ms', 'mb')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line as a namespace."""
    parser = _cli.Parser(prog='choose_stitch', description=__doc__.splitlines()[0])
    parser.add_argument('results', help='results folder of test_all_stitches.py')
    limits = parser.add_argument_group('budget (several together must all be kept)')
    limits.add_argument('--gflops', type=float, help='most GFLOPs of the whole model')
    limits.add_argument('--ms', type=float, help='most milliseconds')
    limits.add_argument('--mb', type=float, help='most megabytes (10^6 bytes)')
    limits.add_argument('--params', type=float, help='most parameters, in millions')
    other = parser.add_argument_group('or')
    other.add_argument('--min-metric', type=float, help='the cheapest that is as good as this')
    other.add_argument('--knee', action='store_true', help='the knee of the front')
    other.add_argument('--front', action='store_true', help='the whole front (default)')
    other.add_argument('--dominated', action='store_true', help='stitches not worth their cost')
    parser.add_argument(
        '--axis',
        choices=AXES,
        default='gflops',
        help='cost of front, knee and --min-metric (default: gflops)',
    )
    parser.add_argument('--latency', metavar='FILE', help='file of measure_latency.py')
    parser.add_argument('--metric', help='metric to choose by (default: that of the sweep)')
    parser.add_argument(
        '--rule', choices=('greater', 'less'), help='which is better (default: by the sweep)'
    )
    parser.add_argument(
        '--format',
        choices=('table', 'json', 'csv', 'name'),
        default='table',
        help='name prints names alone, for scripts',
    )
    return parser.parse_args(argv)


def choose(args: argparse.Namespace) -> tuple[list[Any], Any]:
    """Candidates that answer the command line, and the chooser.

    Raises:
        FileNotFoundError: If results or latency are missing.
        ValueError: If two questions are asked at once, or there is no answer.
    """
    from mmsnnet.results.chooser import chooser_of_results

    chooser = chooser_of_results(args.results, args.latency, args.metric, args.rule)
    limits = {axis: getattr(args, axis) for axis in AXES if getattr(args, axis) is not None}
    asked = [
        name
        for name, given in (
            ('a budget', limits),
            ('--min-metric', args.min_metric is not None),
            ('--knee', args.knee),
            ('--front', args.front),
            ('--dominated', args.dominated),
        )
        if given
    ]
    if len(asked) > 1:
        raise ValueError(f'Ask for one thing at once, not for {" and ".join(asked)}.')
    if limits:
        return [chooser.within(**limits)], chooser
    if args.min_metric is not None:
        return [chooser.reaching(args.min_metric, args.axis)], chooser
    if args.knee:
        return [chooser.knee(args.axis)], chooser
    if args.dominated:
        return chooser.dominated(args.axis), chooser
    return chooser.front(args.axis), chooser


def to_row(one: Any, metric: str) -> dict[str, Any]:
    """Fields of a candidate that are printed; what is unknown is None."""
    quality = None if math.isnan(one.quality) else one.quality
    return dict(
        name=one.name,
        family=one.family,
        gflops=one.cost('gflops'),
        params=one.cost('params'),
        ms=one.ms,
        mb=one.mb,
        **{metric: quality},
    )


def tell_alike(chosen: Sequence[Any], chooser: Any) -> None:
    """Say on the error stream if cheaper stitches cannot be told from the only one chosen."""
    if len(chosen) != 1:
        return
    alike = chooser.not_told_apart(chosen[0])
    if alike:
        sure = chooser.certainty
        names = ', '.join(
            f'{one.name} ({one.cost("gflops"):.4g} GFLOPs, {one.quality:.5g})' for one in alike[:3]
        )
        more = f' and {len(alike) - 3} more' if len(alike) > 3 else ''
        sys.stderr.write(
            f'On these {sure.images} images {chosen[0].name} cannot be told apart at '
            f'{sure.confidence:.0%} from {names}{more}, which cost no more.\n'
        )


def write_table(rows: list[dict[str, Any]], out: TextIO) -> None:
    """Rows as aligned columns; columns without any value are left out."""
    from mmsnnet.evaluation.report.quantities import decimals

    titles = {'params': 'M params', 'gflops': 'GFLOPs', 'mb': 'MB'}
    keys = [key for key in rows[0] if any(row[key] is not None for row in rows)]
    numbers = {k: [row[k] for row in rows if isinstance(row[k], (int, float))] for k in keys}
    digits = {key: max(3, decimals(numbers[key])) for key in keys}
    cells = [[titles.get(key, key) for key in keys]]
    for row in rows:
        values = {key: row[key] for key in keys}
        cells.append([
            value if isinstance(value, str)
            else '-' if value is None else f'{value:.{digits[key]}f}'
            for key, value in values.items()
        ])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells)]
    for line in cells:
        texts = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ]
        out.write('  '.join(texts).rstrip() + '\n')


def write(rows: list[dict[str, Any]], style: str, out: TextIO) -> None:
    """Rows as 'table', 'json', 'csv' or 'name'."""
    if style == 'json':
        json.dump(rows, out, indent=1)
        out.write('\n')
    elif style == 'name':
        out.writelines(f'{row["name"]}\n' for row in rows)
    elif style == 'csv' and rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    elif rows:
        write_table(rows, out)


@_cli.command('choose_stitch')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    chosen, chooser = choose(args)
    tell_alike(chosen, chooser)
    with _cli.output() as out:
        write([to_row(one, chooser.metric) for one in chosen], args.format, out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
