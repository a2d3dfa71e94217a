"""The front of a sweep as a table on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def _decimals(values: Sequence[float]) -> int:
    """Return how many decimals show four digits of the greatest value."""
    greatest = max((abs(value) for value in values), default=0)
    return max(0, 3 - math.floor(math.log10(greatest))) if greatest else 0


def front_table(
    rows: Sequence[Mapping[str, object]], metric: str, front: set[str], plain: bool
) -> Table:
    """Return a table for the terminal: one row a stitch, numbers aligned at their points.

    Args:
        rows: Dicts of ``id name family flops params value``.
        metric: Heading of the values.
        front: Names that get a star.
        plain: Whether to draw lines in ASCII.
    """
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
            style='bold' if '-' not in row['family'] else None,
        )
    return table
