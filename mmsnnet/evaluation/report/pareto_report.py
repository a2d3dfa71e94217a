"""What a sweep found: the Pareto front as JSON, CSV, picture and table.

Records are dicts as in ``stitches.jsonl`` (see `mmsnnet.results.records`). FLOPs are the cost
and one metric is the quality. A stitch whose metric is missing or not finite is listed, but can
neither be on the front nor in the picture. FLOPs and parameters are those of the whole model.
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

from mmsnnet.results.certainty import Certainty, StitchCertainty
from mmsnnet.results.chooser import chooser_of_records
from mmsnnet.results.files import write_atomically
from mmsnnet.results.pareto import Point, dominated, hypervolume, pareto_front

from .pareto_html import to_html
from .pareto_plot import draw_sweeps, to_png, to_svg
from .quantities import decimals, shown_value

if TYPE_CHECKING:
    from rich.table import Table

Record = Mapping[str, object]


@dataclass(frozen=True)
class Volume:
    """What the hypervolume is measured against; see `mmsnnet.results.pareto.hypervolume`.

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


def to_points(records: Sequence[Record], metric: str) -> list[Point]:
    """Return one point a record, in the same order: FLOPs and the metric, NaN where it has none.

    Raises:
        ValueError: If there are no records, or none has the metric; the nearest are named.
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
        value = shown_value(record['metrics'].get(metric))
        points.append(Point(record['name'], record['flops'], math.nan if value is None else value))
    return points


def summarise(
    records: Sequence[Record],
    metric: str,
    direction: str = 'greater',
    volume: Volume | None = None,
    certainty: Certainty | None = None,
) -> dict[str, object]:
    """Return the front and its figures as JSON can hold them.

    Args:
        records: In any order.
        metric: Key of their metrics.
        direction: 'greater' or 'less', which value is better.
        volume: Bounds for the hypervolume, which is null without them.
        certainty: How sure it is, if known.

    Returns:
        ``metric direction hypervolume num_stitches num_dominated num_without_metric``, and
        ``front`` and ``anchors``: lists of dicts of ``id name family flops params value``, by
        FLOPs. A certainty adds itself, ``uncertain`` (others that are on some resamples' front),
        and to the dicts ``interval on_front beats_cheaper beats_small``.

    Raises:
        ValueError: If the metric or direction is unknown, or the volume's bounds do not fit.
    """
    points = to_points(records, metric)
    front = pareto_front(points, direction)
    rows = {one['name']: _row(one, metric, certainty) for one in records}
    anchors = sorted((row for row in rows.values() if is_anchor(row)), key=lambda r: r['flops'])
    return {
        'metric': metric,
        'direction': direction,
        'hypervolume': _hypervolume(points, volume, direction),
        'num_stitches': len(points),
        'num_dominated': len(dominated(points, direction)),
        'num_without_metric': sum(math.isnan(point.quality) for point in points),
        'front': [rows[point.name] for point in front],
        'anchors': anchors,
        **_certain(rows, {point.name for point in front}, certainty),
    }


def _hypervolume(points: Sequence[Point], volume: Volume | None, direction: str) -> float | None:
    """Return the hypervolume, None without bounds.

    Raises:
        ValueError: If the bounds are of the other direction.
    """
    if volume is None:
        return None
    if (volume.best > volume.worst) != (direction == 'greater'):
        raise ValueError(
            f'direction {direction!r} contradicts worst={volume.worst} and best={volume.best}.'
        )
    return hypervolume(points, **vars(volume))


def _certain(
    rows: Mapping[str, Mapping[str, object]], front: set[str], certainty: Certainty | None
) -> dict[str, object]:
    """Return what a summary says of its certainty, and who else may be on the front."""
    if certainty is None:
        return {}
    uncertain = [row for n, row in rows.items() if n not in front and row.get('on_front')]
    uncertain.sort(key=lambda row: row['flops'])
    return {'certainty': certainty.settings, 'uncertain': uncertain}


def _row(
    record: Record, metric: str, certainty: Certainty | None = None
) -> dict[str, object]:
    """Return the fields of a record that a summary shows."""
    row = {key: record[key] for key in ('id', 'name', 'family', 'flops', 'params')}
    row['value'] = shown_value(record['metrics'].get(metric))
    known = {} if certainty is None else certainty.stitches
    return {**row, **_sure(known[row['name']])} if row['name'] in known else row


def _sure(one: StitchCertainty) -> dict[str, object]:
    return dict(
        interval=[one.low, one.high],
        on_front=one.on_front,
        beats_cheaper=one.beats_cheaper,
        beats_small=one.beats_small,
    )


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
        values = [shown_value(record['metrics'].get(key)) for key in keys]
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
    certainty: Certainty | None = None,
) -> dict[str, Path]:
    """Write ``pareto.json``, ``.csv``, ``.png``, ``.svg`` and ``.html`` into a folder.

    A certainty is shown by whiskers, and by paler points where one is hardly ever on the front.

    Args:
        records: In any order.
        metric: Key of the records' metrics.
        directory: Made if need be; a former report in it is replaced.
        direction: 'greater' or 'less', which value is better.
        volume: Bounds for the hypervolume; see `summarise`.
        title: Heading of picture and page.
        certainty: See `summarise`.

    Returns:
        Paths of the files by 'json', 'csv', 'png', 'svg' and 'html'.

    Raises:
        ValueError: As `summarise`; nothing is written then.
    """
    summary = summarise(records, metric, direction, volume, certainty)
    chooser = chooser_of_records(records, metric, direction, certainty=certainty)
    sweep = {title or 'stitches': chooser}
    figure = draw_sweeps(sweep, title=title)
    contents = {
        'json': json.dumps(summary, indent=2).encode(),
        'csv': to_csv(records, metric, direction).encode(),
        'png': to_png(figure),
        'svg': to_svg(figure),
        'html': to_html(sweep).encode(),
    }
    return _write(Path(directory), contents)


def _write(directory: Path, contents: Mapping[str, bytes]) -> dict[str, Path]:
    """Write the files of a report by their kinds; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = {kind: directory / f'pareto.{kind}' for kind in contents}
    for kind, path in paths.items():
        write_atomically(path, contents[kind])
    return paths


def _front_table(
    rows: Sequence[Mapping[str, object]], metric: str, front: set[str], plain: bool
) -> Table:
    """Return a table of rows of `_row`; names in ``front`` get a star, ``plain`` is ASCII alone."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.ASCII2 if plain else box.SIMPLE_HEAD)
    sides = ('right', 'left', 'left', 'right', 'right', 'right', 'left')
    names = ('id', 'stitch', 'family', 'GFLOPs', 'params (M)', metric, 'front')
    certain = any('interval' in row for row in rows)
    if certain:
        sides = (*sides, 'left', 'right', 'right', 'right')
        names = (*names, 'interval', 'P(front)', 'P(> cheaper)', 'P(> small)')
    for name, side in zip(names, sides):
        table.add_column(name, justify=side, no_wrap=True)
    gflops = decimals([row['flops'] / 1e9 for row in rows])
    params = decimals([row['params'] / 1e6 for row in rows])
    values = decimals([row['value'] for row in rows if row['value'] is not None])
    for row in sorted(rows, key=lambda row: (row['flops'], row['id'])):
        table.add_row(
            str(row['id']),
            row['name'],
            row['family'],
            f'{row["flops"] / 1e9:.{gflops}f}',
            f'{row["params"] / 1e6:.{params}f}',
            '-' if row['value'] is None else f'{row["value"]:.{values}f}',
            '*' if row['name'] in front else '',
            *(_certain_cells(row, values) if certain else ()),
            style='bold' if is_anchor(row) else None,
        )
    return table


def _certain_cells(row: Mapping[str, object], digits: int) -> list[str]:
    """Return the cells of a row about its certainty."""
    if 'interval' not in row:
        return ['-'] * 4
    low, high = row['interval']
    shares = (row[key] for key in ('on_front', 'beats_cheaper', 'beats_small'))
    return [
        f'{low:.{digits}f} to {high:.{digits}f}',
        *('-' if share is None else f'{share:.2f}' for share in shares),
    ]


def print_table(
    records: Sequence[Record],
    metric: str,
    direction: str = 'greater',
    rows: str = 'front',
    file: TextIO | None = None,
    certainty: Certainty | None = None,
) -> None:
    """Write a table of stitches, from cheap to costly, to a text stream.

    Elsewhere than on a terminal it is plain ASCII, without colour and never cut.

    Args:
        records: In any order.
        metric: Key of the records' metrics.
        direction: 'greater' or 'less', which value is better.
        rows: 'front' for the front and the anchors, 'all' for every stitch.
        file: Where to write; None is the standard output.
        certainty: How sure values and front are; adds intervals and probabilities.

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
    cells = [_row(record, metric, certainty) for record in shown]
    table = _front_table(cells, metric, front, plain)
    console.print(f'{len(front)} of {len(points)} stitches are on the Pareto front; '
                  'GFLOPs and parameters are of the whole model')  # fmt: skip
    console.print(table)
    if certainty is not None:
        console.print(_method(certainty))


def _method(certainty: Certainty) -> str:
    return (
        f'Intervals of {certainty.confidence:.0%} and probabilities P: paired bootstrap over '
        f'{certainty.images} images ({certainty.resamples} resamples, seed {certainty.seed})'
    )
