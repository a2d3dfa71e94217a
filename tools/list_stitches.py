"""Lists the stitches of a config with what the whole model costs under each.

Counted are backbone, neck and decode head of one inference, one multiply-add as one FLOP. The
model is built without data, so neither weights nor much memory are needed.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

import _cli

if TYPE_CHECKING:
    from mmsnnet.stitching import CostTable

FIELDS = ('id', 'name', 'family', 'flops', 'params')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line as a namespace."""
    parser = _cli.Parser(prog='list_stitches', description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of a model with a StitchedViT')
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        metavar=('H', 'W'),
        help='height and width of the image in pixels, or one number for a square; '
        'img_size of the backbone by default',
    )
    parser.add_argument('--format', choices=('table', 'json', 'csv'), default='table')
    parser.add_argument(
        '--stitches',
        default='all',
        metavar='all|anchors|NAME,...',
        help='which to list, between commas; ids work as well as names',
    )
    _cli.add_config_options(parser)
    return parser.parse_args(argv)


def list_stitches(args: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """One row a stitch with the keys ``FIELDS``, and a line that says what was counted.

    Raises:
        ValueError: If the size or a stitch is not possible, or the model cannot be counted.
    """
    from mmsnnet.apis.model_config import build_without_data
    from mmsnnet.evaluation.cost.model_cost import model_costs
    from mmsnnet.models import find_stitched_backbone
    from mmsnnet.stitching import select_stitches

    if args.size and len(args.size) > 2:
        raise ValueError(f'--size takes one or two numbers, got {len(args.size)}.')
    backbone = find_stitched_backbone(model := build_without_data(args.config, args.cfg_options))
    size = tuple(args.size * 2)[:2] if args.size else backbone.img_size
    costs = model_costs(model, size)
    rows = [
        dict(zip(FIELDS, (s.id, s.name, s.family, costs[s].flops, costs[s].params)))
        for s in select_stitches(backbone.space, costs.flops, args.stitches)
    ]
    height, width = costs.image_size
    note = (
        f'{len(rows)} of {len(costs)} stitches, images of {height} x {width} pixels; of the whole '
        f'model, of which neck and head are {_head_costs(costs)}'
    )
    return rows, note


def _head_costs(costs: CostTable) -> str:
    """What stitches cost besides the backbone, in words; of classifiers from least to most."""
    ends = [costs.constant + cost for cost in costs.by_last_anchor] or [costs.constant]

    def between(values: list[float]) -> str:
        return ' to '.join(f'{value:.4g}' for value in sorted({min(values), max(values)}))

    gflops = between([cost.flops / 1e9 for cost in ends])
    return f'{gflops} GFLOPs and {between([cost.params / 1e6 for cost in ends])} M parameters'


def write_table(rows: list[dict[str, Any]], note: str, out: TextIO) -> None:
    """Rows as aligned columns, in units for reading."""
    from mmsnnet.evaluation.report.quantities import decimals

    header = ('id', 'name', 'family', 'GFLOPs', 'M params')
    gflops = max(3, decimals([row['flops'] / 1e9 for row in rows]))
    params = max(3, decimals([row['params'] / 1e6 for row in rows]))
    cells = [
        (
            *(str(row['id']), row['name'], row['family']),
            *(f'{row["flops"] / 1e9:.{gflops}f}', f'{row["params"] / 1e6:.{params}f}'),
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(header, *cells)]
    for line in (header, *cells):
        texts = [
            cell.ljust(width) if column in (1, 2) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ]
        out.write('  '.join(texts).rstrip() + '\n')
    out.write(f'{note}\n')


def write_rows(rows: list[dict[str, Any]], note: str, style: str, out: TextIO) -> None:
    """Rows as 'table', 'json' (a list of objects) or 'csv'."""
    if style == 'json':
        json.dump(rows, out, indent=1)
        out.write('\n')
    elif style == 'csv':
        writer = csv.DictWriter(out, FIELDS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    else:
        write_table(rows, note, out)


@_cli.command('list_stitches')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    with _cli.libraries_quiet():
        rows, note = list_stitches(args)
    with _cli.output() as out:
        write_rows(rows, note, args.format, out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
