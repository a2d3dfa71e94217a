"""Scores the stitches of a trained model and reports their Pareto front.

All stitches share one pass over the data, in which what they have in common is computed once. What
is known of the images so far lies in OUT/shards, so that a killed run goes on where it stopped.
One JSON line a stitch goes to OUT/stitches.jsonl as soon as it is final; then come pareto.json,
pareto.csv, .png, .svg and .html, and a table.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _cli


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line as a namespace."""
    parser = _cli.Parser(prog='test_all_stitches', description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config that the model was trained with')
    parser.add_argument('checkpoint', help='checkpoint of the trained stitched model')
    parser.add_argument(
        '--stitches',
        default='all',
        metavar='all|anchors|pareto|spread:N|NAME,...',
        help='which to score (default: all); families and ids work too, pareto takes the front of '
        'the results in --front-of',
    )
    parser.add_argument(
        '--out',
        metavar='DIR',
        help='results folder (default: work_dirs/CONFIG/stitches)',
    )
    parser.add_argument(
        '--front-of', metavar='DIR', help='results folder for --stitches pareto (default: --out)'
    )
    parser.add_argument('--metric', help='metric of the front (default: as the config says)')
    parser.add_argument(
        '--rule', choices=('greater', 'less'), help='which is better (default: as the config says)'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='discard results that are in the folder'
    )
    parser.add_argument(
        '--tta', action='store_true', help='augment by tta_model and tta_pipeline of the config'
    )
    add_work_arguments(parser)
    parser.add_argument(
        '--recalibrate-bn',
        type=int,
        default=0,
        metavar='N',
        help='measure the statistics of the batch norms of neck and head for each stitch, on N '
        'training images (default: 0, the common ones)',
    )
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none'
    )
    _cli.add_config_options(parser)
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.out is None:
        args.out = str(Path('work_dirs') / Path(args.config).stem / 'stitches')
    return args


def add_work_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how the work is done, which changes no result."""
    group = parser.add_argument_group('how the work is done (none of it changes a result)')
    group.add_argument(
        '--one-by-one', action='store_true', help='make a pass over the data for each stitch'
    )
    group.add_argument(
        '--shard-size', type=int, default=100, metavar='N',
        help='images that a killed run may lose (default: 100)',
    )  # fmt: skip
    group.add_argument(
        '--max-memory', type=memory, metavar='BYTES',
        help='most memory of features kept for other stitches, such as 500M or 2G',
    )  # fmt: skip
    group.add_argument(
        '--shard', type=share, default=(0, 1), metavar='I/N',
        help='do part I of N (1/N to N/N) and write no metrics; a run without --shard, with '
        '--merge for other folders, puts parts together',
    )  # fmt: skip
    group.add_argument(
        '--shard-by', choices=('images', 'stitches'), default='images',
        help='what is dealt out to parts and processes (default: images)',
    )  # fmt: skip
    group.add_argument(
        '--merge', nargs='+', default=[], metavar='DIR',
        help='take in the results of other folders, then do what is missing',
    )  # fmt: skip


def memory(text: str) -> float:
    """Bytes of a text such as 2G, 1.5g, 500M or 1000000."""
    factor = {'K': 2**10, 'M': 2**20, 'G': 2**30}.get(text[-1:].upper(), 1)
    number = float(text[:-1] if factor > 1 else text)
    if not 0 <= number < float('inf'):
        raise ValueError(text)
    return number * factor


def share(text: str) -> tuple[int, int]:
    """Index from 0 and count of a text such as 2/4."""
    index, count = map(int, text.split('/'))
    if not 1 <= index <= count:
        raise ValueError(text)
    return index - 1, count


def load_config(args: argparse.Namespace) -> Any:
    """Config of the command line, ready to test stitches.

    Raises:
        FileNotFoundError: If config or checkpoint are missing.
        ValueError: If the config describes no test.
    """
    from mmsnnet.apis.model_config import load_model_config
    from mmsnnet.evaluation.sweep.augmented_test import augment_test
    from mmsnnet.evaluation.sweep.sweep import prepare_config

    cfg = load_model_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.tta:
        augment_test(cfg)
    cfg = prepare_config(cfg, args.checkpoint, str(Path(args.out) / 'log'))
    for key in ('metric', 'rule'):
        if getattr(args, key) is not None:
            cfg.test_cfg[key] = getattr(args, key)
    if cfg.test_cfg.get('rule') == 'less' and 'metric_range' not in cfg.test_cfg:
        # The loop wants (worst, best); without bounds of an error there is no hypervolume.
        cfg.test_cfg.metric_range = (1.0, 0.0)
    return cfg


def choose(sweep: Any, args: argparse.Namespace, cfg: Any) -> list[Any]:
    """Stitches that the command line asks for.

    Raises:
        FileNotFoundError: If 'pareto' has no results to read.
        ValueError: If an entry is unknown.
    """
    from mmsnnet.evaluation.report.pareto_report import to_points
    from mmsnnet.results.pareto import pareto_front
    from mmsnnet.results.records import read_records
    from mmsnnet.stitching import select_stitches

    wanted = args.stitches
    if wanted == 'pareto':
        records = read_records(args.front_of or args.out)
        rule = cfg.test_cfg.get('rule', 'greater')
        wanted = [p.name for p in pareto_front(to_points(records, metric_name(cfg, records)), rule)]
    return list(select_stitches(sweep.backbone.space, sweep.costs.flops, wanted))


def metric_name(cfg: Any, records: Sequence[Any]) -> str:
    """Metric of the config, or the first of the records."""
    return cfg.test_cfg.get('metric') or next(iter(records[0]['metrics']), '')


def run_with_progress(sweep: Any, stitches: Sequence[Any], options: Any) -> None:
    """Score stitches under a progress bar on the error stream of the main process."""
    from mmengine.dist import is_main_process
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from mmsnnet.evaluation.sweep.watch import Watch

    console = Console(stderr=True, quiet=not is_main_process())
    columns = ('{task.description}', BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task('batches x stitches', total=None)
        done = 0

        def finished(stitch: Any, metrics: Any) -> None:
            nonlocal done
            done += 1
            values = '  '.join(f'{key} {value:.4g}' for key, value in metrics.items())
            if not console.is_terminal:
                console.print(f'[{done}/{len(stitches)}] {stitch.name}: {values}', highlight=False)

        watch = Watch(
            on_start=lambda total: progress.update(task, total=total),
            on_batch=lambda: progress.advance(task),
            on_stitch=finished,
        )
        sweep.run(stitches, options, watch)


def report(sweep: Any, cfg: Any, args: argparse.Namespace) -> None:
    """Write the report and print the table."""
    from mmsnnet.evaluation.report.pareto_report import Volume, print_table, write_report

    records = sweep.results.records
    metric, rule = metric_name(cfg, records), cfg.test_cfg.get('rule', 'greater')
    worst, best = cfg.test_cfg.get('metric_range', (0.0, 100.0))
    volume = Volume(max(sweep.costs.flops.values()), worst, best)
    title = f'{Path(args.config).stem}: {len(records)} stitches'
    paths = write_report(records, metric, args.out, rule, volume, title)
    print_table(records, metric, rule)
    for path in (sweep.results.directory / 'stitches.jsonl', *paths.values()):
        print(path)


def recalibration(cfg: Any, num_images: int) -> dict[str, Any]:
    """What results depend on besides, if head statistics are measured for each stitch.

    Raises:
        ValueError: If there is nothing to measure them on.
    """
    from mmsnnet.results.fingerprint import fingerprint_text

    if num_images == 0:
        return {}
    if num_images < 2 or cfg.get('train_dataloader') is None:
        raise ValueError(
            f'--recalibrate-bn {num_images} needs 2 or more images, and a config with a '
            'train_dataloader to take them from.'
        )
    data = json.dumps(cfg.train_dataloader.dataset, sort_keys=True, default=repr)
    return {'head_statistics': {'images': num_images, 'data': fingerprint_text(data)}}


def recalibrate(sweep: Any, stitches: Sequence[Any], args: argparse.Namespace) -> None:
    """Let the model run with head statistics of each stitch, kept in the results folder."""
    from mmsnnet.engine.calibration_data import calibration_batches
    from mmsnnet.evaluation.sweep.bn_recalibration import attach_recalibrated

    cfg = sweep.runner.cfg
    attach_recalibrated(
        sweep.runner.model,
        stitches,
        args.out,
        lambda: calibration_batches(cfg, args.recalibrate_bn),
    )


def set_up(args: argparse.Namespace) -> tuple[Any, Any, list[Any], Any]:
    """The config, a sweep with its results folder open, the stitches to score, and how.

    The folder comes last: what is refused before leaves results alone that are in it.
    """
    cfg = load_config(args)
    from mmengine.runner import Runner

    from mmsnnet.evaluation.sweep.sweep import StitchSweep
    from mmsnnet.evaluation.sweep.sweep_options import SweepOptions

    options = SweepOptions(
        args.one_by_one, args.shard_size, args.max_memory, args.shard, args.shard_by
    )
    sweep = StitchSweep(Runner.from_cfg(cfg))
    chosen = choose(sweep, args, cfg)
    stitches = sweep.share(chosen, options)
    sweep.open(args.out, args.overwrite, recalibration(cfg, args.recalibrate_bn))
    if args.recalibrate_bn:
        recalibrate(sweep, chosen, args)
    sweep.merge(args.merge)
    return cfg, sweep, stitches, options


@_cli.command('test_all_stitches')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    cfg, sweep, stitches, options = set_up(args)
    pending = sweep.pending(stitches)
    if len(pending) < len(stitches):
        sys.stderr.write(f'{len(stitches) - len(pending)} stitches have results already.\n')
    if pending:
        run_with_progress(sweep, pending, options)
    if sweep.results is not None and options.is_part:
        index, count = options.share
        sys.stderr.write(f'Part {index + 1} of {count} is done; its results are partial.\n')
    elif sweep.results is not None:
        report(sweep, cfg, args)
    return 0


if __name__ == '__main__':
    sys.exit(main())
