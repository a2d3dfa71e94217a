"""Latency of every stitch, composed from components that were timed inside running models.

A round times a few stitches that together run every component, each as a whole inference of the
model with head, resizing and windows, with marks between the components of the backbone. The time
of any stitch in that round is the sum over its components. Drift of the machine (clock, other
work) moves all components of a round alike, so medians and spreads are taken over rounds of these
sums, and errors over rounds of the ratio to a direct timing in the same round.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mmsnnet.models import RunState, StitchedViT
from mmsnnet.stitching import Block, Step, Stitch

from .components import (
    REST,
    context_of,
    count_components,
    covering_stitches,
    stretches,
)

#: A measurement is repeated this often at most while it is not reliable.
MAX_ATTEMPTS = 3
#: Relative error of composing, of any stitch timed directly, beyond which it is not reliable.
MAX_ERROR = 0.25
#: Spread over rounds, relative to the median and of any stitch, beyond which it is not.
MAX_SPREAD = 0.25
#: Rounds below which nothing is known of the spread.
MIN_ROUNDS = 3


@dataclass
class Latency:
    """What was measured.

    Attributes:
        windows: Passes of the backbone in one inference (more than 1 when it slides).
        components: Milliseconds of one instance of each component, a value a round.
        composed: Milliseconds of an inference of each stitch by name, a value a round.
        direct: The same as timed directly, of those stitches that were.
    """

    windows: int = 1
    components: dict[str, list[float]] = field(default_factory=dict)
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

    def doubts(self) -> list[str]:
        """Why the figures cannot be relied upon, one clause a reason; empty if they can."""
        rounds = len(next(iter(self.composed.values())))
        error = max(map(abs, self.errors().values()), default=0.0)
        spreads = {name: relative_spread(times) for name, times in self.composed.items()}
        widest = max(spreads, key=spreads.get)
        doubts = []
        if rounds < MIN_ROUNDS:
            doubts.append(f'{rounds} round(s) show no spread, {MIN_ROUNDS} are needed')
        if not error <= MAX_ERROR:
            doubts.append(f'composed and direct timings differ by {error:.0%}')
        if not spreads[widest] <= MAX_SPREAD:
            doubts.append(f'{widest} spreads by {spreads[widest]:.0%} over rounds')
        return doubts

    def worst(self) -> float:
        """Largest relative error or spread of any stitch: what to compare measurements by."""
        spreads = map(relative_spread, self.composed.values())
        return max([*spreads, *map(abs, self.errors().values())])


def spread(values: Sequence[float]) -> float:
    """Half the range that the middle half of the values spans; 0 of less than two."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method='inclusive')
    return (high - low) / 2


def relative_spread(values: Sequence[float]) -> float:
    """:func:`spread` over the median; infinite where the median is no time."""
    median = statistics.median(values)
    return spread(values) / median if median > 0 else math.inf


class WallClock:
    """Marks moments on the CPU."""

    def mark(self) -> Any:
        """Now."""
        return time.perf_counter()

    def milliseconds(self, start: Any, stop: Any) -> float:
        """Milliseconds between two marks."""
        return (stop - start) * 1e3

    def synchronize(self) -> None:
        """Wait for work under way: none."""


class CudaClock(WallClock):
    """Marks moments in the current stream of a CUDA device, without delaying what runs there.

    Args:
        device: The device; it need not be the current one of the process.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> torch.cuda.Event:
        """An event behind all work queued so far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def milliseconds(self, start: torch.cuda.Event, stop: torch.cuda.Event) -> float:
        """Milliseconds between two events that have passed."""
        return start.elapsed_time(stop)

    def synchronize(self) -> None:
        """Wait for all work queued on the device."""
        torch.cuda.synchronize(self._device)


def clock_of(device: torch.device) -> WallClock:
    """Clock of a device, 'cpu' or 'cuda'."""
    return CudaClock(device) if device.type == 'cuda' else WallClock()


class ProgramTimer:
    """Runs programs for a backbone component by component and marks the moments between.

    Args:
        backbone: The backbone.
        clock: Marks the moments.

    Attributes:
        calls: Programs run so far.
    """

    def __init__(self, backbone: StitchedViT, clock: WallClock) -> None:
        self._backbone = backbone
        self._clock = clock
        self._marks: list[tuple[str, int, Any, Any]] = []
        self.calls = 0

    def advance(self, state: RunState, program: Sequence[Step]) -> RunState:
        """State behind a whole program."""
        backbone, clock = self._backbone, self._clock
        self.calls += 1
        before = clock.mark()
        for name, steps in stretches(backbone.space, program):
            state = backbone.advance(state, steps)
            after = clock.mark()
            self._marks.append((name, len(steps), before, after))
            before = after
        for anchor in sorted({step.anchor for step in program if isinstance(step, Block)}):
            backbone.anchor(anchor).context(backbone.grid(state.images))
            after = clock.mark()
            self._marks.append((f'context {backbone.space.labels[anchor]}', 1, before, after))
            before = after
        return state

    def take(self) -> list[tuple[str, int, float]]:
        """Component, instances and milliseconds of each stretch so far, forgotten thereby."""
        self._clock.synchronize()
        marks, self._marks, self.calls = self._marks, [], 0
        return [(name, n, self._clock.milliseconds(a, b)) for name, n, a, b in marks]


class LatencyMeasurement:
    """Times a model.

    Args:
        backbone: Stitched backbone of the model.
        infer: Runs one inference of the model with the active stitch.
        clock: Marks the moments.
        direct: Stitches that are timed directly as well, which gives the error of composing.
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
        self._counts = {s.name: count_components(backbone.space, s) for s in backbone.space}

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

    def run_until_reliable(
        self,
        rounds: int = 15,
        warmup: int = 2,
        max_seconds: float | None = None,
        on_round: Callable[[], None] = lambda: None,
    ) -> Latency:
        """Time some rounds, and anew while the outcome is not reliable; the best attempt counts.

        There are at most ``MAX_ATTEMPTS``, each within ``max_seconds``. See :meth:`run`.
        """
        attempts: list[Latency] = []
        # Too few rounds stay too few.
        while len(attempts) < (MAX_ATTEMPTS if rounds >= MIN_ROUNDS else 1):
            attempts.append(self.run(rounds, warmup, max_seconds, on_round))
            if not attempts[-1].doubts():
                return attempts[-1]
        return min(attempts, key=Latency.worst)

    def _round(self, backwards: bool) -> tuple[dict[str, float], int, dict[str, float]]:
        """Milliseconds of each component, passes of the backbone, directly timed stitches."""
        jobs = [(stitch, True) for stitch in self._covering]
        jobs += [(stitch, False) for stitch in self._direct]
        samples, direct, windows = [], {}, 1
        for stitch, by_component in reversed(jobs) if backwards else jobs:
            with self._backbone.use_stitch(stitch):
                if by_component:
                    sample, windows = self._time_components()
                    samples.append(sample)
                else:
                    direct[stitch.name] = self._time_whole()
        return mean_components(samples), windows, direct

    def _time_whole(self) -> float:
        self._clock.synchronize()
        start = self._clock.mark()
        self._infer()
        stop = self._clock.mark()
        self._clock.synchronize()
        return self._clock.milliseconds(start, stop)

    def _time_components(self) -> tuple[list[tuple[str, int, float]], int]:
        """Stretches of one inference, with what is left of its time as ``REST``."""
        timer = ProgramTimer(self._backbone, self._clock)
        with self._backbone.use_executor(timer):
            total = self._time_whole()
        windows = timer.calls
        sample = timer.take()
        return [*sample, (REST, 1, total - sum(ms for *_, ms in sample))], windows

    def _add(
        self, latency: Latency, components: Mapping[str, float], windows: int, direct: Mapping
    ) -> None:
        latency.windows = windows
        for name, value in components.items():
            latency.components.setdefault(name, []).append(value)
        for name, counts in self._counts.items():
            latency.composed.setdefault(name, []).append(compose(components, counts, windows))
        for name, value in direct.items():
            latency.direct.setdefault(name, []).append(value)


def mean_components(samples: Sequence[Sequence[tuple[str, int, float]]]) -> dict[str, float]:
    """Mean milliseconds of one instance of each component over stretches of some inferences.

    Means, not medians: a sum of means is the mean of the sums, which is what a stitch takes. A
    stretch of blocks computed its context once; that is taken off.

    Args:
        samples: For each inference (component, instances, milliseconds) of its stretches.
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


def compose(components: Mapping[str, float], counts: Mapping[str, int], windows: int = 1) -> float:
    """Milliseconds of an inference from those of its components.

    Args:
        components: Milliseconds of one instance of each component.
        counts: Instances in one pass of the backbone.
        windows: Passes in one inference.
    """
    inside = sum(components[name] * count for name, count in counts.items())
    return components[REST] + windows * inside
