"""The results folder of a sweep: one line per stitch, beside what the numbers belong to.

Each line of ``stitches.jsonl`` is on the disk before `ResultsFolder.append` returns, so a killed
run loses at most the stitch that it was at: a torn last line is left out on reading and cut off
before the next line is written. ``run.json`` says what the numbers belong to.

Only one process may write; in a distributed run that is rank 0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .certainty import CERTAINTY_NAME
from .files import naming_file
from .records import (
    RECORDS_NAME,
    Record,
    checked_record,
    load_records,
    metric_names,
    read_records,
    rule_of_metric,
)
from .run_file import (
    RUN_NAME,
    as_stored,
    check_fingerprint,
    check_of_space,
    read_run,
    write_run,
)

#: Files that `mmsnnet.evaluation.report.pareto_report` derives from the records.
REPORT_NAMES = (
    *(f'pareto.{kind}' for kind in ('json', 'csv', 'png', 'svg', 'html')),
    CERTAINTY_NAME,
)


class ResultsFolder:
    """The records of a sweep, on disk and in memory; made by `open_results`.

    Attributes:
        directory: The folder.

    Raises:
        ValueError: If a record is damaged, occurs twice, or is of none of the run's stitches.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / RECORDS_NAME
        self._records, self._whole_bytes = load_records(self._path)
        self._seen_bytes = self._path.stat().st_size if self._path.exists() else 0
        if (directory / RUN_NAME).exists():
            check_of_space(directory, read_run(directory)['details'], self._records.values())

    @property
    def records(self) -> list[dict[str, object]]:
        """Records so far, in the order of the file."""
        return list(self._records.values())

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def __len__(self) -> int:
        return len(self._records)

    def append(self, record: Mapping[str, object]) -> dict[str, object]:
        """Put a record at the end of the file, and on the disk, before returning it as written.

        Args:
            record: The keys of `RECORD_KEYS`. Numbers may be scalars of numpy; metrics that are
                not finite are written as null.

        Raises:
            ValueError: If keys or values are wrong, the stitch has a record already, or another
                process wrote to the file since it was opened.
            TypeError: If a metric is not a number.
            OSError: If the disk is full.
        """
        record = checked_record(record)
        if record['name'] in self._records:
            raise ValueError(f'{self._path} holds a record of {record["name"]!r} already.')
        line = json.dumps(record, allow_nan=False, ensure_ascii=False).encode() + b'\n'
        with naming_file(self._path), open(self._path, 'a+b') as file:
            if file.seek(0, os.SEEK_END) != self._seen_bytes:
                raise ValueError(f'{self._path} was changed by another process; one may write.')
            file.truncate(self._whole_bytes)
            file.seek(max(self._whole_bytes - 1, 0))
            if self._whole_bytes and file.read(1) != b'\n':
                line = b'\n' + line  # the last record is whole, but for its newline
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._whole_bytes = self._seen_bytes = self._whole_bytes + len(line)
        self._records[record['name']] = record
        return record


def open_results(
    directory: str | os.PathLike[str],
    fingerprint: Mapping[str, object],
    overwrite: bool = False,
    details: Mapping[str, object] | None = None,
) -> ResultsFolder:
    """Open a results folder to go on with a sweep, or begin one.

    Args:
        directory: Made if need be, with its parents.
        fingerprint: What the results depend on, to be compared: hashes of config and checkpoint,
            description of the data, version of the code. Values as JSON knows them, dicts too.
        overwrite: Discard former results and their report, whatever they belong to.
        details: Further facts for readers (paths, dates); stored at the start, not compared.

    Raises:
        ValueError: If the folder holds results of another fingerprint, or damaged ones; each
            differing field is named with both values.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f'{directory} is a file; results need a folder.')
    run = as_stored(fingerprint, details or {})
    directory.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for name in (*REPORT_NAMES, RECORDS_NAME, RUN_NAME):
            (directory / name).unlink(missing_ok=True)
    if (directory / RUN_NAME).exists() or (directory / RECORDS_NAME).exists():
        check_fingerprint(directory, run['fingerprint'])
    else:
        write_run(directory, run)
    return ResultsFolder(directory)


@dataclass(frozen=True)
class Results:
    """Records of a sweep, with the metric to judge them by.

    Attributes:
        source: The folder.
        records: Dicts of ``id name family flops params metrics``, in the order of the file.
        metric: Metric that sums a stitch up; None if no record has one.
        rule: 'greater' or 'less', which is better.
    """

    source: str
    records: tuple[Record, ...]
    metric: str | None
    rule: str


def read_results(
    directory: str | os.PathLike[str], metric: str | None = None, rule: str | None = None
) -> Results:
    """Read a results folder; a torn last line, of a sweep that was killed, is left out.

    Args:
        directory: Folder of ``tools/test_all_stitches.py``.
        metric: Metric to judge by; None for the run's own, or else the first of the records.
        rule: 'greater' or 'less'; None for the run's own, or else by the name of the metric, see
            :func:`~mmsnnet.results.records.rule_of_metric`.

    Raises:
        FileNotFoundError: If the folder holds no results.
        ValueError: If a file is damaged, no stitch is recorded, or the metric is unknown.
    """
    directory = Path(directory)
    records = read_records(directory)
    if not records:
        raise ValueError(f'{directory / RECORDS_NAME} holds no results yet.')
    # Records alone, such as published ones, are read too: they are all that choosing needs.
    details = read_run(directory)['details'] if (directory / RUN_NAME).exists() else {}
    check_of_space(directory, details, records)
    run_metric, run_rule = _judged_by(details)
    known = metric_names(records)
    chosen = metric or run_metric or next(iter(known), None)
    if chosen is not None and chosen not in known:
        raise ValueError(
            f'{directory} has no metric {chosen!r}; it has {", ".join(known[:10]) or "none"}.'
        )
    if rule not in (None, 'greater', 'less'):
        raise ValueError(f"rule={rule!r} is not possible: choose 'greater' or 'less'.")
    fitting_rule = run_rule if run_metric in (None, chosen) else None
    rule = rule or fitting_rule or rule_of_metric(chosen)
    return Results(str(directory), tuple(records), chosen, rule)


def _judged_by(details: Mapping[str, object]) -> tuple[str | None, str | None]:
    """Metric and rule that the details of a run name, as far as they do."""
    loop = details.get('test_loop')
    loop = loop if isinstance(loop, Mapping) else {}
    metric, rule = loop.get('metric'), loop.get('rule')
    return (
        metric if isinstance(metric, str) else None,
        rule if rule in ('greater', 'less') else None,
    )
