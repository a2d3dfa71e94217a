"""Files as results need them: written whole or not at all, and JSON that is read strictly."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Integers of results (ids, FLOPs, parameters, bytes) are below this.
INTEGER_LIMIT = 2**63


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers, and a crash at any moment, see the old or the new whole.

    Raises:
        OSError: If it cannot be written; the file is named.
    """
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        with naming_file(path):
            with open(temporary, 'wb') as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Name a file that cannot be written: errors of a full disk do not say what was written.

    Raises:
        OSError: If so.
    """
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def parse_json(content: bytes) -> Any:
    """Value of a JSON text in UTF-8, by the letter of RFC 8259.

    Python's own reader takes more: NaN and Infinity, numbers beyond floats, a key twice.

    Raises:
        ValueError: If it is none, or is nested too deeply to be one of our files.
    """
    try:
        return json.loads(
            content.decode('utf-8'),
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_distinct,
        )
    except RecursionError:
        raise ValueError('it is nested too deeply') from None


def _no_constant(text: str) -> None:
    raise ValueError(f'{text} is not a number of JSON')


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f'{_shortened(text)} is too large')
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) >= INTEGER_LIMIT:
        raise ValueError(f'{_shortened(text)} is too large')
    return int(text)


def _shortened(text: str) -> str:
    return text if len(text) <= 24 else f'{text[:12]}... of {len(text)} characters'


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f'it has the key {next(k for k in keys if keys.count(k) > 1)!r} twice')
    return found
