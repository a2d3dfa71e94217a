"""Records of stitches: the lines of ``stitches.jsonl``.

A line is a JSON object of ``id name family flops params metrics``; a metric is a number, or null
where a stitch has none or it is not finite. Lines stand in the order in which stitches were
finished. Whoever reads them, to go on with a sweep, to choose a stitch or to plot, reads them here.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path

from mmsnnet.stitching.cost import Cost
from mmsnnet.stitching.route_names import parse_name
from mmsnnet.stitching.space import Stitch

from .files import INTEGER_LIMIT, parse_json

RECORD_KEYS = ('id', 'name', 'family', 'flops', 'params', 'metrics')
RECORDS_NAME = 'stitches.jsonl'
#: Metrics of mmseg's DepthMetric, and usual names of losses, of which less is better.
ERRORS = frozenset(
    ('abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'log10', 'silog', 'mae', 'mse', 'loss')
)
_ADVICE = 'Remove the line to evaluate its stitch again, or begin anew with --overwrite.'

Record = Mapping[str, object]


def stitch_fields(stitch: Stitch, cost: Cost) -> dict[str, object]:
    """What a record says of a stitch beside its metrics: id, name, family, FLOPs, parameters."""
    return dict(
        id=stitch.id,
        name=stitch.name,
        family=stitch.family,
        flops=cost.flops,
        params=cost.params,
    )


def plain_number(value: object) -> object:
    """A scalar of numpy or torch as a Python number; for what json cannot write itself.

    Raises:
        TypeError: If the value has no form in JSON.
    """
    if callable(getattr(value, 'item', None)):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f'{value!r} of type {type(value).__name__} cannot be written as JSON.')


def _metric(key: str, value: object) -> float | None:
    """A metric as a float, or None where it is not finite.

    Numpy's shorter floats keep the digits that they have: 45.2 rather than 45.20000076293945.
    """
    if type(value).__name__ in ('float32', 'float16'):
        value = float(str(value))
    if value is not None and not isinstance(value, Real):
        value = plain_number(value)
    if value is not None and (not isinstance(value, Real) or isinstance(value, bool)):
        raise TypeError(f'The metric {key!r} must be a number, got {value!r}.')
    return float(value) if value is not None and math.isfinite(value) else None


def _count(name: str, key: str, value: object) -> int:
    """An id, FLOPs or parameters as an int.

    Raises:
        ValueError: If it is not an integer from 0 on.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f'The {key} of {name!r} must be an integer, got {value!r}.')
    if not 0 <= value < INTEGER_LIMIT:
        raise ValueError(f'The {key} of {name!r} must be from 0 to 2**63 - 1, got {value:.6g}.')
    return int(value)


def checked_record(record: object) -> dict[str, object]:
    """A record in its standard form: known keys in order, plain ints and floats.

    Raises:
        ValueError: If a key is missing or too many, a value is of the wrong type or not possible,
            or name and family contradict each other.
        TypeError: If a metric is not a number.
    """
    if not isinstance(record, Mapping) or set(record) != set(RECORD_KEYS):
        found = list(record) if isinstance(record, Mapping) else type(record).__name__
        raise ValueError(f'A record has the keys {list(RECORD_KEYS)}, got {found}.')
    for key in ('name', 'family'):
        if not isinstance(record[key], str):
            raise ValueError(f'The {key} of a record must be a text, got {record[key]!r}.')
    name, metrics = record['name'], record['metrics']
    parse_name(name, record['family'])
    if not isinstance(metrics, Mapping) or not all(isinstance(key, str) for key in metrics):
        raise ValueError(f'The metrics of {name!r} must be a dict of numbers, got {metrics!r}.')
    return {
        key: _count(name, key, record[key]) if key in ('id', 'flops', 'params') else record[key]
        for key in RECORD_KEYS
    } | {'metrics': {key: _metric(key, value) for key, value in metrics.items()}}


def load_records(path: Path) -> tuple[dict[str, dict[str, object]], int]:
    """Records of a file by name, and the bytes that its whole lines take.

    A last line without a newline counts if it is whole, and else is what a killed writer left.

    Raises:
        ValueError: If a line is no record or repeats a stitch; file and line are named.
    """
    if not path.exists():
        return {}, 0
    *lines, last = path.read_bytes().split(b'\n')
    whole_bytes = sum(len(line) + 1 for line in lines)
    if _is_whole(last):
        lines.append(last)
        whole_bytes += len(last)
    records: dict[str, dict[str, object]] = {}
    for number, line in enumerate(lines, start=1):
        where = f'{path}, line {number},'
        try:
            record = checked_record(parse_json(line))
        except (ValueError, TypeError) as error:  # includes bad JSON and bad UTF-8
            reason = str(error).rstrip('.')
            raise ValueError(f'{where} is not a record of a stitch ({reason}). {_ADVICE}') from None
        if record['name'] in records:
            raise ValueError(f'{where} repeats the stitch {record["name"]!r}. {_ADVICE}')
        records[record['name']] = record
    return records, whole_bytes


def _is_whole(line: bytes) -> bool:
    """Whether a line is a JSON text, damaged or not; no beginning of an object alone is one."""
    try:
        json.loads(line)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def read_records(directory: str | os.PathLike[str]) -> list[dict[str, object]]:
    """Records of a results folder in the order of the file; a torn last line is left out.

    Args:
        directory: The folder.

    Returns:
        Dicts of `RECORD_KEYS`. Metrics that were not finite are None.

    Raises:
        FileNotFoundError: If the folder holds no records file.
        ValueError: If a line is corrupt or a stitch occurs twice; the line is named.
    """
    path = Path(directory, RECORDS_NAME)
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} does not exist: score the stitches with tools/test_all_stitches.py --out '
            f'{directory}, which holds no results of a sweep yet.'
        )
    return list(load_records(path)[0].values())


def metric_value(record: Record, metric: str) -> float:
    """Metric of a record; NaN where it has none."""
    value = record['metrics'].get(metric)
    return math.nan if value is None else float(value)


def metric_names(records: list[Record]) -> list[str]:
    """Names of all metrics of records, in the order in which they occur first."""
    return list(dict.fromkeys(key for record in records for key in record['metrics']))


def rule_of_metric(metric: str | None) -> str:
    """Which value of a metric is better by its name: 'less' of `ERRORS`, else 'greater'."""
    return 'less' if metric and metric.split('/')[-1].lower() in ERRORS else 'greater'
