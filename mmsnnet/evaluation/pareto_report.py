"""What a sweep found: the Pareto front as JSON, CSV, picture and table.

Records are dicts as in ``stitches.jsonl`` (see `mmsnnet.evaluation.records`). FLOPs are the cost
and one metric is the quality. A stitch whose metric is missing or not finite is listed, but can
neither be on the front nor in the picture.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mmsnnet.stitching.pareto import Point, dominated, hypervolume, pareto_front

from .pareto_plot import plot_png
from .records import write_atomically

if TYPE_CHECKING:
    from rich.table import Table

Record = Mapping[str, object]


@dataclass(frozen=True)
class Volume:
    """What the hypervolume is measured against; see `mmsnnet.stitching.pareto.hypervolume`.

    Attributes:
        max_cost: FLOPs of the costliest stitch of the whole space.
        worst: Worst possible value of the metric.
        best: Best possible value of the metric.
    """

    max_cost: float
    worst: float
    best: float


def is_anchor(record: Record) -> bool:
    """Tell whether a record is of an anchor alone: its family names no second one."""
    return '-' not in record['family']


def _finite(value: float | None) -> float | None:
    """Return a value, or None where it is not finite."""
    return value if value is not None and math.isfinite(value) else None


def to_points(records: Sequence[Record], metric: str) -> list[Point]:
    """Return one point a record, in the same order: FLOPs and the metric, NaN where it has none.

    Raises:
        ValueError: If there are no records, or none has the metric; those there are are told.
    """
    if not records:
        raise ValueError('There are no records to report on.')
    known = list(dict.fromkeys(key for record in records for key in record['metrics']))
    if metric not in known:
        close = difflib.get_close_matches(metric, known, n=3, cutoff=0.5) or known[:10]
        raise ValueError(
            f'No record has the metric {metric!r}; there are {len(known)}, such as '
            f'{", ".join(close)}.'
        )
    points = []
    for record in records:
        value = _finite(record['metrics'].get(metric))
        points.append(Point(record['name'], record['flops'], math.nan if value is None else value))
    return points


def summarise(
    records: Sequence[Record], metric: str, direction: str = 'greater', volume: Volume | None = None
) -> dict[str, object]:
    """Return the front and its figures as JSON can hold them.

    Args:
        records: In any order.
        metric: Key of the records' metrics.
        direction: 'greater' or 'less', which value is better.
        volume: Bounds for the hypervolume, which is null without them.

    Returns:
        ``metric``, ``direction``, ``hypervolume``, the numbers ``num_stitches``,
        ``num_dominated`` and ``num_without_metric``, and ``front`` and ``anchors``: lists of
        dicts of ``id name family flops params`` and ``value``, from cheap to costly.

    Raises:
        ValueError: If the metric or direction is unknown, or the volume's bounds do not fit.
    """
    points = to_points(records, metric)
    front = pareto_front(points, direction)
    if volume is not None and (volume.best > volume.worst) != (direction == 'greater'):
        raise ValueError(
            f'direction {direction!r} contradicts worst={volume.worst} and best={volume.best}.'
        )
    rows = {record['name']: _row(record, metric) for record in records}
    anchors = [rows[record['name']] for record in records if is_anchor(record)]
    return {
        'metric': metric,
        'direction': direction,
        'hypervolume': hypervolume(points, **vars(volume)) if volume is not None else None,
        'num_stitches': len(points),
        'num_dominated': len(dominated(points, direction)),
        'num_without_metric': sum(math.isnan(point.quality) for point in points),
        'front': [rows[point.name] for point in front],
        'anchors': sorted(anchors, key=lambda row: row['flops']),
    }


def _row(record: Record, metric: str) -> dict[str, object]:
    """Return the fields of a record that a summary shows."""
    row = {key: record[key] for key in ('id', 'name', 'family', 'flops', 'params')}
    return {**row, 'value': _finite(record['metrics'].get(metric))}


def to_csv(records: Sequence[Record], metric: str, direction: str = 'greater') -> str:
    """Return all stitches as CSV, from cheap to costly.

    The columns are ``id name family flops params``, every metric, and ``on_front`` (true or
    false); a metric without a value is an empty field.
    """
    front = {point.name for point in pareto_front(to_points(records, metric), direction)}
    keys = list(dict.fromkeys(key for record in records for key in record['metrics']))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    fields = ('id', 'name', 'family', 'flops', 'params')
    writer.writerow([*fields, *keys, 'on_front'])
    for record in sorted(records, key=lambda record: (record['flops'], record['id'])):
        values = [_finite(record['metrics'].get(key)) for key in keys]
        on_front = 'true' if record['name'] in front else 'false'
        writer.writerow([*(record[field] for field in fields), *values, on_front])
    return text.getvalue()


def write_report(
    records: Sequence[Record],
    metric: str,
    directory: str | Path,
    direction: str = 'greater',
    volume: Volume | None = None,
    title: str | None = None,
) -> dict[str, Path]:
    """Write ``pareto.json``, ``pareto.csv`` and ``pareto.png`` into a folder.

    Args:
        records: In any order.
        metric: Key of the records' metrics.
        directory: Made if need be; former reports in it are replaced.
        direction: 'greater' or 'less', which value is better.
        volume: Bounds for the hypervolume; see `summarise`.
        title: Heading of the picture.

    Returns:
        Paths of the files by 'json', 'csv' and 'png'.

    Raises:
        ValueError: As `summarise`; nothing is written then.
    """
    families = {record['name']: record['family'] for record in records}
    contents = {
        'json': json.dumps(summarise(records, metric, direction, volume), indent=2).encode(),
        'csv': to_csv(records, metric, direction).encode(),
        'png': plot_png(to_points(records, metric), families, metric, direction, title),
    }
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    paths = {kind: directory / f'pareto.{kind}' for kind in contents}
    for kind, content in contents.items():
        write_atomically(paths[kind], content)
    return paths


def print_table(
    records: Sequence[Record],
    metric: str,
    direction: str = 'greater',
    rows: str = 'front',
    file: TextIO | None = None,
) -> None:
    """Write a table of stitches, from cheap to costly, to a text stream.

    Elsewhere than on a terminal it is plain ASCII, without colour and never cut.

    Args:
        records: In any order.
        metric: Key of the records' metrics.
        direction: 'greater' or 'less', which value is better.
        rows: 'front' for the front and the anchors, 'all' for every stitch.
        file: Where to write; None is the standard output.

    Raises:
        ValueError: If ``rows``, the metric or the direction is unknown.
    """
    from rich.console import Console

    if rows not in ('front', 'all'):
        raise ValueError(f"rows must be 'front' or 'all', got {rows!r}.")
    points = to_points(records, metric)
    front = {point.name for point in pareto_front(points, direction)}
    shown = [r for r in records if rows == 'all' or r['name'] in front or is_anchor(r)]
    plain = not Console(file=file).is_terminal
    console = Console(file=file, width=200 if plain else None, markup=False, highlight=False)
    table = _table([_row(record, metric) for record in shown], metric, front, plain)
    table.title = f'{len(front)} of {len(points)} stitches are on the Pareto front'
    console.print(table)


def _decimals(values: Sequence[float]) -> int:
    """Return how many decimals show four digits of the greatest value."""
    greatest = max((abs(value) for value in values), default=0)
    return max(0, 3 - math.floor(math.log10(greatest))) if greatest else 0


def _table(
    rows: Sequence[Mapping[str, object]], metric: str, front: set[str], plain: bool
) -> Table:
    """Return the table of `print_table`: one row a stitch, numbers aligned at their points."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.ASCII2 if plain else box.SIMPLE_HEAD, title_justify='left')
    for heading in ('id', 'stitch', 'family', 'GFLOPs', 'params (M)', metric, 'front'):
        right = heading in ('id', 'GFLOPs', 'params (M)', metric)
        table.add_column(heading, justify='right' if right else 'left', no_wrap=True)
    columns = {
        'flops': [row['flops'] / 1e9 for row in rows],
        'params': [row['params'] / 1e6 for row in rows],
        'value': [row['value'] for row in rows if row['value'] is not None],
    }
    digits = {key: _decimals(values) for key, values in columns.items()}
    for row in sorted(rows, key=lambda row: (row['flops'], row['id'])):
        value = '-' if row['value'] is None else f'{row["value"]:.{digits["value"]}f}'
        table.add_row(
            str(row['id']),
            row['name'],
            row['family'],
            f'{row["flops"] / 1e9:.{digits["flops"]}f}',
            f'{row["params"] / 1e6:.{digits["params"]}f}',
            value,
            '*' if row['name'] in front else '',
            style='bold' if is_anchor(row) else None,
        )
    return table
