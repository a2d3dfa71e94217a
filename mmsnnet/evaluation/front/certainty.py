"""How sure a front is, from metrics of its stitches in resamples of the images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsnnet.results.certainty import Certainty, StitchCertainty
from mmsnnet.results.pareto import Point, pareto_front
from mmsnnet.results.records import Record, metric_value

from .bootstrap import Replicates, resample_weights
from .statistics_folder import StatisticsFolder, measured_by

CONFIDENCE = 0.95
NUM_RESAMPLES = 1000
SEED = 0


def check_confidence(confidence: float) -> float:
    """The confidence itself.

    Raises:
        ValueError: If it is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(
            f'confidence={confidence} is not possible: give a number between 0 and 1, such as 0.95.'
        )
    return confidence


def on_front(costs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which stitches are on the front of each resample.

    Of stitches of the same cost and value the first is, as :func:`pareto_front` has it.

    Args:
        costs: (S,).
        values: (R, S), greater is better.

    Returns:
        (R, S), bool.
    """
    best = np.full(len(values), -np.inf)
    found = np.zeros(values.shape, bool)
    for cost in np.unique(costs):
        same = np.flatnonzero(costs == cost)
        group = values[:, same]
        first = group.argmax(1)
        top = group[np.arange(len(group)), first]
        found[np.arange(len(group)), same[first]] = top > best
        best = np.maximum(best, top)
    return found


def better(values: np.ndarray) -> np.ndarray:
    """Share of resamples in which a stitch is better than another, a tie counting half.

    Args:
        values: (R, S), greater is better.

    Returns:
        (S, S): of stitch i against stitch j.
    """
    shares = np.empty((values.shape[1],) * 2)
    for number, column in enumerate(values.T):
        more = (column[:, None] > values).mean(0)
        same = (column[:, None] == values).mean(0)
        shares[number] = more + same / 2
    return shares


def interval(values: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of percentile intervals (S,) of metrics in resamples (R, S)."""
    tail = (1 - check_confidence(confidence)) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return low, high


def judge(
    records: Sequence[Record],
    values: np.ndarray,
    metric: str,
    rule: str,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
    num_images: int = 0,
) -> Certainty:
    """How sure the metric and the front of stitches are.

    Args:
        records: Of stitches that have it.
        values: Theirs in resamples (R, S).
        metric: Its name.
        rule: 'greater' or 'less', which is better.
        confidence: Of the intervals.
        seed: Of the resamples.
        num_images: Number of images.

    Raises:
        ValueError: If the confidence is not between 0 and 1.
    """
    low, high = interval(values, confidence)
    signed = values if rule == 'greater' else -values
    fronts = on_front(np.array([r['flops'] for r in records]), signed).mean(0)
    shares = better(signed)
    cheaper, small = _compared_with(records, metric, rule)
    stitches = {}
    for i, record in enumerate(records):
        stitches[record['name']] = StitchCertainty(
            _rounded(low[i]),
            _rounded(high[i]),
            _share(fronts[i]),
            None if cheaper[i] is None else _share(shares[i, cheaper[i]]),
            None if small in (None, i) else _share(shares[i, small]),
        )
    matrix = tuple(tuple(map(_share, row)) for row in shares)
    return Certainty(metric, rule, confidence, len(values), seed, num_images, stitches, matrix)


def _compared_with(
    records: Sequence[Record], metric: str, rule: str
) -> tuple[list[int | None], int | None]:
    """For each stitch the one before it on the front, and the cheapest anchor, by number."""
    numbers = {record['name']: number for number, record in enumerate(records)}
    points = [Point(r['name'], r['flops'], metric_value(r, metric)) for r in records]
    front = pareto_front(points, rule)
    before = [[p for p in front if p.cost < point.cost] for point in points]
    anchors = [point for point, r in zip(points, records) if '-' not in r['family']]
    small = min(anchors, key=lambda point: point.cost, default=None)
    return (
        [numbers[cheaper[-1].name] if cheaper else None for cheaper in before],
        None if small is None else numbers[small.name],
    )


def _rounded(value: float) -> float:
    return float(f'{value:.6g}')


def _share(value: float) -> float:
    return round(float(value), 4)


def certainty_of_results(
    directory: Path,
    records: Sequence[Record],
    metric: str,
    rule: str,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
    num_resamples: int = NUM_RESAMPLES,
) -> tuple[Certainty | None, str | None]:
    """Certainty of the stitches of a results folder, from its statistics of images.

    Args:
        directory: The folder.
        records: Of its stitches; those without a value of the metric are left out.
        metric: Name of the metric.
        rule: 'greater' or 'less', which is better.
        seed: Of the resamples.
        confidence: Of the intervals.
        num_resamples: Number of resamples.

    Returns:
        The certainty, or None with the reason why there is none.

    Raises:
        ValueError: If a file is damaged, or the confidence is not between 0 and 1.
    """
    check_confidence(confidence)
    folder = StatisticsFolder(directory)
    records = [record for record in records if record['metrics'].get(metric) is not None]
    names = [record['name'] for record in records]
    reason = _reason_against(names, folder)
    if reason is not None:
        return None, reason
    found = _replicated(folder, names, metric, num_resamples, seed)
    if found is None:
        return None, f'there are no statistics of images for {metric}'
    values, num_images = found
    if not np.isfinite(values).all():
        return None, f'{metric} is not defined on some resamples of the {num_images} images'
    return judge(records, values, metric, rule, confidence, seed, num_images), None


def _replicated(
    folder: StatisticsFolder, names: Sequence[str], metric: str, num_resamples: int, seed: int
) -> tuple[np.ndarray, int] | None:
    """A metric of stitches in resamples (R, S), read one after the other, and the images."""
    replicates, columns, num_images = None, [], 0
    for name in names:
        statistics = folder.read(name)
        place = measured_by(statistics, metric)
        if place is None:
            return None
        one: Any = statistics[place[0]]
        if replicates is None:
            num_images = one.num_images
            replicates = Replicates(place[1], resample_weights(num_images, num_resamples, seed))
        columns.append(replicates.of(one))
    return np.stack(columns, 1), num_images


def _reason_against(names: Sequence[str], folder: StatisticsFolder) -> str | None:
    """Why there is no certainty of stitches, as far as it is seen without reading files."""
    missing = [name for name in names if name not in folder]
    if missing:
        return (
            f'{len(missing)} of {len(names)} stitches have no statistics of images, such as '
            f'{missing[0]}: their metric gives none, or they were scored with --one-by-one or by a '
            'former version (score them again to get statistics)'
        )
    return None if names else 'no stitch has a value'
