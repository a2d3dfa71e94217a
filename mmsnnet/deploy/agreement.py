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
        relative: Largest absolute difference over the largest absolute value expected.
        labels: Share of pixels (or images) with the same class; None where there are no classes.
        images: Number of images compared.
    """

    relative: float
    labels: float | None
    images: int

    def __str__(self) -> str:
        labels = '' if self.labels is None else f', {100 * self.labels:.3f} % equal labels'
        return f'relative difference {self.relative:.2e}{labels} over {self.images} images'

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
        far = most is not None and not self.relative <= most
        if wrong or far or not np.isfinite(self.relative):
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
        has_classes: Whether the first output holds logits (B, classes, ...).

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
            same = got[0].argmax(1) == wanted[0].argmax(1)
            equal, labels = equal + int(same.sum()), labels + same.size
        images += len(batch)
    if not images:
        raise ValueError('There are no images to check the exported model on.')
    share = equal / labels if has_classes else None
    return Agreement(difference / scale if scale else difference, share, images)


def _largest(values: np.ndarray) -> float:
    """Largest absolute value; NaN counts as infinite."""
    largest = float(np.abs(values).max(initial=0.0))
    return np.inf if np.isnan(largest) else largest
