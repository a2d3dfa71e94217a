"""Random gamma, brightness and tint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness


def _within(limits: Sequence[float], share: Any) -> Any:
    """Numbers at shares (0 to 1) of the way between two limits."""
    return limits[0] + (limits[1] - limits[0]) * np.asarray(share)


def _is_range(value: Any) -> bool:
    """Whether a value is two positive finite numbers, the lesser first."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return False
    return all(isinstance(limit, Real) for limit in value) and 0 < value[0] <= value[1] < math.inf


class ColorAug(BaseTransform):
    """Raises pixels to a power and scales them, all channels together and each by itself.

    ``clip(img^gamma * brightness * colour, 0, 255)`` on values from 0 to 255, one colour factor a
    channel, as in the published recipe (``ColorAug`` of Monocular-Depth-Estimation-Toolbox).
    Required and modified key: ``img``, which becomes float32.

    Random numbers come from numpy's global generator, like those of mmcv's transforms: MMEngine
    seeds it in every worker.

    Args:
        prob: Probability of the augmentation.
        gamma_range: Least and greatest exponent.
        brightness_range: Least and greatest factor of all channels.
        color_range: Least and greatest factor of each channel.

    Raises:
        ValueError: If a probability or range is not possible.
    """

    def __init__(
        self,
        prob: float = 0.5,
        gamma_range: Sequence[float] = (0.9, 1.1),
        brightness_range: Sequence[float] = (0.75, 1.25),
        color_range: Sequence[float] = (0.9, 1.1),
    ) -> None:
        if not isinstance(prob, Real) or not 0 <= prob <= 1:
            raise ValueError(f'prob={prob!r} of ColorAug must lie in [0, 1].')
        ranges = dict(gamma=gamma_range, brightness=brightness_range, color=color_range)
        for name, value in ranges.items():
            if not _is_range(value):
                raise ValueError(
                    f'{name}_range={value!r} of ColorAug must be two positive finite numbers, '
                    'the lesser first.'
                )
        self.prob = prob
        self.gamma_range = gamma_range
        self.brightness_range = brightness_range
        self.color_range = color_range

    @cache_randomness
    def draw(self) -> tuple[float, np.ndarray] | None:
        """Exponent and the three channels' factors, or None to leave a picture as it is."""
        chance, exponent, factor, *tints = np.random.rand(6)  # noqa: NPY002 - see the class
        if chance >= self.prob:
            return None
        gamma = _within(self.gamma_range, exponent)
        return gamma, _within(self.brightness_range, factor) * _within(self.color_range, tints)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Colour a picture (H, W, 3).

        Raises:
            ValueError: If it has another number of channels.
        """
        if results['img'].ndim != 3 or results['img'].shape[2] != 3:
            raise ValueError(
                f'ColorAug tints pictures (H, W, 3), and {results.get("img_path", "the picture")} '
                f'has the shape {results["img"].shape}: leave ColorAug out of the pipeline.'
            )
        drawn = self.draw()
        if drawn is not None:
            gamma, factors = drawn
            picture = results['img'].astype(np.float32) ** np.float32(gamma)
            results['img'] = np.clip(picture * np.float32(factors), 0, 255)
        return results
