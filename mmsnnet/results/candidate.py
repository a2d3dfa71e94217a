"""A stitch to choose among, with what is known of its cost and quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Axes of cost: what a number on each is counted in.
UNITS = {'gflops': 'GFLOPs', 'params': 'M parameters', 'ms': 'ms', 'mb': 'MB'}


@dataclass(frozen=True)
class Candidate:
    """A stitch with what is known of it.

    Attributes:
        name: Name of the stitch.
        family: Labels of its segments.
        flops: Multiply-adds for one image.
        params: Parameters that take part.
        quality: Value of the metric; NaN when it has none or was not scored.
        ms: Measured milliseconds, if known.
        mb: Megabytes (10^6 bytes) that it takes, if known.
        metrics: All its metrics.
    """

    name: str
    family: str
    flops: int
    params: int
    quality: float = float('nan')
    ms: float | None = None
    mb: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict, compare=False)

    def cost(self, axis: str) -> float | None:
        """Cost on an axis of ``UNITS``; None where it was not measured."""
        known = dict(gflops=self.flops / 1e9, params=self.params / 1e6, ms=self.ms, mb=self.mb)
        return known[axis]


def check_axis(axis: str) -> str:
    """The axis itself.

    Raises:
        ValueError: If it is unknown.
    """
    if axis not in UNITS:
        raise ValueError(f'Unknown cost {axis!r}; choose one of {", ".join(UNITS)}.')
    return axis
