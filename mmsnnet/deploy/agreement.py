"""How far an exported model agrees with the one it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

#: Least agreement by precision: share of equal labels, and largest relative difference; None
#: where numbers are meant to differ.
BARS: dict[str, tuple[float, float | None]] = {
    'extracted': (0.9999, 1e-5),
    'fp32': (0.9999, 1e-4),
    'fp16': (0.999, None),
    'int8': (0.985, None),
}


@dataclass(frozen=True)
class Agreement:
    """Differences of outputs over some images.

    Attributes:
        relative: Largest absolute difference over the largest absolute value expected; None where
            labels come out.
        labels: Share of pixels (or images) with the same class; None where there are no classes.
        images: Number of images compared.
    """

    relative: float | None
    labels: float | None
    images: int

    def __str__(self) -> str:
        parts = [] if self.relative is None else [f'relative difference {self.relative:.2e}']
        parts += [] if self.labels is None else [f'{100 * self.labels:.3f} % equal labels']
        return f'{", ".join(parts)} over {self.images} images'

    def as_dict(self) -> dict[str, float | int | None]:
        """Fields by name."""
        return asdict(self)

    def check(self, precision: str, what: object) -> Agreement:
        """The agreement itself.

        Args:
            precision: Key of ``BARS``.
            what: What was exported, to be named.

        Raises:
            ValueError: If it is below the bars.
        """
        least, most = BARS[precision]
        wrong = self.labels is not None and not self.labels >= least
        relative = 0.0 if self.relative is None else self.relative
        far = most is not None and not relative <= most
        if wrong or far or not np.isfinite(relative):
            raise ValueError(
                f'{what} does not compute what the model does: {self}; {precision} must keep '
                f'{100 * least:g} % of labels'
                + (f' and a relative difference of {most:g}.' if most is not None else '.')
            )
        return self


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
    difference = scale = 0.0
    equal = labels = images = 0
    for batch in batches:
        got, wanted = run(batch), expected(batch)
        shapes = [[one.shape for one in outputs] for outputs in (got, wanted)]
        if shapes[0] != shapes[1]:
            raise ValueError(f'The exported model gives {shapes[0]} where {shapes[1]} is right.')
        for mine, its in zip(got, wanted):
            difference = max(difference, _largest(mine.astype(np.float64) - its))
            scale = max(scale, _largest(its))
        if has_classes:
            same = _labels(got[0]) == _labels(wanted[0])
            equal, labels = equal + int(same.sum()), labels + same.size
        images += len(batch)
    if not images:
        raise ValueError('There are no images to check the exported model on.')
    share = equal / labels if has_classes else None
    if np.issubdtype(got[0].dtype, np.integer):  # how far labels are apart means nothing
        return Agreement(None, share, images)
    return Agreement(difference / scale if scale else difference, share, images)


def _labels(output: np.ndarray) -> np.ndarray:
    """Labels of logits (B, classes, ...), or the labels that they are already."""
    if np.issubdtype(output.dtype, np.integer):
        return output
    return output.argmax(1) if output.shape[1] > 1 else output > 0


def _largest(values: np.ndarray) -> float:
    """Largest absolute value; NaN counts as infinite."""
    largest = float(np.abs(values).max(initial=0.0))
    return np.inf if np.isnan(largest) else largest
