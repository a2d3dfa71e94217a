"""Reads what a sweep and a measurement of latency left on disk, with the standard library alone.

The files are written by `mmsnnet.results.records` and `mmsnnet.evaluation.latency.file`. They
are read here as well so that a backbone can choose its stitch by them.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RECORDS_NAME = 'stitches.jsonl'
RUN_NAME = 'run.json'
#: Metrics of mmseg's DepthMetric, and usual names of losses, of which less is better.
ERRORS = frozenset(
    ('abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'log10', 'silog', 'mae', 'mse', 'loss')
)


@dataclass(frozen=True)
class Results:
    """Records of a sweep.

    Attributes:
        source: The folder.
        records: Dicts of ``id name family flops params metrics``, in the order of the file.
        metric: Metric that sums a stitch up; None if no record has one.
        rule: 'greater' or 'less', which is better.
    """

    source: str
    records: tuple[Mapping[str, object], ...]
    metric: str | None
    rule: str


def _parse(line: bytes, where: str) -> dict[str, object]:
    """Record of a whole line.

    Raises:
        ValueError: If it is none.
    """
    try:
        record = json.loads(line)
        if not {'id', 'name', 'family', 'flops', 'params', 'metrics'} <= record.keys():
            raise ValueError
    except (ValueError, AttributeError):
        raise ValueError(f'{where} is not a record of a stitch; score the stitches anew.') from None
    return record


def _told_by_run(directory: Path) -> tuple[str | None, str | None]:
    """Metric and rule that the run of a results folder was told, as far as it was."""
    try:
        run = json.loads((directory / RUN_NAME).read_text(encoding='utf-8'))
        loop = run['details']['test_loop']
        return loop.get('metric'), loop.get('rule')
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, None


def read_results(
    directory: str | os.PathLike[str], metric: str | None = None, rule: str | None = None
) -> Results:
    """Read a results folder; a torn last line, of a sweep that was killed, is left out.

    Args:
        directory: Folder of ``tools/test_all_stitches.py``.
        metric: Metric to judge by; None for the run's own, or else the first of the records.
        rule: 'greater' or 'less'; None for the run's own, or else 'less' for the names in
            ``ERRORS`` and 'greater' for others.

    Raises:
        FileNotFoundError: If the folder holds no results.
        ValueError: If a line is no record, no stitch is recorded, or the metric is unknown.
    """
    directory = Path(directory)
    path = directory / RECORDS_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} does not exist: score the stitches with tools/test_all_stitches.py --out '
            f'{directory}.'
        )
    *lines, _ = path.read_bytes().split(b'\n')
    records = tuple(_parse(line, f'{path}, line {n},') for n, line in enumerate(lines, start=1))
    if not records:
        raise ValueError(f'{path} holds no results yet.')
    told_metric, told_rule = _told_by_run(directory)
    known = list(dict.fromkeys(key for record in records for key in record['metrics']))
    chosen = metric or told_metric or next(iter(known), None)
    if chosen is not None and chosen not in known:
        raise ValueError(
            f'{directory} has no metric {chosen!r}; it has {", ".join(known[:10]) or "none"}.'
        )
    told = told_rule if told_metric in (None, chosen) else None
    return Results(str(directory), records, chosen, _rule(rule or told, chosen))


def _rule(rule: str | None, metric: str | None) -> str:
    """Rule that was given, or the one that goes with the name of a metric.

    Raises:
        ValueError: If it is neither 'greater' nor 'less'.
    """
    if rule not in (None, 'greater', 'less'):
        raise ValueError(f"rule={rule!r} is not possible: choose 'greater' or 'less'.")
    return rule or ('less' if metric and metric.split('/')[-1].lower() in ERRORS else 'greater')


def value_of(record: Mapping[str, object], metric: str) -> float:
    """Metric of a record; NaN where it has none."""
    value = record['metrics'].get(metric)
    return float(value) if value is not None and math.isfinite(value) else math.nan


def read_latency(path: str | os.PathLike[str]) -> dict[str, tuple[float, float]]:
    """Milliseconds and megabytes of each stitch by name, from ``tools/measure_latency.py``.

    A measurement that is marked as not reliable is read with a warning.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such measurement.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no latency file {path}; tools/measure_latency.py '
                                'writes one.')  # fmt: skip
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        measured = {
            row['name']: (float(row['ms']), float(row['mb'])) for row in content['stitches']
        }
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f'{path} is not a measurement of tools/measure_latency.py; measure again.'
        ) from None
    if content.get('reliable') is False:
        doubts = '; '.join(map(str, content.get('doubts') or ())) or 'its spread is too large'
        warnings.warn(
            f'The latency file {path} is marked as not reliable ({doubts}): measure again before '
            'you rely on its milliseconds.',
            stacklevel=2,
        )
    return measured
