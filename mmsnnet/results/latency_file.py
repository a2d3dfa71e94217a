"""The file of measured costs, of ``tools/measure_latency.py``: written and read here."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import parse_json, write_atomically


def write_latency(path: str | os.PathLike[str], content: Mapping[str, Any]) -> Path:
    """Write the file, its folder too if need be.

    Args:
        path: The file.
        content: ``stitches``, a list of dicts with at least ``name``, ``ms`` (milliseconds of an
            image) and ``mb`` (megabytes of 10^6 bytes), and whatever else is known.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(content, indent=1) + '\n').encode())
    return path


def read_latency(path: str | os.PathLike[str]) -> dict[str, tuple[float, float]]:
    """Milliseconds and megabytes of each stitch by name.

    A measurement that is marked as not reliable is read with a warning.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such measurement, or a stitch is told twice or impossibly.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no latency file {path}; tools/measure_latency.py '
                                'writes one.')  # fmt: skip
    try:
        content = parse_json(path.read_bytes())
        rows = content['stitches']
        measured = {_name(row): (_cost(row, 'ms'), _cost(row, 'mb')) for row in rows}
        if len(measured) < len(rows):
            raise ValueError('a stitch is in it twice')
    except (ValueError, KeyError, TypeError) as error:
        reason = f'no {error.args[0]}' if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f'{path} is not a measurement of tools/measure_latency.py ({reason}); measure again.'
        ) from None
    if content.get('reliable') is False:
        doubts = content.get('doubts')
        doubts = '; '.join(map(str, doubts if isinstance(doubts, list) else ()))
        doubts = doubts or 'its spread is too large'
        warnings.warn(
            f'The latency file {path} is marked as not reliable ({doubts}): measure again before '
            'you rely on its milliseconds.',
            stacklevel=2,
        )
    return measured


def _name(row: Mapping[str, Any]) -> str:
    if not isinstance(row['name'], str):
        raise ValueError(f'{row["name"]!r} is no name of a stitch')
    return row['name']


def _cost(row: Mapping[str, Any], key: str) -> float:
    value = row[key]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value >= 0):
        raise ValueError(f'{key} of {row["name"]!r} is {value!r}')
    return float(value)
