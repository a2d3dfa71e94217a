"""Content of the file of measured costs, `mmsnnet.results.latency_file`."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Mapping
from typing import Any

import torch

from mmsnnet import version
from mmsnnet.results.fingerprint import fingerprint_text
from mmsnnet.stitching import StitchSpace

from .measure import Latency, spread


def describe_setting(
    device: torch.device, image_size: tuple[int, int], batch: int, autocast: bool
) -> dict[str, Any]:
    """What a measurement depends on besides the model."""
    if device.type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        name = platform.processor() or platform.machine()
    one = torch.ones(1, 1, device=device)
    with torch.autocast(device.type, enabled=autocast):
        dtype = (one @ one).dtype
    return dict(
        device=device.type,
        device_name=name,
        dtype=str(dtype).removeprefix('torch.'),
        image_size=list(image_size),
        batch=batch,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        mmsnnet=version.__version__,
    )


def fingerprint_model(config: Mapping[str, Any]) -> str:
    """Hash of the config of a model."""
    return fingerprint_text(json.dumps(config, sort_keys=True, default=repr))


def summarise_latency(
    space: StitchSpace,
    latency: Latency,
    weights: Mapping[str, int],
    peaks: Mapping[str, int],
    direct_peaks: Mapping[str, int],
) -> dict[str, Any]:
    """Content of the file, but for what was measured where.

    Args:
        space: The stitches.
        latency: Their times.
        weights: Bytes of the weights that each needs.
        peaks: Composed peak of each in bytes, weights not counted.
        direct_peaks: The same as measured directly, of those that were.

    Returns:
        ``stitches``: a list of ``name``, ``ms`` (median over rounds), ``spread_ms`` (half the
        range of the middle half), ``mb`` (weights of the stitch and peak), ``activations_mb``
        (the peak); ``components``: milliseconds by component; ``check``: direct timings with the
        relative error of composing, in the median and at most; ``reliable``, and ``doubts``: why
        not; numbers of rounds and windows. Megabytes are 10^6 bytes.
    """
    doubts = latency.doubts()
    return dict(
        stitches=[
            _row(stitch.name, latency, weights[stitch.name], peaks[stitch.name])
            for stitch in space
        ],
        components={
            name: dict(ms=statistics.median(v), spread_ms=spread(v))
            for name, v in latency.components.items()
        },
        check=_check(latency, peaks, direct_peaks),
        reliable=not doubts,
        doubts=doubts,
        windows=latency.windows,
        rounds=len(next(iter(latency.components.values()))),
    )


def _row(name: str, latency: Latency, weights: int, peak: int) -> dict[str, Any]:
    """Entry of a stitch."""
    times = latency.composed[name]
    return dict(
        name=name,
        ms=statistics.median(times),
        spread_ms=spread(times),
        mb=(weights + peak) / 1e6,
        activations_mb=peak / 1e6,
    )


def _check(
    latency: Latency, peaks: Mapping[str, int], direct_peaks: Mapping[str, int]
) -> dict[str, Any]:
    """Errors of composing, by stitch and in sum."""
    errors = latency.errors()
    rows = [
        dict(
            name=name,
            direct_ms=statistics.median(latency.direct[name]),
            spread_ms=spread(latency.direct[name]),
            composed_ms=statistics.median(latency.composed[name]),
            error=error,
        )
        for name, error in errors.items()
    ]
    memory = {name: peaks[name] / direct - 1 for name, direct in direct_peaks.items()}

    def of(values: Mapping[str, float]) -> dict[str, float | None]:
        sizes = [abs(value) for value in values.values()]
        middle = statistics.median(sizes) if sizes else None
        return dict(median=middle, max=max(sizes, default=None))

    return dict(stitches=rows, latency_error=of(errors), memory_error=of(memory))
