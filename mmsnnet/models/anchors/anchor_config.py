"""What a config says about one anchor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any

#: Anchors of the paper's main experiments (SN-Netv2, arXiv 2307.00154, section 4).
DEFAULT_ANCHORS = (
    'deit3_small_patch16_224.fb_in22k_ft_in1k',
    'deit3_large_patch16_224.fb_in22k_ft_in1k',
)


@dataclass(frozen=True)
class AnchorConfig:
    """Settings of one anchor.

    Attributes:
        model_name: Name of a plain ViT in timm, with or without a tag of its weights.
        pretrained: Whether ``init_weights()`` loads the weights that timm knows by that name.
        checkpoint: Local file (or URL) of weights to load instead.
        checkpoint_prefix: What the names of the anchor's weights begin with in that file.
        label: Letters that stand for the anchor in stitch names; empty for the default.
        model_kwargs: Further arguments of the timm model, such as ``depth`` or ``embed_dim``.
        drop_path_rate: Rate of the anchor's last block; None takes the backbone's.
        mean: Mean per channel, in [0, 1], that the weights expect; None takes timm's.
        std: Standard deviation likewise.
    """

    model_name: str
    pretrained: bool = True
    checkpoint: str | None = None
    checkpoint_prefix: str = ''
    label: str = ''
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    drop_path_rate: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @classmethod
    def parse(cls, anchor: str | Mapping[str, Any] | AnchorConfig) -> AnchorConfig:
        """Settings from a timm name, or from a mapping with these attributes as keys.

        Raises:
            TypeError: If ``anchor`` is neither.
            ValueError: If a key is unknown or ``model_name`` is missing.
        """
        if isinstance(anchor, AnchorConfig):
            return anchor
        if isinstance(anchor, str):
            return cls(model_name=anchor)
        if not isinstance(anchor, Mapping):
            raise TypeError(
                'An anchor is a timm model name or a dict with model_name, got '
                f'{type(anchor).__name__}: {anchor!r}.'
            )
        allowed = [item.name for item in fields(cls)]
        unknown = sorted(set(anchor) - set(allowed))
        if unknown:
            raise ValueError(
                f'Unknown keys {unknown} of anchor {dict(anchor)}; allowed: {allowed}.'
            )
        if not isinstance(anchor.get('model_name'), str):
            raise ValueError(
                f'Anchor {dict(anchor)} needs model_name, the name of a plain ViT in timm.'
            )
        settings = dict(anchor)
        for key in ('mean', 'std'):
            if settings.get(key) is not None:
                settings[key] = _channel_values(key, settings[key])
        return cls(**settings)

    @property
    def has_weights(self) -> bool:
        """Whether ``init_weights()`` has something to load."""
        return self.checkpoint is not None or self.pretrained


def _channel_values(key: str, values: Any) -> tuple[float, ...]:
    """Mean or standard deviation as a tuple.

    Raises:
        ValueError: If it is not one number in [0, 1] for each of three channels.
    """
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    numbers = tuple(values) if is_list else ()
    if len(numbers) != 3 or not all(isinstance(n, Real) and 0 <= n <= 1 for n in numbers):
        raise ValueError(
            f'{key}={values!r} of an anchor must be three numbers in [0, 1], for red, green and '
            'blue; divide what is meant for pixels from 0 to 255 by 255.'
        )
    return tuple(float(number) for number in numbers)
