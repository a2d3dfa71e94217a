"""Converts a checkpoint of the published SN-Netv2 code into one of ours, or back.

Segmentors: backbone (two anchors with relative position bias), decode head and auxiliary heads.
Classifiers: two DeiT3 with their classifiers. The config says which; the state of the optimizer is
left out. Every weight that finds no counterpart is named, and is an error unless --allow covers it.

The published code merges the low-rank update of a stitch layer into its weight in eval mode, and
nothing in a checkpoint saved then tells so: say it with --lora-merged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import _cli


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line as a namespace."""
    parser = _cli.Parser(
        prog='convert_snnetv2', description=__doc__.splitlines()[0], epilog=__doc__.split('\n\n')[2]
    )
    parser.add_argument('source', metavar='IN', help='checkpoint to read')
    parser.add_argument('target', metavar='OUT', help='checkpoint to write')
    parser.add_argument(
        '--config', required=True, help='config of our model for these weights'
    )
    parser.add_argument(
        '--reverse', action='store_true', help='from ours to the published layout'
    )
    parser.add_argument(
        '--allow',
        nargs='+',
        default=[],
        metavar='KEY',
        help="names, or patterns such as 'auxiliary_head.*', that may stay without counterpart",
    )
    parser.add_argument(
        '--lora-merged',
        action='store_true',
        help='the published checkpoint was saved in eval mode',
    )
    parser.add_argument(
        '--class-position',
        action='store_true',
        help='with --reverse: keep a row for the class token in position embeddings, as the '
        'published code has with is_deit_3=False',
    )
    _cli.add_config_options(parser)
    return parser.parse_args(argv)


def convert(args: argparse.Namespace) -> str:
    """Convert a file; returns one line that says what was written.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If the checkpoint cannot be read, or does not match the config.
    """
    from mmsnnet.apis.model_config import build_without_data
    from mmsnnet.convert import from_published, read_checkpoint, to_published, write_checkpoint

    if Path(args.source).resolve() == Path(args.target).resolve():
        raise ValueError(f'OUT is IN ({args.source}); give another name.')
    if args.reverse and args.lora_merged:
        raise ValueError('--lora-merged is of published checkpoints; leave it out with --reverse.')
    if args.class_position and not args.reverse:
        raise ValueError('--class-position goes with --reverse; the other way the file tells.')
    content = read_checkpoint(args.source)
    model = build_without_data(args.config, args.cfg_options)
    if args.reverse:
        found = to_published(content['state_dict'], model, args.allow, args.class_position)
    else:
        found = from_published(content['state_dict'], model, args.allow, args.lora_merged)
    meta = content.get('meta') or {}
    kept = {key: meta[key] for key in ('dataset_meta', 'epoch', 'iter') if key in meta}
    write_checkpoint(args.target, dict(meta=kept, state_dict=found.state))
    left = [*found.unmatched, *(name for name in found.missing if name not in found.unmatched)]
    note = f'; left out: {", ".join(left)}' if left else ''
    return f'wrote {len(found.state)} weights to {args.target}{note}'


@_cli.command('convert_snnetv2')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    with _cli.libraries_quiet():
        note = convert(args)
    sys.stdout.write(f'{note}\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
