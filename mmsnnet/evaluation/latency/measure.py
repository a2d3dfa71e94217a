"""Latency of every stitch, composed from parts that were timed inside running models.

A round times a few stitches that together run every part, each as a whole inference of the model
with head, resizing and windows, with marks between the parts of the backbone. The time of any
stitch in that round is the sum over its parts. Drift of the machine (clock, other work) moves
all parts of a round alike, so medians and spreads are taken over rounds of these sums, and errors
over rounds of the ratio to a direct timing in the same round.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmsnnet.models import StitchedViT
from mmsnnet.stitching import Stitch

from .parts import REST, StepTimer, WallClock, context_of, count_parts, covering_stitches


@dataclass
class Latency:
    """What was measured.

    Attributes:
        windows: Passes of the backbone in one inference (more than 1 when it slides).
        parts: Milliseconds of one instance of each part, a value a round.
        composed: Milliseconds of an inference of each stitch by name, a value a round.
        direct: The same as timed directly, of those stitches that were.
    """

    windows: int = 1
    parts: dict[str, list[float]] = field(default_factory=dict)
    composed: dict[str, list[float]] = field(default_factory=dict)
    direct: dict[str, list[float]] = field(default_factory=dict)

    def errors(self) -> dict[str, float]:
        """Relative error of the composed time of each stitch that was timed directly.

        It is the median over rounds of composed / direct, less 1.
        """
        return {
            name: statistics.median(c / d for c, d in zip(self.composed[name], times)) - 1
            for name, times in self.direct.items()
        }


def spread(values: Sequence[float]) -> float:
    """Half the range that the middle half of the values spans; 0 of less than two."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method='inclusive')
    return (high - low) / 2


class LatencyMeasurement:
    """Times a model.

    Args:
        backbone: Stitched backbone of the model.
        infer: Runs one inference of the model with the active stitch.
        clock: Marks the moments.
        direct: Stitches that are timed directly as well, to tell the error of composing.
    """

    def __init__(
        self,
        backbone: StitchedViT,
        infer: Callable[[], Any],
        clock: WallClock,
        direct: Sequence[Stitch] = (),
    ) -> None:
        self._backbone = backbone
        self._infer = infer
        self._clock = clock
        self._direct = list(direct)
        self._covering = covering_stitches(backbone.space)
        self._counts = {s.name: count_parts(backbone.space, s) for s in backbone.space}

    def run(
        self,
        rounds: int = 15,
        warmup: int = 2,
        max_seconds: float | None = None,
        on_round: Callable[[], None] = lambda: None,
    ) -> Latency:
        """Time some rounds; every other one runs its stitches in the opposite order.

        Args:
            rounds: Rounds that count.
            warmup: Rounds before, that do not.
            max_seconds: Stop early, but not before 3 rounds, when this much time has passed.
            on_round: Called after each round.

        Raises:
            ValueError: If there are no rounds.
        """
        if rounds < 1 or warmup < 0:
            raise ValueError(f'rounds must be 1 or more, and warm-up rounds 0 or more, got '
                             f'{rounds} and {warmup}.')  # fmt: skip
        latency = Latency()
        start = time.monotonic()
        for number in range(-warmup, rounds):
            taken = self._round(backwards=bool(number % 2))
            if number >= 0:
                self._add(latency, *taken)
            on_round()
            late = max_seconds is not None and time.monotonic() - start > max_seconds
            if late and number >= min(rounds, 3) - 1:
                break
        return latency

    def _round(self, backwards: bool) -> tuple[dict[str, float], int, dict[str, float]]:
        """Milliseconds of each part, passes of the backbone, and directly timed stitches."""
        jobs = [(stitch, True) for stitch in self._covering]
        jobs += [(stitch, False) for stitch in self._direct]
        samples, direct, windows = [], {}, 1
        for stitch, in_parts in reversed(jobs) if backwards else jobs:
            with self._backbone.use_stitch(stitch):
                if in_parts:
                    sample, windows = self._time_parts()
                    samples.append(sample)
                else:
                    direct[stitch.name] = self._time_whole()
        return mean_parts(samples), windows, direct

    def _time_whole(self) -> float:
        self._clock.synchronize()
        start = self._clock.mark()
        self._infer()
        stop = self._clock.mark()
        self._clock.synchronize()
        return self._clock.milliseconds(start, stop)

    def _time_parts(self) -> tuple[list[tuple[str, int, float]], int]:
        """Stretches of one inference, with what is left of its time as ``REST``."""
        timer = StepTimer(self._backbone, self._clock)
        self._backbone.prefix_cache = timer
        try:
            total = self._time_whole()
        finally:
            self._backbone.prefix_cache = None
        windows = timer.calls
        sample = timer.take()
        return [*sample, (REST, 1, total - sum(ms for *_, ms in sample))], windows

    def _add(
        self, latency: Latency, parts: Mapping[str, float], windows: int, direct: Mapping
    ) -> None:
        latency.windows = windows
        for name, value in parts.items():
            latency.parts.setdefault(name, []).append(value)
        for name, counts in self._counts.items():
            latency.composed.setdefault(name, []).append(compose(parts, counts, windows))
        for name, value in direct.items():
            latency.direct.setdefault(name, []).append(value)


def mean_parts(samples: Sequence[Sequence[tuple[str, int, float]]]) -> dict[str, float]:
    """Mean milliseconds of one instance of each part over the stretches of some inferences.

    Means, not medians: a sum of means is the mean of the sums, which is what a stitch takes. A
    stretch of blocks computed its context once; that is taken off.

    Args:
        samples: For each inference (part, instances, milliseconds) of its stretches.
    """
    milliseconds, instances, runs = Counter(), Counter(), Counter()
    for name, count, ms in (stretch for sample in samples for stretch in sample):
        milliseconds[name] += ms
        instances[name] += count
        runs[name] += 1
    means = {name: milliseconds[name] / instances[name] for name in milliseconds}
    for name in means:
        if name.startswith('block '):
            context = runs[name] * means[context_of(name)]
            means[name] = (milliseconds[name] - context) / instances[name]
    return means


def compose(parts: Mapping[str, float], counts: Mapping[str, int], windows: int = 1) -> float:
    """Milliseconds of an inference from those of its parts.

    Args:
        parts: Milliseconds of one instance of each part.
        counts: Instances in one pass of the backbone.
        windows: Passes in one inference.
    """
    return parts[REST] + windows * sum(parts[name] * count for name, count in counts.items())
