"""CPU time of the process, which other processes on a busy machine stretch less than wall time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def cpu_seconds(run: Callable[[], Any]) -> float:
    """CPU-seconds of one call, summed over the threads of this process.

    Where a GPU is in use, wall-clock seconds until it is through with the call.
    """
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    run()
    return time.process_time() - start


def paired_cpu_ratio(
    a: Callable[[], Any], b: Callable[[], Any], repeats: int
) -> tuple[float, float, float]:
    """How many times more CPU time ``a`` takes than ``b``, from pairs right after each other.

    Each is called once before, to warm up; every other pair runs ``b`` first.

    Returns:
        Median of the ratios of the pairs, half the range that their middle half spans, and the
        median of the CPU-seconds of ``a``.
    """
    a()
    b()
    pairs = []
    for number in range(repeats):
        if number % 2:
            time_b, time_a = cpu_seconds(b), cpu_seconds(a)
        else:
            time_a, time_b = cpu_seconds(a), cpu_seconds(b)
        pairs.append((time_a, time_b))
    low, median, high = statistics.quantiles(
        [time_a / time_b for time_a, time_b in pairs], n=4, method='inclusive'
    )
    return median, (high - low) / 2, statistics.median(time_a for time_a, _ in pairs)
