"""What a config says about one anchor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from os import PathLike, fspath
from typing import Any

#: Anchors of the paper's main experiments (SN-Netv2, arXiv 2307.00154, section 4).
DEFAULT_ANCHORS = (
    'deit3_small_patch16_224.fb_in22k_ft_in1k',
    'deit3_large_patch16_224.fb_in22k_ft_in1k',
)

#: How rates of stochastic depth are spread over the blocks.
DROP_PATH_MODES = ('linear', 'constant')


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
        drop_path_mode: 'linear' lets the rate rise from 0 in the first block, 'constant' gives
            every block the same.
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
    drop_path_mode: str = 'linear'
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @classmethod
    def parse(cls, anchor: str | Mapping[str, Any] | AnchorConfig) -> AnchorConfig:
        """Settings from a timm name, or from a mapping with these attributes as keys.

        Raises:
            TypeError: If ``anchor`` is neither, or a value is of a wrong type.
            ValueError: If a key is unknown, ``model_name`` is missing or a value is not possible.
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
        _check_weights(settings)
        _check_drop_path(settings)
        for key in ('mean', 'std'):
            if settings.get(key) is not None:
                settings[key] = _channel_values(key, settings[key])
        return cls(**settings)

    @property
    def has_weights(self) -> bool:
        """Whether ``init_weights()`` has something to load."""
        return self.checkpoint is not None or self.pretrained


def _check_weights(settings: dict[str, Any]) -> None:
    """Refuse values of wrong types among what says where weights come from; paths become text."""
    if isinstance(settings.get('checkpoint'), PathLike):
        settings['checkpoint'] = fspath(settings['checkpoint'])
    for key, kind in (('checkpoint', str), ('checkpoint_prefix', str), ('label', str)):
        value = settings.get(key)
        if value is not None and not isinstance(value, kind):
            raise TypeError(f'{key}={value!r} of an anchor must be text.')
    arguments = settings.get('model_kwargs', {})
    if not isinstance(arguments, Mapping):
        raise TypeError(
            f'model_kwargs={arguments!r} of an anchor must be a dict of arguments of timm, such as '
            'dict(depth=12).'
        )
    for key in ('checkpoint_path', 'pretrained'):
        if key in arguments:
            raise ValueError(
                f'model_kwargs of an anchor must not hold {key}: weights are loaded by '
                "init_weights(), as the anchor's own pretrained=... or checkpoint=FILE says."
            )


def _check_drop_path(settings: Mapping[str, Any]) -> None:
    rate, mode = settings.get('drop_path_rate'), settings.get('drop_path_mode', 'linear')
    if rate is not None:
        check_drop_path_rate(rate)
    if mode not in DROP_PATH_MODES:
        raise ValueError(
            f'drop_path_mode={mode!r} of an anchor must be one of {list(DROP_PATH_MODES)}.'
        )


def check_drop_path_rate(rate: float) -> None:
    """Check a rate of stochastic depth.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is not in [0, 1).
    """
    if isinstance(rate, bool) or not isinstance(rate, Real):
        raise TypeError(f'drop_path_rate={rate!r} must be a number in [0, 1).')
    if not 0 <= rate < 1:
        raise ValueError(f'drop_path_rate={rate} is not possible: it must be in [0, 1).')


def _channel_values(key: str, values: Any) -> tuple[float, ...]:
    """Mean or standard deviation as a tuple.

    Raises:
        ValueError: If it is not a number in [0, 1] for each channel, or a deviation is 0.
    """
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    numbers = tuple(values) if is_list else ()
    valid = all(
        isinstance(n, Real) and not isinstance(n, bool) and 0 <= n <= 1 and (key == 'mean' or n)
        for n in numbers
    )
    if not numbers or not valid:
        above = 'above 0 and up to 1' if key == 'std' else 'in [0, 1]'
        raise ValueError(
            f'{key}={values!r} of an anchor must be numbers {above}, one for each channel (three '
            'for red, green and blue); divide what is meant for pixels from 0 to 255 by 255.'
        )
    return tuple(float(number) for number in numbers)
