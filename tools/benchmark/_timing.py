"""Timing side by side, so that a busy machine slows both alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect garbage now, and not before the block ends."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def seconds(run: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def median_seconds(run: Callable[[], Any], repeats: int = 5) -> float:
    """Median of the wall-clock seconds of some calls.

    Raises:
        ValueError: If ``repeats`` is below 1.
    """
    if repeats < 1:
        raise ValueError(f'repeats must be 1 or more, got {repeats}.')
    with _no_garbage_collection():
        return statistics.median(seconds(run) for _ in range(repeats))


def paired_ratio(
    a: Callable[[], Any], b: Callable[[], Any], repeats: int = 15
) -> tuple[float, float]:
    """How many times longer ``a`` takes than ``b``, from pairs of calls right after each other.

    Each is called once before, to warm up; every other pair runs ``b`` first.

    Returns:
        Median of the ratios of the pairs, and half the range that their middle half spans.

    Raises:
        ValueError: If ``repeats`` is below 2.
    """
    if repeats < 2:
        raise ValueError(f'repeats must be 2 or more to tell a spread, got {repeats}.')
    a()
    b()
    ratios = []
    with _no_garbage_collection():
        for pair in range(repeats):
            if pair % 2:
                time_b, time_a = seconds(b), seconds(a)
            else:
                time_a, time_b = seconds(a), seconds(b)
            ratios.append(time_a / time_b)
    low, median, high = statistics.quantiles(ratios, n=4, method='inclusive')
    return median, (high - low) / 2
