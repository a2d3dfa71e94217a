"""An exported model at run time: numpy in, numpy out, and a choice of stitches."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmsnnet.results.candidate import Candidate
from mmsnnet.results.chooser import Chooser

from .backends import Backend, open_file
from .metadata import ModelMetadata, StitchEntry


@dataclass(frozen=True)
class MeasuredLatency:
    """How long a stitch of the file took on this device.

    Batches ran back to back. Where the last quarter of them has a clearly lower throughput than
    the first, the device does not sustain the load: it is throttled, or shared.

    Attributes:
        median_ms: Median milliseconds of a batch.
        p90_ms: 90 % of the batches took at most this.
        images_per_second: Throughput over the whole measurement.
        batch: Images in a batch.
        first_per_second: Images a second over the first quarter of the batches.
        last_per_second: The same over the last quarter.
        seconds: How long it was measured.
        threads: Threads that computed; None where onnxruntime chose (its default are the physical
            cores).
    """

    median_ms: float
    p90_ms: float
    images_per_second: float
    batch: int = 1
    first_per_second: float = math.nan
    last_per_second: float = math.nan
    seconds: float = math.nan
    threads: int | None = None


class StitchSession:
    """A file of ``tools/export_stitch.py``, loaded to be run without torch.

    Args:
        file: ONNX file, or .xml file of OpenVINO.
        stitch: What runs at first; None is the costliest of the file.
        threads: Threads to compute with; None leaves it to the library.
        providers: onnxruntime's execution providers, or OpenVINO's device.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If onnxruntime or OpenVINO is not installed.
        ValueError: If the file is none that mmsnnet exported, or has no such stitch.

    Attributes:
        metadata: What the file says of itself.
        latency: Result of :meth:`measure` by name of the stitch; empty before.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        *,
        stitch: str | None = None,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        self._backend: Backend = open_file(file, threads, providers)
        self.metadata: ModelMetadata = self._backend.metadata
        self._entries = {entry.name: entry for entry in self.metadata.stitches}
        self._index = {name: number for number, name in enumerate(self._entries)}
        self.latency: dict[str, MeasuredLatency] = {}
        self._stitch = max(self._entries.values(), key=lambda entry: entry.flops).name
        if stitch is not None:
            self.set_stitch(stitch)

    @property
    def stitches(self) -> tuple[str, ...]:
        """Names of the file's stitches; the position of each is its number in the graph."""
        return tuple(self._entries)

    @property
    def stitch(self) -> str:
        """Name of the active stitch."""
        return self._stitch

    def set_stitch(self, stitch: str) -> StitchEntry:
        """Run a stitch from now on; it takes effect with the next call, at no cost.

        Raises:
            ValueError: If the file has no such stitch; the active one stays.
        """
        entry = self._entry(stitch)
        self._stitch = entry.name
        return entry

    def _entry(self, stitch: str) -> StitchEntry:
        if stitch not in self._entries:
            names = ', '.join(self.stitches[:8]) + (', ...' if len(self.stitches) > 8 else '')
            raise ValueError(
                f'This file has no stitch {stitch!r}; it has {len(self._entries)}: {names}.'
            )
        return self._entries[stitch]

    def set_budget(
        self,
        gflops: float | None = None,
        ms: float | None = None,
        params: float | None = None,
    ) -> StitchEntry:
        """Run the best stitch that keeps a budget from now on.

        Without metrics in the file it is the one of most FLOPs within the budget.

        Args:
            gflops: Most GFLOPs of the whole model for one image.
            ms: Most milliseconds, as :meth:`measure` found on this device.
            params: Most parameters, in millions.

        Raises:
            ValueError: If no stitch keeps it, or nothing was measured; the active stitch stays.
        """
        if ms is not None and not self.latency:
            raise ValueError('A budget in ms needs the latency here: call measure() first.')
        return self.set_stitch(self.chooser().within(gflops=gflops, ms=ms, params=params).name)

    def chooser(self) -> Chooser:
        """All that is known of the stitches: costs, metrics, and latency once measured."""
        latency = {name: one.median_ms for name, one in self.latency.items()}
        return chooser_of(self.metadata, latency)

    def qualities(self) -> dict[str, float] | None:
        """Metric of each stitch with its sign such that more is better; None without metrics."""
        metric, sign = self.metadata.metric, 1 if self.metadata.rule == 'greater' else -1
        found = {
            name: sign * _number(entry.metrics.get(metric))
            for name, entry in self._entries.items()
            if metric is not None
        }
        return found if any(value == value for value in found.values()) else None

    def __call__(
        self, images: np.ndarray, stitch: str | None = None
    ) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run a stitch. Several threads may do so at once.

        Args:
            images: Batch of pictures, uint8 (B, H, W, C) in the metadata's channel order, or one
                (H, W, C); or float32 (B, C, H, W), normalised already. Sizes must be the file's
                unless it takes any.
            stitch: Name of the stitch for this call alone; None is the active one.

        Returns:
            The output, or a tuple of all where the file has several.

        Raises:
            TypeError: If images are no array of one of these types.
            ValueError: If their shape does not fit, or the file has no such stitch.
        """
        name = self._stitch if stitch is None else self._entry(stitch).name
        feed = {'images': self._prepare(images)}
        if 'stitch' in self._backend.inputs:
            feed['stitch'] = np.array(self._index[name], dtype=np.int64)
        outputs = self._backend.run(feed)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _prepare(self, images: np.ndarray) -> np.ndarray:
        """Images as the graph takes them."""
        if not isinstance(images, np.ndarray) or images.dtype not in (np.uint8, np.float32):
            kind = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
            raise TypeError(f'images must be an array of uint8 or float32, got {kind}.')
        if images.dtype == np.uint8:
            images = images[None] if images.ndim == 3 else images
            if images.ndim != 4 or images.shape[-1] != len(self.metadata.mean):
                raise ValueError(
                    f'Pictures must be (B, H, W, {len(self.metadata.mean)}), got {images.shape}.'
                )
            if self.metadata.preprocessing:
                return np.ascontiguousarray(images)
            mean = np.asarray(self.metadata.mean, np.float32)
            std = np.asarray(self.metadata.std, np.float32)
            images = ((images.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2)
        elif self.metadata.preprocessing:
            raise TypeError('This file normalises by itself: give pictures of uint8 (B, H, W, C).')
        return np.ascontiguousarray(self._checked(images))

    def _checked(self, images: np.ndarray) -> np.ndarray:
        channels, size = len(self.metadata.mean), tuple(self.metadata.image_size)
        wanted = f'(B, {channels}, {size[0]}, {size[1]})'
        if images.ndim != 4 or images.shape[1] != channels or 0 in images.shape:
            raise ValueError(f'Images must be {wanted}, got {images.shape}.')
        if images.shape[2:] != size and not self.metadata.dynamic_size:
            raise ValueError(
                f'This file takes images of {size[0]} x {size[1]} pixels, got '
                f'{images.shape[2]} x {images.shape[3]}: resize them, or export with '
                '--dynamic-size or --with-preprocessing.'
            )
        return images

    def measure(
        self,
        stitches: Iterable[str] | None = None,
        *,
        batch: int = 1,
        repeats: int = 20,
        seconds: float = 0.0,
        warmup: int = 3,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Mapping[str, MeasuredLatency]:
        """Measure stitches of this very file on this device, batches back to back.

        Afterwards ``set_budget(ms=...)`` chooses among them. The active stitch stays.

        Args:
            stitches: Names; None takes all of the file.
            batch: Images in a batch.
            repeats: Least number of batches that are timed for each stitch.
            seconds: How long each stitch runs at least; some minutes show what the device sustains.
            warmup: Batches before that.
            clock: Seconds.

        Returns: Latency by name, also kept in :attr:`latency`.

        Raises:
            ValueError: If a number is not possible or there is no such stitch.
        """
        _check_count('batch', batch, 1)
        _check_count('repeats', repeats, 1)
        _check_count('warmup', warmup, 0)
        if not 0 <= seconds < math.inf:
            raise ValueError(f'seconds={seconds!r} must be 0 or more.')
        images, found = self._noise(batch), {}
        for name in [self._entry(one).name for one in stitches or self.stitches]:
            for _ in range(warmup):
                self(images, name)
            times = _times(lambda name=name: self(images, name), repeats, seconds, clock)
            found[name] = _summary(times, batch, self._backend.threads)
        self.latency.update(found)
        return found

    def _noise(self, batch: int) -> np.ndarray:
        """Pictures of noise, of the size that the file was exported for."""
        shape = (batch, *self.metadata.image_size, len(self.metadata.mean))
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def chooser_of(metadata: ModelMetadata, latency: Mapping[str, float] | None = None) -> Chooser:
    """Chooser among the stitches of an exported file.

    Args:
        metadata: What the file says of them.
        latency: Milliseconds by name; where some are given, the stitches without are left out.
    """
    latency = latency or {}
    candidates = [
        Candidate(
            entry.name,
            entry.family,
            entry.flops,
            entry.params,
            _number(entry.metrics.get(metadata.metric)),
            latency.get(entry.name),
            metrics=entry.metrics,
        )
        for entry in metadata.stitches
        if not latency or entry.name in latency
    ]
    scored = metadata.metric is not None and any(one.quality == one.quality for one in candidates)
    return Chooser(candidates, metadata.metric if scored else None, metadata.rule)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _check_count(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f'{name}={value!r} must be {least} or more.')


def _times(
    run: Callable[[], object], repeats: int, seconds: float, clock: Callable[[], float]
) -> np.ndarray:
    """How long each of some runs took, in seconds; there are enough to fill a time."""
    ticks = [clock()]
    while len(ticks) <= repeats or ticks[-1] - ticks[0] < seconds:
        run()
        ticks.append(clock())
    return np.diff(ticks)


def _summary(seconds: np.ndarray, batch: int, threads: int | None) -> MeasuredLatency:
    def per_second(part: np.ndarray) -> float:
        total = float(part.sum())
        return len(part) * batch / total if total > 0 else math.inf

    quarter = -(-len(seconds) // 4)
    return MeasuredLatency(
        median_ms=1000 * float(np.median(seconds)),
        p90_ms=1000 * float(np.quantile(seconds, 0.9)),
        images_per_second=per_second(seconds),
        batch=batch,
        first_per_second=per_second(seconds[:quarter]),
        last_per_second=per_second(seconds[-quarter:]),
        seconds=float(seconds.sum()),
        threads=threads,
    )
