"""Paired bootstrap over images: what metrics of stitches would be on other images alike.

Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7 (1979): images
are drawn with replacement, and the metric of each draw is computed. All stitches get the same
draws, so that what makes an image hard for all of them leaves their differences.

Where only some images of a data set have been seen, the question is another: what the metric will
be on that data set. Its draws complete the images seen to the whole set (Lo, "A Bayesian Bootstrap
for a Finite Population", Annals of Statistics 16, 1988), and differ the less the more are seen.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .image_statistics import AreaStatistics, ImageStatistics


def resample_weights(num_images: int, num_resamples: int, seed: int) -> np.ndarray:
    """How often each image is in each of some draws with replacement.

    Args:
        num_images: Number N of images, and of draws in a resample.
        num_resamples: Number R of resamples.
        seed: Of a generator of its own.

    Returns:
        (R, N), float32, rows that sum to N.
    """
    generator = np.random.default_rng(seed)
    counts = np.empty((num_resamples, num_images), np.float32)
    for row in counts:  # one at a time: all drawn numbers at once would be eight bytes each
        row[:] = np.bincount(generator.integers(num_images, size=num_images), minlength=num_images)
    return counts


def completing_weights(
    num_images: int, num_total: int, num_resamples: int, seed: int
) -> np.ndarray:
    """How often images that were seen stand for those of the whole data set, in some draws.

    Each counts for itself; those that are not seen yet are like seen ones, in shares that are
    drawn from a flat Dirichlet distribution (the Polya posterior of a finite population).

    Args:
        num_images: Number N of images that were seen.
        num_total: Number of images of the data set, N or more.
        num_resamples: Number R of draws.
        seed: Of a generator of its own.

    Returns:
        (R, N), float32, rows that sum to ``num_total``.
    """
    generator = np.random.default_rng(seed)
    counts = np.empty((num_resamples, num_images), np.float32)
    for row in counts:
        shares = generator.dirichlet(np.ones(num_images))
        row[:] = 1 + generator.multinomial(num_total - num_images, shares)
    return counts


class Replicates:
    """Computes a metric of stitches, one after the other, in the same resamples.

    The areas of the labels, the same for all stitches, are summed once.

    Args:
        key: Of the metric, without its prefix.
        weights: See :func:`resample_weights`.
    """

    def __init__(self, key: str, weights: np.ndarray) -> None:
        self._key = key
        self._weights = weights
        self._labels: tuple[np.ndarray, np.ndarray] | None = None

    def of(self, statistics: ImageStatistics) -> np.ndarray:
        """The metric in each resample (R,), float64.

        Raises:
            ValueError: If the statistics are of another number of images.
        """
        if statistics.num_images != self._weights.shape[1]:
            raise ValueError(
                f'Statistics are of {statistics.num_images} images where others are of '
                f'{self._weights.shape[1]}.'
            )
        shared = ()
        if isinstance(statistics, AreaStatistics):
            if self._labels is None or not np.array_equal(self._labels[0], statistics.areas[2]):
                self._labels = statistics.areas[2], statistics.label_areas(self._weights)
            shared = self._labels[1:]
        return np.asarray(statistics.estimate(self._key, self._weights, *shared), np.float64)


def replicate_all(
    statistics: Mapping[str, ImageStatistics], key: str, weights: np.ndarray
) -> np.ndarray:
    """A metric of stitches in each resample (R, S), float64, in their given order."""
    replicates = Replicates(key, weights)
    return np.stack([replicates.of(one) for one in statistics.values()], 1)
