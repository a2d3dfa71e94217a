"""Which stitch to run next so that frames keep a deadline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol


class Switchable(Protocol):
    """What a controller steers: a session, a loaded model or a backbone."""

    def set_stitch(self, stitch: str) -> object:
        """Run a stitch from now on."""


def quality_ladder(
    latency: Mapping[str, float], quality: Mapping[str, float] | None = None
) -> tuple[str, ...]:
    """Stitches worth running, from fast to slow.

    Args:
        latency: Milliseconds of each stitch.
        quality: Metric of each, of which more is better; None climbs by latency alone. Stitches
            that a faster one equals, and those without a number, are left out.

    Raises:
        ValueError: If there is no stitch, or a latency is not a positive number.
    """
    wrong = [name for name, ms in latency.items() if not (ms > 0 and math.isfinite(ms))]
    if wrong or not latency:
        shown = f'{wrong[0]} has {latency[wrong[0]]!r}' if wrong else 'there is none'
        raise ValueError(f'Each stitch needs a latency above 0 ms; {shown}.')
    ordered = sorted(latency, key=lambda name: (latency[name], name))
    if quality is None:
        return tuple(ordered)
    ladder, best = [], -math.inf
    for name in ordered:
        value = quality.get(name, math.nan)
        if value > best:  # False for NaN
            ladder.append(name)
            best = value
    if not ladder:
        raise ValueError('None of the stitches with a latency has a quality.')
    return tuple(ladder)


class BudgetController:
    """Chooses the stitch of each frame: fast down, patient up.

    The latency of stitch s is taken to be ``load * latency[s]``. The estimate of ``load`` follows
    observations that exceed it fast and those below it slowly, so it stays near the upper end
    of what is seen. The costliest stitch that keeps the deadline with a margin runs; a cheaper
    one is taken immediately, a costlier one after it has fitted for ``patience`` frames in a row,
    and later still each time a climb was followed by a miss. It depends on nothing but what it
    observes: without :meth:`frame` no clock is read.

    Args:
        target: Whose ``set_stitch`` is called on each change; None for a caller that reads
            :attr:`stitch`.
        latency: Milliseconds of each stitch on this device when it is idle.
        quality: Metric of each stitch, of which more is better; see :func:`quality_ladder`.
        deadline_ms: Longest that a frame may take, in milliseconds.
        fps: Frames a second to keep up with, in place of ``deadline_ms``.
        margin: Share of the deadline that is left free.
        patience: Frames that a costlier stitch must fit before it is taken.
        clock: Seconds, for :meth:`frame`.

    Raises:
        ValueError: If not exactly one of deadline and fps is given, or a value is not possible.

    Attributes:
        stitch: Name of the stitch to run.
        load: Estimated latency over that of the idle device.
        attainable: Whether some stitch is expected to keep the deadline. If not, the cheapest
            runs.
        frames: Frames observed.
        misses: Those that took longer than the deadline.
        switches: Changes of the stitch.
    """

    #: Share of an excess of load that one observation adds, and of a lack that one takes off.
    RISE, FALL = 0.7, 0.2
    #: Longest patience after failed climbs, as a multiple of ``patience``.
    MAX_BACKOFF = 4

    def __init__(
        self,
        target: Switchable | None = None,
        *,
        latency: Mapping[str, float],
        quality: Mapping[str, float] | None = None,
        deadline_ms: float | None = None,
        fps: float | None = None,
        margin: float = 0.02,
        patience: int = 6,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.deadline_ms = _deadline(deadline_ms, fps)
        if not 0 <= margin < 1:
            raise ValueError(f'margin={margin} is not possible: it must be in [0, 1).')
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ValueError(f'patience={patience!r} must be 1 or more frames.')
        self.ladder = quality_ladder(latency, quality)
        self._latency = [float(latency[name]) for name in self.ladder]
        self._target = target
        self._limit = self.deadline_ms * (1 - margin)
        self._patience = patience
        self._clock = clock
        self.load = 1.0
        self.frames = self.misses = self.switches = 0
        self._rung = -1
        self._fitting = 0  # frames in a row that a costlier stitch has fitted
        self._backoff = 1
        self._since_climb = 0
        self._move(self._highest())

    @classmethod
    def of_session(cls, session: Any, **settings: Any) -> BudgetController:
        """Controller of a :class:`~mmsnnet.runtime.StitchSession`.

        Latencies are those of its ``measure()``, which is called if it was not, and qualities
        those in its file.

        Args:
            session: The session.
            settings: The deadline, and whatever else the class takes.

        Raises:
            ValueError: As the class does.
        """
        if not session.latency:
            session.measure()
        latency = {name: one.median_ms for name, one in session.latency.items()}
        return cls(session, **{'latency': latency, 'quality': session.qualities(), **settings})

    @classmethod
    def of_model(cls, model: Any, **settings: Any) -> BudgetController:
        """Controller of a model of ``mmsnnet.init_model(..., latency=FILE)``.

        Latencies are those of the file, and qualities those of its ``results=``, if given.

        Args:
            model: The loaded model.
            settings: The deadline, and whatever else the class takes.

        Raises:
            ValueError: If the model knows no latency, and as the class does.
        """
        chooser = model.chooser
        latency = {one.name: one.ms for one in chooser.candidates if one.ms is not None}
        if not latency:
            raise ValueError(
                'The model knows no latency: load it with latency=FILE of tools/measure_latency.py.'
            )
        sign = 1 if chooser.rule == 'greater' else -1
        quality = {one.name: sign * one.quality for one in chooser.candidates}
        quality = None if chooser.metric is None else quality
        return cls(model, **{'latency': latency, 'quality': quality, **settings})

    @property
    def stitch(self) -> str:
        """Name of the stitch to run."""
        return self.ladder[self._rung]

    @property
    def attainable(self) -> bool:
        """Whether the cheapest stitch is expected to keep the deadline."""
        return self._latency[0] * self.load <= self.deadline_ms

    @contextmanager
    def frame(self) -> Iterator[str]:
        """Measure a frame: run it in the ``with`` block, whose value is the stitch's name."""
        start = self._clock()
        yield self.stitch
        self.observe(1000 * (self._clock() - start))

    def observe(self, ms: float) -> str:
        """Take in how long the last frame took, and choose the stitch of the next.

        Args:
            ms: Milliseconds that it took, with the stitch that was chosen for it.

        Returns:
            Name of the stitch of the next frame.

        Raises:
            ValueError: If it is not a number of 0 or more.
        """
        if not 0 <= ms < math.inf:
            raise ValueError(f'A frame cannot take {ms!r} ms.')
        seen = ms / self._latency[self._rung]
        self.load += (self.RISE if seen > self.load else self.FALL) * (seen - self.load)
        self.frames += 1
        missed = ms > self.deadline_ms
        self.misses += missed
        self._learn(missed)
        self._follow(self._highest())
        return self.stitch

    def _learn(self, missed: bool) -> None:
        """Be more patient after a climb that led to a miss, and less after one that held."""
        self._since_climb += 1
        if missed and self._since_climb <= 2 * self._patience:
            self._backoff = min(2 * self._backoff, self.MAX_BACKOFF)
            self._since_climb = 2 * self._patience + 1  # one miss, one lesson
        elif self._since_climb > 10 * self._patience * self._backoff and self._backoff > 1:
            self._backoff //= 2
            self._since_climb = 2 * self._patience + 1

    def _highest(self) -> int:
        """Costliest rung that keeps the deadline, or the cheapest."""
        rung = 0
        while rung + 1 < len(self._latency) and self._latency[rung + 1] * self.load <= self._limit:
            rung += 1
        return rung

    def _follow(self, wanted: int) -> None:
        if wanted < self._rung:
            self._move(wanted)
        elif wanted > self._rung:
            self._fitting += 1
            if self._fitting >= self._patience * self._backoff:
                self._move(wanted)
                self._since_climb = 0
        else:
            self._fitting = 0

    def _move(self, rung: int) -> None:
        self.switches += self._rung >= 0 and rung != self._rung
        self._rung, self._fitting = rung, 0
        if self._target is not None:
            self._target.set_stitch(self.stitch)


def _deadline(deadline_ms: float | None, fps: float | None) -> float:
    """Deadline in milliseconds.

    Raises:
        ValueError: If not exactly one is given, or it is not positive.
    """
    if (deadline_ms is None) == (fps is None):
        raise ValueError('Give deadline_ms= or fps=, one of them.')
    value = fps if deadline_ms is None else deadline_ms
    if isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(
            f'{"fps" if deadline_ms is None else "deadline_ms"}={value!r} must be above 0.'
        )
    return 1000.0 / value if deadline_ms is None else float(value)
