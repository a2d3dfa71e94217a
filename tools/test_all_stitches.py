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
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import _cli
import _front


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
    add_certainty_arguments(parser)
    _front.add_arguments(parser)
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


def add_certainty_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how sure is sure."""
    group = parser.add_argument_group('certainty')
    group.add_argument(
        '--confidence', type=float, default=0.95, metavar='P',
        help='of the intervals of metrics, between 0 and 1 (default: 0.95)',
    )  # fmt: skip
    group.add_argument(
        '--seed', type=int, default=0,
        help='of the resamples of images and of the order of a race, kept in run.json of a new '
        'folder (default: 0)',
    )  # fmt: skip


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
        help='do share I of N (1/N to N/N) and write no metrics; a run without --shard, with '
        '--merge for other folders, puts the shares together',
    )  # fmt: skip
    group.add_argument(
        '--shard-by', choices=('images', 'stitches'), default='images',
        help='what is dealt out to shares and processes (default: images)',
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
    from mmsnnet.evaluation.sweep.sweep_config import augment_test, prepare_config

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


def wanted_stitches(args: argparse.Namespace, cfg: Any) -> str | list[str]:
    """Stitches as the command line names them; those of a front by their names.

    Raises:
        FileNotFoundError: If 'pareto' has no results to read.
        ValueError: If these are damaged, or none has the metric.
    """
    from mmsnnet.results.chooser import chooser_of_results

    if args.stitches != 'pareto':
        return args.stitches
    chooser = chooser_of_results(
        args.front_of or args.out,
        metric=cfg.test_cfg.get('metric'),
        rule=cfg.test_cfg.get('rule', 'greater'),
    )
    return [one.name for one in chooser.front()]


def metric_name(cfg: Any, records: Sequence[Any]) -> str | None:
    """Metric of the config, or the first of the records; None if they have none at all."""
    from mmsnnet.results.records import metric_names

    known = metric_names(records)
    return (cfg.test_cfg.get('metric') or known[0]) if known else None


def run_with_progress(sweep: Any, stitches: Sequence[Any], options: Any) -> None:
    """Score stitches under a progress bar on the error stream of the main process."""
    from mmengine.dist import is_main_process
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from mmsnnet.evaluation.sweep.progress import Progress as SweepProgress

    console = Console(stderr=True, quiet=not is_main_process())
    columns = ('{task.description}', BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task('batches x stitches', total=None)
        done = 0

        def finished(stitch: Any, metrics: Any) -> None:
            nonlocal done
            done += 1
            values = '  '.join(
                f'{key} {"null" if value is None else format(value, ".4g")}'
                for key, value in metrics.items()
            )
            if not console.is_terminal:
                console.print(f'[{done}/{len(stitches)}] {stitch.name}: {values}', highlight=False)

        report_to = SweepProgress(
            on_start=lambda total: progress.update(task, total=total),
            on_batch=lambda: progress.advance(task),
            on_stitch=finished,
        )
        sweep.run(stitches, options, report_to)


def report(sweep: Any, cfg: Any, args: argparse.Namespace) -> None:
    """Write the report and print the table; of records without any value there is none."""
    from mmsnnet.evaluation.report.pareto_report import Volume, print_table, write_report
    from mmsnnet.results.certainty import CERTAINTY_NAME

    records = sweep.results.records
    metric, rule = metric_name(cfg, records), cfg.test_cfg.get('rule', 'greater')
    lines = sweep.results.directory / 'stitches.jsonl'
    if not tell_missing_values(records, metric):
        print(lines)
        return
    worst, best = cfg.test_cfg.get('metric_range', (0.0, 100.0))
    volume = Volume(max(sweep.costs.flops.values()), worst, best)
    title = f'{Path(args.config).stem}: {len(records)} stitches'
    certainty = certainty_of(args, records, metric, rule)
    paths = write_report(records, metric, args.out, rule, volume, title, certainty)
    print_table(records, metric, rule, certainty=certainty)
    sure = [] if certainty is None else [Path(args.out) / CERTAINTY_NAME]
    for path in (lines, *paths.values(), *sure):
        print(path)


def certainty_of(
    args: argparse.Namespace, records: Sequence[Any], metric: str, rule: str
) -> Any:
    """How sure the results in the folder are, written there; None with a line that says why."""
    from mmsnnet.evaluation.front.certainty import certainty_of_results
    from mmsnnet.results.certainty import write_certainty
    from mmsnnet.results.run_file import read_run

    out = Path(args.out)
    seed = read_run(out)['details'].get('seed', args.seed)
    found, reason = certainty_of_results(out, records, metric, rule, seed, args.confidence)
    if found is None:
        sys.stderr.write(f'test_all_stitches: without intervals: {reason}.\n')
    write_certainty(out, found)
    return found


def tell_missing_values(records: Sequence[Any], metric: str | None) -> bool:
    """Warn of stitches without a value of the metric; returns whether any has one to report.

    A metric that no record names at all is left to the report, which refuses it.
    """
    known = {key for record in records for key in record['metrics']}
    if known and metric not in known:
        return True
    missing = [record['name'] for record in records if record['metrics'].get(metric) is None]
    if missing:
        end = ' There is no front to report.' if len(missing) == len(records) else ''
        sys.stderr.write(
            f'test_all_stitches: warning: {len(missing)} of {len(records)} stitches, such as '
            f'{missing[0]}, have no value of {metric or "any metric"} (nothing found, or NaN); '
            f'they are recorded without.{end}\n'
        )
    return len(missing) < len(records)


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
    from mmsnnet.evaluation.front.certainty import check_confidence
    from mmsnnet.evaluation.front.guide import check_budget

    check_confidence(args.confidence)
    cfg = load_config(args)
    from mmengine.runner import Runner

    from mmsnnet.evaluation.sweep.sweep import StitchSweep
    from mmsnnet.evaluation.sweep.sweep_options import SweepOptions
    from mmsnnet.models import find_predicting_backbone
    from mmsnnet.stitching import select_stitches

    options = SweepOptions(
        args.one_by_one, args.shard_size, args.max_memory, args.shard, args.shard_by
    )
    race, guide = _front.race_options(args, cfg), _front.guide_options(args, cfg)
    wanted, facts = wanted_stitches(args, cfg), recalibration(cfg, args.recalibrate_bn)
    runner = Runner.from_cfg(cfg)
    backbone = find_predicting_backbone(runner.model)
    select_stitches(backbone.space, backbone.costs.flops, wanted)  # refused before work is done
    sweep = StitchSweep(runner, args.seed)
    chosen = list(select_stitches(backbone.space, sweep.costs.flops, wanted))
    stitches = sweep.share(chosen, options)
    if guide is not None:
        check_budget(guide.budget, backbone.space, len(chosen))
    alone = not options.is_share
    sweep.open(args.out, args.overwrite, facts, args.merge, race, alone, guide)
    if args.recalibrate_bn:
        recalibrate(sweep, chosen, args)
    sweep.merge(args.merge)
    return cfg, sweep, stitches, options


def _close_log(folder: Path) -> None:
    """Let MMEngine's logger write to no file in a folder any more."""
    import logging

    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    files = [one for one in logger.handlers if isinstance(one, logging.FileHandler)]
    for handler in files:
        if folder.resolve() in Path(handler.baseFilename).resolve().parents:
            logger.removeHandler(handler)
            handler.close()


@contextmanager
def leaving_no_logs(directory: Path) -> Iterator[None]:
    """Where a sweep is refused, take away the logs and the folders that were made for it."""
    logs = directory / 'log'
    before = set(logs.iterdir()) if logs.is_dir() else set()
    made = [path for path in (logs, directory, *directory.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        _close_log(logs)
        for path in set(logs.iterdir() if logs.is_dir() else ()) - before:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        with suppress(OSError):  # whatever else lies in them stays
            for path in made:
                path.rmdir()
        raise


@_cli.command('test_all_stitches')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    with leaving_no_logs(Path(args.out)):
        cfg, sweep, stitches, options = set_up(args)
    pending = sweep.pending(stitches)
    if len(pending) < len(stitches):
        known = 'results already' if not args.front else 'results already or were dropped'
        known += ', or the search ended without them' if args.budget_evals else ''
        sys.stderr.write(f'{len(stitches) - len(pending)} stitches have {known}.\n')
    if pending:
        run_with_progress(sweep, pending, options)
    if sweep.results is not None and options.is_share:
        index, count = options.share
        sys.stderr.write(f'Share {index + 1} of {count} is done; its results are partial.\n')
    elif sweep.results is not None:
        _front.tell_dropped(sweep)
        _front.tell_not_looked_at(sweep)
        report(sweep, cfg, args)
    sweep.close()
    return 0


if __name__ == '__main__':
    sys.exit(main())
