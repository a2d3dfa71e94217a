"""How far an exported model agrees with the one it was made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np


class Bars(NamedTuple):
    """Least agreement that a precision must keep.

    Attributes:
        labels: Share of equal labels.
        relative: Largest relative difference; None where numbers are meant to differ.
        rmse: Largest root mean square difference over that of the values, where there are no
            labels to count; None where the relative difference is stricter.
    """

    labels: float
    relative: float | None
    rmse: float | None


BARS: dict[str, Bars] = {
    'extracted': Bars(0.9999, 1e-5, None),
    'fp32': Bars(0.9999, 1e-4, None),
    'fp16': Bars(0.999, None, 0.005),
    'int8': Bars(0.985, None, 0.05),
}


@dataclass(frozen=True)
class Agreement:
    """Differences of outputs over some images.

    Attributes:
        relative: Largest absolute difference over the largest absolute value expected; None where
            labels come out.
        labels: Share of pixels (or images) with the same class; None where there are no classes.
        images: Number of images compared.
        rmse: Root mean square of the difference over that of the values expected, of the output
            where it is largest; None where labels come out.
    """

    relative: float | None
    labels: float | None
    images: int
    rmse: float | None = None

    def __str__(self) -> str:
        parts = [] if self.relative is None else [f'relative difference {self.relative:.2e}']
        parts += [] if self.rmse is None else [f'root mean square {self.rmse:.2e}']
        parts += [] if self.labels is None else [f'{100 * self.labels:.3f} % equal labels']
        return f'{", ".join(parts)} over {self.images} images'

    def as_dict(self) -> dict[str, float | int | None]:
        """Fields by name."""
        return asdict(self)

    def check(self, precision: str, what: object, hint: str = '') -> Agreement:
        """The agreement itself.

        Args:
            precision: Key of ``BARS``.
            what: What was exported, to be named.
            hint: What to add to the message of a failure.

        Raises:
            ValueError: If it is below the bars.
        """
        bars = BARS[precision]
        relative = 0.0 if self.relative is None else self.relative
        kept = [
            self.labels is None or self.labels >= bars.labels,
            bars.relative is None or relative <= bars.relative,
            self.labels is not None or self._is_close(bars),
            np.isfinite(relative),
        ]
        if not all(kept):
            needed = [f'{100 * bars.labels:g} % of labels'] if self.labels is not None else []
            if bars.relative is not None:
                needed.append(f'a relative difference of {bars.relative:g}')
            elif self.labels is None:
                needed.append(f'a root mean square difference of {bars.rmse:g} of the values')
            raise ValueError(
                f'{what} does not compute what the model does: {self}; {precision} must keep '
                f'{" and ".join(needed)}.{hint}'
            )
        return self

    def _is_close(self, bars: Bars) -> bool:
        return bars.rmse is None or self.rmse is None or self.rmse <= bars.rmse


Outputs = Sequence[np.ndarray]


def compare(
    run: Callable[[np.ndarray], Outputs],
    expected: Callable[[np.ndarray], Outputs],
    batches: Iterable[np.ndarray],
    has_classes: bool,
) -> Agreement:
    """Agreement of two models on images.

    Args:
        run: Outputs of the exported model for images (B, C, H, W).
        expected: Outputs of the original.
        batches: Images.
        has_classes: Whether the first output holds logits (B, classes, ...), or labels where it is
            of integers.

    Raises:
        ValueError: If shapes differ or there are no images.
    """
    found = _Differences()
    equal = labels = images = 0
    for batch in batches:
        got, wanted = run(batch), expected(batch)
        shapes = [[one.shape for one in outputs] for outputs in (got, wanted)]
        if shapes[0] != shapes[1]:
            raise ValueError(f'The exported model gives {shapes[0]} where {shapes[1]} is right.')
        found.add(got, wanted)
        if has_classes:
            same = _labels(got[0]) == _labels(wanted[0])
            equal, labels = equal + int(same.sum()), labels + same.size
        images += len(batch)
    if not images:
        raise ValueError('There are no images to check the exported model on.')
    share = equal / labels if has_classes else None
    if np.issubdtype(got[0].dtype, np.integer):  # how far labels are apart means nothing
        return Agreement(None, share, images)
    return Agreement(found.relative, share, images, found.rmse)


class _Differences:
    """Differences of outputs, over all batches."""

    def __init__(self) -> None:
        self._largest, self._scale = 0.0, 0.0
        self._squares: dict[int, np.ndarray] = {}  # sums, of difference and value, by output

    def add(self, got: Outputs, wanted: Outputs) -> None:
        """Take in the outputs of a batch."""
        for number, (mine, its) in enumerate(zip(got, wanted)):
            apart = mine.astype(np.float64) - its
            self._largest = max(self._largest, _largest(apart))
            self._scale = max(self._scale, _largest(its))
            sums = np.array([np.square(one, dtype=np.float64).sum() for one in (apart, its)])
            self._squares[number] = self._squares.get(number, 0.0) + sums

    @property
    def relative(self) -> float:
        """Largest difference over the largest value."""
        return self._largest / (self._scale or 1.0)

    @property
    def rmse(self) -> float:
        """Root mean square of the difference over that of the values, the worst output's."""
        return max(math.sqrt(apart / (value or 1.0)) for apart, value in self._squares.values())


def _labels(output: np.ndarray) -> np.ndarray:
    """Labels of logits (B, classes, ...), or the labels that they are already."""
    if np.issubdtype(output.dtype, np.integer):
        return output
    return output.argmax(1) if output.shape[1] > 1 else output > 0


def _largest(values: np.ndarray) -> float:
    """Largest absolute value; NaN counts as infinite."""
    largest = float(np.abs(values).max(initial=0.0))
    return np.inf if np.isnan(largest) else largest
