"""The results folder of a sweep: one JSON line per stitch, beside a fingerprint of the run.

``stitches.jsonl`` holds the keys ``id name family flops params metrics`` per line, in the order
in which stitches were finished. Each line is on the disk before `ResultsFolder.append` returns,
so a killed run loses at most the stitch that it was at: a torn last line is left out on reading
and cut off before the next line is written. ``run.json`` says what the numbers belong to.

Only one process may write; in a distributed run that is rank 0.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path

from .fingerprint import differences
from .fingerprint import fingerprint_file as fingerprint_file
from .fingerprint import fingerprint_text as fingerprint_text

RECORD_KEYS = ('id', 'name', 'family', 'flops', 'params', 'metrics')
RECORDS_NAME = 'stitches.jsonl'
RUN_NAME = 'run.json'
#: Files that `mmsnnet.evaluation.report.pareto_report` derives from the records.
REPORT_NAMES = tuple(f'pareto.{kind}' for kind in ('json', 'csv', 'png', 'svg', 'html'))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers, and a crash at any moment, see the old or the new whole."""
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        with open(temporary, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: object) -> object:
    """Return a scalar of numpy or torch as a Python number; for what json cannot write itself."""
    if callable(getattr(value, 'item', None)):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f'{value!r} of type {type(value).__name__} cannot be written as JSON.')


def _metric(key: str, value: object) -> float | None:
    """Return a metric as a float, or None where it is not finite."""
    if value is not None and not isinstance(value, Real):
        value = _plain(value)
    if value is not None and not isinstance(value, Real):
        raise TypeError(f'The metric {key!r} must be a number, got {value!r}.')
    return float(value) if value is not None and math.isfinite(value) else None


def _checked(record: object) -> dict[str, object]:
    """Return a record in its standard form: known keys in order, plain ints and floats.

    Raises:
        ValueError: If a key is missing or too many, or a value is of the wrong type.
    """
    if not isinstance(record, Mapping) or set(record) != set(RECORD_KEYS):
        found = list(record) if isinstance(record, Mapping) else record
        raise ValueError(f'A record has the keys {list(RECORD_KEYS)}, got {found}.')
    for key in ('name', 'family'):
        if not isinstance(record[key], str):
            raise ValueError(f'The {key} of a record must be a text, got {record[key]!r}.')
    for key in ('id', 'flops', 'params'):
        if not isinstance(record[key], Integral):
            raise ValueError(
                f'The {key} of {record["name"]!r} must be an integer, got {record[key]!r}.'
            )
    if not isinstance(record['metrics'], Mapping):
        raise ValueError(
            f'The metrics of {record["name"]!r} must be a dict of numbers, '
            f'got {record["metrics"]!r}.'
        )
    plain = {key: record[key] for key in RECORD_KEYS}
    plain.update({key: int(record[key]) for key in ('id', 'flops', 'params')})
    plain['metrics'] = {key: _metric(key, value) for key, value in record['metrics'].items()}
    return plain


def _parse_line(line: bytes, where: str) -> dict[str, object]:
    """Return the record of one whole line."""
    try:
        return _checked(json.loads(line))
    except (ValueError, TypeError) as error:  # includes bad JSON and bad UTF-8
        raise ValueError(
            f'{where} is not a record of a stitch ({error}). Remove the line to evaluate its '
            'stitch again, or begin anew with --overwrite.'
        ) from None


def _load(path: Path) -> tuple[dict[str, dict[str, object]], int]:
    """Return the records of a file by name, and the bytes that its whole lines take."""
    if not path.exists():
        return {}, 0
    *lines, torn = path.read_bytes().split(b'\n')
    records: dict[str, dict[str, object]] = {}
    for number, line in enumerate(lines, start=1):
        record = _parse_line(line, f'{path}, line {number},')
        if record['name'] in records:
            raise ValueError(
                f'{path}, line {number}, repeats the stitch {record["name"]!r}. Remove one of '
                'the lines, or begin anew with --overwrite.'
            )
        records[record['name']] = record
    return records, path.stat().st_size - len(torn)


def read_records(directory: str | os.PathLike[str]) -> list[dict[str, object]]:
    """Return the records of a results folder, without changing it; a torn last line is left out.

    Metrics that were not finite are None.

    Raises:
        FileNotFoundError: If the folder holds no records file.
        ValueError: If a line is corrupt or a stitch occurs twice; the line is named.
    """
    path = Path(directory, RECORDS_NAME)
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist: the folder holds no results of a sweep.')
    return list(_load(path)[0].values())


class ResultsFolder:
    """The records of a sweep, on disk and in memory; made by `open_results`.

    Attributes:
        directory: The folder.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / RECORDS_NAME
        self._records, self._whole_bytes = _load(self._path)
        self._seen_bytes = self._path.stat().st_size if self._path.exists() else 0

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
        """
        record = _checked(record)
        if record['name'] in self._records:
            raise ValueError(f'{self._path} holds a record of {record["name"]!r} already.')
        line = json.dumps(record, allow_nan=False, ensure_ascii=False).encode() + b'\n'
        with open(self._path, 'ab') as file:
            if file.seek(0, os.SEEK_END) != self._seen_bytes:
                raise ValueError(f'{self._path} was changed by another process; one may write.')
            file.truncate(self._whole_bytes)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._whole_bytes = self._seen_bytes = self._whole_bytes + len(line)
        self._records[record['name']] = record
        return record


def check_fingerprint(directory: Path, fingerprint: Mapping[str, object]) -> None:
    """Raise ValueError unless the folder's run has this fingerprint, naming each difference."""
    path = directory / RUN_NAME
    try:
        stored = json.loads(path.read_text(encoding='utf-8'))['fingerprint']
    except FileNotFoundError:
        raise ValueError(
            f'{directory} holds {RECORDS_NAME} but no {RUN_NAME}, so it is unknown '
            'what was evaluated. Use another folder, or --overwrite.'
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f'{path} is not the description of a run. Use another folder, or --overwrite.'
        ) from None
    differing = differences(stored, fingerprint)
    if differing:
        listed = '; '.join(
            f'{key}: {old} there, {new} now' for key, (old, new) in differing.items()
        )
        raise ValueError(
            f'{directory} holds results of another run ({listed}). Use another '
            'folder, or --overwrite to discard them.'
        )


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
    directory.mkdir(parents=True, exist_ok=True)
    # Through JSON and back, so that tuples and scalars of numpy compare as they are stored.
    run = json.loads(
        json.dumps({'fingerprint': fingerprint, 'details': details or {}}, default=_plain)
    )
    if overwrite:
        for name in (*REPORT_NAMES, RECORDS_NAME, RUN_NAME):
            (directory / name).unlink(missing_ok=True)
    if (directory / RUN_NAME).exists() or (directory / RECORDS_NAME).exists():
        check_fingerprint(directory, run['fingerprint'])
    else:
        text = json.dumps(run, indent=2, ensure_ascii=False) + '\n'
        write_atomically(directory / RUN_NAME, text.encode())
    return ResultsFolder(directory)
