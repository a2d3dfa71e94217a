"""Measures latency and peak memory of every stitch on this device.

Timed is the whole inference of the model behind its data preprocessor: backbone, neck, head,
windows of slide mode, resizing. The times of all stitches are composed of components that are
timed in a few of them; a sample is timed directly as well, which gives the error of composing. A
measurement whose error or spread is too large is repeated, twice at most, and then marked as not
reliable. Memory is what the device's allocator counts, or on the CPU what tensors take, and the
stitch's weights.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _cli


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line as a namespace."""
    parser = _cli.Parser(prog='measure_latency', description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of a model with a StitchedViT')
    parser.add_argument('checkpoint', nargs='?', help='weights; they hardly matter for time')
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        metavar=('H', 'W'),
        help='height and width of the image in pixels, or one number for a square; '
        'img_size of the backbone by default',
    )
    parser.add_argument('--batch', type=int, default=1, help='images at once (default: 1)')
    parser.add_argument('--device', help='such as cuda:0 or cpu (default: cuda if there is one)')
    parser.add_argument('--threads', type=int, help='threads on the CPU')
    parser.add_argument('--amp', action='store_true', help='run under autocast')
    parser.add_argument(
        '--direct',
        default='6',
        metavar='N|NAME,...',
        help='stitches to time directly as well: a number spread over the FLOPs, names, '
        'families; 0 for none (default: 6)',
    )
    parser.add_argument('--rounds', type=int, default=15, help='rounds (default: 15)')
    parser.add_argument('--warmup', type=int, default=2, help='rounds before (default: 2)')
    parser.add_argument(
        '--max-seconds',
        type=float,
        default=90,
        help='begin no further round of an attempt after this, but take 3 (default: 90)',
    )
    parser.add_argument(
        '--out', metavar='FILE', help='default: work_dirs/CONFIG/latency_DEVICE.json'
    )
    _cli.add_config_options(parser)
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace) -> None:
    """Refuse what is not possible.

    Raises:
        ValueError: If a number is out of range or the device is not there.
    """
    for name, least in (('batch', 1), ('threads', 1), ('rounds', 1), ('warmup', 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f'--{name} must be {least} or more, got {value}.')
    if not args.max_seconds > 0:
        raise ValueError(f'--max-seconds must be positive, got {args.max_seconds}.')
    if args.size and len(args.size) > 2:
        raise ValueError(f'--size takes one or two numbers, got {len(args.size)}.')
    args.device = check_device(args.device)


def check_device(name: str | None) -> str:
    """Name of the device to measure: the one given, or 'cuda' if there is one, or 'cpu'.

    Raises:
        ValueError: If it is none of those, or not there.
    """
    import torch

    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    if not re.fullmatch(r'cpu|cuda(:\d+)?', name):
        raise ValueError(f'--device must be cpu, cuda or cuda:N, got {name}.')
    device = torch.device(name)
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise ValueError(f'--device {name} needs CUDA, which is not available here.')
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f'--device {name} is not there: this machine has {torch.cuda.device_count()} CUDA '
            'device(s), numbered from 0.'
        )
    return name


def load(args: argparse.Namespace) -> tuple[Any, Any, tuple[int, int]]:
    """The model, its backbone, and the size of its images.

    Raises:
        FileNotFoundError: If config or checkpoint are missing.
        ValueError: If the model is not stitched or the size is not possible.
    """
    import torch

    from mmsnnet.apis import init_model
    from mmsnnet.evaluation.latency.inference import keep_all_boxes
    from mmsnnet.models import find_stitched_backbone
    from mmsnnet.stitching import check_image_size

    check_args(args)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    model = init_model(args.config, args.checkpoint, args.device, args.cfg_options)
    keep_all_boxes(model)
    backbone = find_stitched_backbone(model)
    size = tuple(args.size * 2)[:2] if args.size else backbone.img_size
    return model, backbone, check_image_size(size)


def choose_direct(backbone: Any, wanted: str) -> list[Any]:
    """Stitches of ``--direct``."""
    from mmsnnet.stitching import select_stitches

    if wanted == '0':
        return []
    wanted = f'spread:{wanted}' if wanted.isdecimal() else wanted
    return list(select_stitches(backbone.space, backbone.costs.flops, wanted))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Content of the latency file.

    Raises:
        FileNotFoundError: If config or checkpoint are missing.
        ValueError: If something is not possible.
    """
    import torch

    from mmsnnet.evaluation.latency.file import (
        describe_setting,
        fingerprint_model,
        summarise_latency,
    )
    from mmsnnet.evaluation.latency.inference import inference_on_noise
    from mmsnnet.evaluation.latency.measure import LatencyMeasurement, clock_of
    from mmsnnet.evaluation.latency.memory import (
        compose_peak,
        measure_components,
        measure_whole,
        meter_of,
        weight_bytes,
    )

    model, backbone, size = load(args)
    direct = choose_direct(backbone, args.direct)
    infer = inference_on_noise(model, size, args.batch, args.amp)
    device = torch.device(args.device)
    meter = meter_of(device)
    timing = LatencyMeasurement(backbone, infer, clock_of(device), direct)
    total, count = args.rounds + args.warmup, itertools.count(1)
    with _cli.progress('rounds') as report:
        latency = timing.run_until_reliable(
            args.rounds,
            args.warmup,
            args.max_seconds,
            on_round=lambda: report(next(count), total),
        )
    memory = measure_components(backbone, infer, meter)
    content = summarise_latency(
        backbone.space,
        latency,
        weight_bytes(model, backbone),
        {stitch.name: compose_peak(backbone.space, stitch, memory) for stitch in backbone.space},
        {stitch.name: measure_whole(backbone, infer, meter, stitch) for stitch in direct},
    )
    setting = describe_setting(device, size, args.batch, args.amp)
    return dict(
        model=dict(config=str(args.config), fingerprint=fingerprint_model(model.cfg.model)),
        setting=setting,
        **content,
    )


def summary_lines(content: dict[str, Any]) -> list[str]:
    """Lines that sum a measurement up."""
    setting, check = content['setting'], content['check']
    rows = sorted(content['stitches'], key=lambda row: row['ms'])
    height, width = setting['image_size']
    lines = [
        f'{len(rows)} stitches, {setting["batch"]} image(s) of {height} x {width} on '
        f'{setting["device"]} ({setting["dtype"]}, {setting["threads"]} threads), '
        f'{content["rounds"]} rounds, {content["windows"]} window(s)'
    ]
    for word, row in (('fastest', rows[0]), ('slowest', rows[-1])):
        lines.append(
            f'{word} {row["name"]}: {row["ms"]:.2f} ms (+- {row["spread_ms"]:.2f}), '
            f'{row["mb"]:.1f} MB'
        )
    for row in check['stitches']:
        lines.append(
            f'check {row["name"]}: composed {row["composed_ms"]:.2f} ms, direct '
            f'{row["direct_ms"]:.2f} ms, error {row["error"]:+.1%}'
        )
    for name in ('latency', 'memory') if check['stitches'] else ():
        error = check[f'{name}_error']
        lines.append(f'{name} error: median {error["median"]:.1%}, max {error["max"]:.1%}')
    return lines


@_cli.command('measure_latency')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    with _cli.libraries_quiet():
        content = measure(args)
    from mmsnnet.results.latency_file import write_latency

    stem = f'latency_{content["setting"]["device"]}.json'
    path = args.out or Path('work_dirs') / Path(args.config).stem / stem
    path = write_latency(path, content)
    if not content['reliable']:
        sys.stderr.write(
            f'measure_latency: not reliable, and marked so in the file: '
            f'{"; ".join(content["doubts"])}. Stop other work on the device, or raise --rounds, '
            'and measure again.\n'
        )
    for line in (*summary_lines(content), str(path)):
        print(line)
    return 0


if __name__ == '__main__':
    sys.exit(main())
