"""How sure the front of a sweep is: ``certainty.json`` in its results folder.

Probabilities are shares of the resamples of a paired bootstrap over images, in which a tie counts
half. They say how the order of stitches would come out on other images alike, not how it would on
other data or after another training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .files import parse_json, write_atomically

CERTAINTY_NAME = 'certainty.json'


@dataclass(frozen=True)
class StitchCertainty:
    """What is known of one stitch.

    Attributes:
        low: Lower end of the interval of its metric.
        high: Upper end.
        on_front: Probability that it is on the front over FLOPs.
        beats_cheaper: Probability that it is better than the stitch before it on the front; None
            for the cheapest.
        beats_small: Probability that it is better than the cheapest anchor; None for that itself,
            and where no anchor was scored.
    """

    low: float
    high: float
    on_front: float
    beats_cheaper: float | None
    beats_small: float | None


@dataclass(frozen=True)
class Certainty:
    """What is known of the stitches of a sweep.

    Attributes:
        metric: Metric that it is about.
        rule: 'greater' or 'less', which is better.
        confidence: Of the intervals, between 0 and 1.
        resamples: Number of resamples.
        seed: Of the resamples.
        images: Number of images.
        stitches: By name.
        better: ``better[i][j]``, the probability that stitch i is better than stitch j, in the
            order of ``stitches``.
    """

    metric: str
    rule: str
    confidence: float
    resamples: int
    seed: int
    images: int
    stitches: Mapping[str, StitchCertainty]
    better: tuple[tuple[float, ...], ...]

    def probability_better(self, one: str, other: str) -> float:
        """Probability that a stitch is better than another."""
        names = list(self.stitches)
        return self.better[names.index(one)][names.index(other)]

    def can_be_told_apart(self, one: str, other: str) -> bool:
        """Whether the data say at the confidence which of two stitches is better, two-sided."""
        probability = self.probability_better(one, other)
        tail = (1 - self.confidence) / 2
        return not tail < probability < 1 - tail

    @property
    def settings(self) -> dict[str, Any]:
        """Confidence, resamples, seed and images."""
        return {key: getattr(self, key) for key in ('confidence', 'resamples', 'seed', 'images')}

    def describes(self, names: Iterable[str], metric: str | None, rule: str) -> bool:
        """Whether it is about these stitches, judged by this metric."""
        return (metric, rule) == (self.metric, self.rule) and set(names) >= set(self.stitches)


def write_certainty(directory: str | os.PathLike[str], certainty: Certainty | None) -> Path:
    """Write the file into a results folder; without a certainty take a former file away."""
    path = Path(directory, CERTAINTY_NAME)
    if certainty is None:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, json.dumps(asdict(certainty), allow_nan=False).encode() + b'\n')
    return path


def read_certainty(directory: str | os.PathLike[str]) -> Certainty | None:
    """Certainty of a results folder; None if it has none.

    Raises:
        ValueError: If the file is damaged.
    """
    path = Path(directory, CERTAINTY_NAME)
    if not path.is_file():
        return None
    try:
        content = parse_json(path.read_bytes())
        stitches = {name: StitchCertainty(**one) for name, one in content['stitches'].items()}
        better = tuple(map(tuple, content['better']))
        if {len(better), *map(len, better)} != {len(stitches)}:
            raise ValueError('its numbers of stitches differ')
        return Certainty(**{**content, 'stitches': stitches, 'better': better})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f'{path} is damaged ({error}): delete it, and run the sweep again to write it anew.'
        ) from None
