"""How reports show costs and metrics: labels, digits, and what is not a number."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

#: Labels of the axes of cost. FLOPs and parameters of records are those of backbone, neck and
#: head together; training logs, which know only the backbone, name it.
AXIS_LABELS = {
    'gflops': 'GFLOPs of the whole model',
    'params': 'M parameters of the whole model',
    'ms': 'ms',
    'mb': 'MB',
}


def shown_value(value: float | None) -> float | None:
    """Return a metric's value as files show it: None where it is not finite.

    Metrics that were rounded in single precision come as 18.719999313354492. Where a value is a
    single-precision number, the shortest decimal that denotes the same one is returned (18.72);
    every other value is returned as it is.
    """
    if value is None or not math.isfinite(value):
        return None
    value = float(value)
    try:
        exact = struct.pack('f', value)
    except OverflowError:
        return value
    if struct.unpack('f', exact)[0] != value:
        return value
    texts = (f'{value:.{digits}g}' for digits in range(1, 10))
    return float(next(text for text in texts if struct.pack('f', float(text)) == exact))


def decimals(values: Sequence[float]) -> int:
    """Return how many decimals show four digits of the greatest value."""
    greatest = max((abs(value) for value in values if math.isfinite(value)), default=0)
    return max(0, 3 - math.floor(math.log10(greatest))) if greatest else 0
