"""Tells what a training will take, before it starts and without a GPU.

A training step of the cheapest, a middling and the costliest stitch runs under fake tensors: whole
model, loss, backward and optimizer, without data and without the memory. Several configs make a
table of one row each.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import _cli

if TYPE_CHECKING:
    from mmsnnet.evaluation.planning.training_plan import PlannedStitch, TrainingPlan

GB = 1e9


class Variant(NamedTuple):
    """A stitch under a setting, and the plan it is of."""

    name: str
    plan: TrainingPlan
    stitch: PlannedStitch


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line as a namespace."""
    parser = _cli.Parser(prog='plan_training', description=__doc__.splitlines()[0])
    parser.add_argument(
        'configs', nargs='+', metavar='CONFIG', help='config of a training with a StitchedViT'
    )
    parser.add_argument('--gpus', type=int, default=1, help='processes, one a GPU')
    parser.add_argument(
        '--amp', action='store_true', help='with automatic mixed precision, whatever the config'
    )
    parser.add_argument('--batch-size', type=int, help='images of a process; the config says')
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        metavar=('H', 'W'),
        help='height and width of the images in pixels; those of the config by default',
    )
    parser.add_argument(
        '--stitches', metavar='NAME,...', help='the cheapest, a middling, the costliest by default'
    )
    parser.add_argument(
        '--memory', type=float, metavar='GB', help='of a GPU: also tell the largest batch size'
    )
    parser.add_argument(
        '--variants',
        action='store_true',
        help='also what recomputing blocks, mixed precision and frozen anchors would change',
    )
    parser.add_argument('--format', choices=('table', 'json'), default='table')
    _cli.add_config_options(parser)
    return parser.parse_args(argv)


def plan(
    args: argparse.Namespace, config: str, stitches: str | None = None, **backbone: Any
) -> TrainingPlan:
    """The plan of a config under a command line.

    Args:
        args: Command line.
        config: Its config, or one of them.
        stitches: Names in place of those of the command line.
        backbone: In place of what the config says of the backbone.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it describes no training of a stitched model, or a number is not possible.
    """
    from mmsnnet.apis.model_config import build_without_data, load_model_config
    from mmsnnet.evaluation.planning.training_plan import plan_training

    if args.size and len(args.size) > 2:
        raise ValueError(f'--size takes one or two numbers, got {len(args.size)}.')
    cfg = load_model_config(config, args.cfg_options)
    if backbone:
        cfg.model.backbone.update(backbone)
    wanted = stitches or args.stitches
    return plan_training(
        build_without_data(cfg),
        cfg,
        wanted.split(',') if wanted else None,
        args.batch_size,
        tuple(args.size * 2)[:2] if args.size else None,
        args.gpus,
        amp=args.amp or None,
        variants=(args.variants or len(args.configs) > 1) and not backbone,
    )


def variants(args: argparse.Namespace, planned: TrainingPlan) -> list[Variant]:
    """The costliest stitch of a plan as it is and under other settings."""
    last = planned.stitches[-1]
    found = [Variant('as planned', planned, last)]
    found += [Variant(name, planned, stitch) for name, stitch in planned.variants.items()]
    if args.variants:
        config = args.configs[0]
        frozen = plan(args, config, last.name, frozen_stages=_all_blocks(config, args))
        found.append(Variant('anchors frozen', frozen, frozen.stitches[-1]))
    return found


def _all_blocks(config: str, args: argparse.Namespace) -> int:
    """Blocks of the largest anchor: as many frozen stages freeze all anchors."""
    from mmsnnet.apis.model_config import build_without_data
    from mmsnnet.models import find_stitched_backbone

    model = build_without_data(config, args.cfg_options)
    return find_stitched_backbone(model).space.anchors[-1].depth


def as_row(plan: TrainingPlan, stitch: PlannedStitch, memory: float | None) -> dict[str, Any]:
    """A stitch of a plan, bytes as they are."""
    row = dict(
        name=stitch.name,
        backbone_flops=stitch.flops,
        device_bytes=plan.device_bytes(stitch),
        **asdict(stitch.memory),
        bytes_per_image=stitch.per_image,
        idle_share=stitch.idle_share,
    )
    if memory is not None:
        row['largest_batch'] = plan.largest_batch(stitch, memory * GB)
    return row


def lines_of(plan: TrainingPlan, memory: float | None) -> Iterator[str]:
    """The plan in words and columns."""
    height, width = plan.image_size
    yield (
        f'A process with {plan.batch_size} images of {height} x {width} pixels; GB of memory at '
        'the peak of a step, and what it is made of'
    )
    header = ['stitch', 'GFLOPs', 'peak', 'weights', 'optimizer', 'gradients', 'activations']
    header += ['one more image', 'zero gradients']
    cells = [header + (['largest batch'] if memory is not None else [])]
    for row in (as_row(plan, stitch, memory) for stitch in plan.stitches):
        values = (row[key] for key in ('weights', 'optimizer', 'gradients', 'activations'))
        cells.append(
            [row['name'], f'{row["backbone_flops"] / 1e9:.2f}', _gb(row['device_bytes'])]
            + [_gb(value) for value in values]
            + [_gb(row['bytes_per_image']), f'{row["idle_share"]:.0%}']
            + ([str(row['largest_batch'])] if memory is not None else [])
        )
    widths = [max(map(len, column)) for column in zip(*cells)]
    for line in cells:
        yield '  '.join(cell.rjust(width) for cell, width in zip(line, widths))
    if plan.averaged_bytes:
        yield f'Peaks include {_gb(plan.averaged_bytes)} GB of averaged weights.'
    if plan.gpus > 1:
        yield (
            f'DistributedDataParallel: {_gb(plan.bucket_bytes)} GB of buckets (in the peaks); each '
            f'of {plan.gpus} processes sends {_gb(plan.sent_bytes)} GB a step, of which '
            f'{plan.idle_share:.0%} are zeros on average, which StitchDistributedDataParallel '
            'leaves out.'
        )
    yield (
        'Not counted: the CUDA context (about 0.5 GB), workspaces of its libraries, what the '
        'allocator wastes.'
    )


def _gb(value: float) -> str:
    return f'{value / GB:.3g}'


@contextmanager
def _without_notes() -> Iterator[None]:
    """Keep what optimizers and hosts log while they are built out of the output."""
    logging.disable(logging.WARNING)
    try:
        with _cli.libraries_quiet():
            yield
    finally:
        logging.disable(logging.NOTSET)


#: Columns of the table of several configs, in Markdown.
HEADER = (
    'recipe', 'images a GPU', 'cheapest', 'middling', 'costliest', 'with_cp', 'mixed precision',
    'both', 'sent', 'of what ran',
)  # fmt: skip


def table_row(config: str, plan: TrainingPlan) -> list[str]:
    """Cells of a config in the table of several: peaks and what is sent, in GB."""
    peaks = [*plan.stitches, *plan.variants.values()]
    height, width = plan.image_size
    return [
        f'`{Path(config).stem}`',
        f'{plan.batch_size} of {height} x {width}',
        *(_gb(plan.device_bytes(stitch)) for stitch in peaks),
        _gb(plan.sent_bytes),
        _gb(plan.sent_bytes * (1 - plan.idle_share)),
    ]


@_cli.command('plan_training')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    if len(args.configs) > 1:
        return _print_table(args)
    with _without_notes():
        planned = plan(args, args.configs[0])
        others = variants(args, planned) if args.variants else []
    with _cli.output() as out:
        if args.format == 'json':
            json.dump(_as_json(planned, others, args.memory), out, indent=1)
            out.write('\n')
            return 0
        for line in lines_of(planned, args.memory):
            out.write(f'{line}\n')
        if others:
            out.write(f'\n{planned.stitches[-1].name} under other settings:\n')
        for name, plan_, stitch in others:
            out.write(
                f'  {name:<24} peak {_gb(plan_.device_bytes(stitch)):>6} GB, one more image '
                f'{_gb(stitch.per_image):>6} GB\n'
            )
    return 0


def _print_table(args: argparse.Namespace) -> int:
    """Print a row for each of several configs as soon as it is planned; returns the exit code."""
    if args.format == 'json' or args.stitches:
        raise ValueError('--format json and --stitches take one config.')
    with _cli.output() as out:
        for line in (HEADER, ['---'] * len(HEADER)):
            out.write(f'| {" | ".join(line)} |\n')
        for config in args.configs:
            with _without_notes():
                planned = plan(args, config)
            out.write(f'| {" | ".join(table_row(config, planned))} |\n')
            out.flush()
    return 0


def _as_json(plan: TrainingPlan, others: list[Variant], memory: float | None) -> dict[str, Any]:
    return dict(
        batch_size=plan.batch_size,
        image_size=plan.image_size,
        gpus=plan.gpus,
        gradient_bytes=plan.gradient_bytes,
        bucket_bytes=plan.bucket_bytes,
        averaged_bytes=plan.averaged_bytes,
        sent_bytes=plan.sent_bytes,
        idle_share=plan.idle_share,
        stitches=[as_row(plan, stitch, memory) for stitch in plan.stitches],
        variants={name: as_row(of, stitch, memory) for name, of, stitch in others},
    )


if __name__ == '__main__':
    sys.exit(main())
