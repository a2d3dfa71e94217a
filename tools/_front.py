"""Options of `test_all_stitches.py` for a front at a part of the work, and what it says of them."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add races and guided searches."""
    group = parser.add_argument_group('a front for a part of the work')
    group.add_argument(
        '--front', action='store_true',
        help='look for the front alone: images in a random order, and stitches that one of no more '
        'FLOPs surely beats are dropped on the way (race.json)',
    )  # fmt: skip
    group.add_argument(
        '--drop-confidence', type=float, default=0.998, metavar='P',
        help='how sure it must be that a stitch is beaten, between 0 and 1 (default: 0.998)',
    )  # fmt: skip
    group.add_argument(
        '--min-images', type=int, default=30, metavar='N',
        help='images before the first stitch is dropped (default: 30)',
    )  # fmt: skip
    group.add_argument(
        '--budget-evals', type=int, metavar='N',
        help='look at N stitches at most, each chosen by what is known of others; the search ends '
        'earlier where little is to be gained (guide.json; needs scikit-learn)',
    )  # fmt: skip
    group.add_argument(
        '--min-gain', type=float, default=0.0003, metavar='G',
        help='expected gain of all that is not looked at, as a share of the hypervolume, below '
        'which --budget-evals ends (default: 0.0003)',
    )  # fmt: skip


def race_options(args: argparse.Namespace, cfg: Any) -> Any:
    """How stitches race, None if they do not.

    Raises:
        ValueError: If a number is not possible, or other options contradict a race.
    """
    from mmsnnet.evaluation.front.race import RaceOptions

    options = RaceOptions(
        cfg.test_cfg.get('metric'),
        cfg.test_cfg.get('rule', 'greater'),
        args.drop_confidence,
        args.seed,
        args.min_images,
    )
    if not args.front:
        return None
    _check_alone(
        '--front compares all stitches on the way',
        {
            '--one-by-one': args.one_by_one,
            '--shard': args.shard != (0, 1),
            '--shard-by stitches': args.shard_by == 'stitches',
            '--merge': bool(args.merge),
        },
    )
    return options


def guide_options(args: argparse.Namespace, cfg: Any) -> Any:
    """How few stitches are looked at, None for all.

    Raises:
        ValueError: If a number is not possible, other options contradict a guided search, or
            scikit-learn is missing.
    """
    from mmsnnet.evaluation.front.guide import GuideOptions
    from mmsnnet.evaluation.front.surrogate import check_installed

    if args.budget_evals is None:
        return None
    options = GuideOptions(
        args.budget_evals,
        cfg.test_cfg.get('metric'),
        cfg.test_cfg.get('rule', 'greater'),
        cfg.test_cfg.get('metric_range', (0.0, 100.0))[0],
        args.seed,
        args.min_gain,
    )
    _check_alone(
        '--budget-evals chooses by all results so far',
        {'--shard': args.shard != (0, 1), '--merge': bool(args.merge)},
    )
    check_installed()
    return options


def _check_alone(why: str, contradicting: dict[str, bool]) -> None:
    for name, is_given in contradicting.items():
        if is_given:
            raise ValueError(f'{why}: leave out {name}.')


def tell_dropped(sweep: Any) -> None:
    """Say how many stitches a race dropped, and how much of the work that saved."""
    dropped = sweep.dropped.values()
    if dropped:
        left_out = sum(1 - row['images'] / row['of'] for row in dropped)
        total = len(dropped) + len(sweep.results)
        sys.stderr.write(
            f'The race dropped {len(dropped)} of {total} stitches (race.json says which ones beat '
            f'them); {left_out / total:.0%} of the images x stitches were not run.\n'
        )


def tell_not_looked_at(sweep: Any) -> None:
    """Say how many stitches a guided search left out, and what it expects of them."""
    search = sweep.not_looked_at
    if search is not None and search.not_looked_at:
        chances = search.not_looked_at
        name = max(chances, key=chances.get)
        sys.stderr.write(
            f'{len(chances)} stitches were not looked at ({search.reason}; guide.json names them): '
            f'expected gain {search.gain:.2%} of the hypervolume; likeliest on the front is {name} '
            f'({chances[name]:.0%}).\n'
        )
