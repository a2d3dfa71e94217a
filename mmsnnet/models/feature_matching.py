"""Trains stitch layers without labels: features of stitches come nearer to the largest anchor's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from mmengine.dist import all_reduce, broadcast, is_distributed
from torch import Tensor, nn

from mmsnnet.stitching import Stitch
from mmsnnet.stitching.value_checks import check_integer, check_number

from .stitch_fit import evaluating
from .stitch_network import StitchNetwork


@dataclass(frozen=True)
class MatchSettings:
    """How long and how fast features are matched.

    Attributes:
        iters: Steps, each of one stitch on one batch; 0 for none.
        lr: Learning rate of Adam at first; it falls to zero along a half cosine.
        seed: Chooses the stitches.
    """

    iters: int = 0
    lr: float = 1e-3
    seed: int = 0

    @classmethod
    def parse(cls, given: int | Mapping[str, Any] | MatchSettings) -> MatchSettings:
        """Settings of a number of steps, or of a dict with these attributes as keys.

        Raises:
            TypeError: If it is neither, or a value is no number.
            ValueError: If a key is unknown or a value not possible.
        """
        if isinstance(given, MatchSettings):
            return given
        values = dict(given) if isinstance(given, Mapping) else dict(iters=given)
        allowed = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(allowed))
        if unknown:
            raise ValueError(f'match does not know {unknown}; it takes {allowed}.')
        settings = cls(**values)
        check_integer('seed of match', settings.seed)
        if check_integer('iters of match', settings.iters) < 0:
            raise ValueError(f'iters={settings.iters} of match must be 0 (none) or more.')
        if check_number('lr of match', settings.lr) <= 0:
            raise ValueError(f'lr={settings.lr} of match must be positive.')
        return settings


def check_can_match(network: StitchNetwork) -> None:
    """Refuse a network whose stitches have no features to be matched.

    Raises:
        ValueError: If it has no stitch layers, or its taps are not lifted.
    """
    if not network.space.lift_taps:
        raise ValueError(
            'Features cannot be matched with lift_taps=False, where those of a smaller anchor have '
            'another width than those of the largest: leave matching out (match_iters=0).'
        )
    if not network.space.layers:
        raise ValueError(
            'Features cannot be matched without stitch layers: one anchor alone has none. Leave '
            'matching out (match_iters=0).'
        )


def match_features(
    network: StitchNetwork, batches: Iterable[Tensor], settings: MatchSettings, together: bool
) -> list[float]:
    """Train the stitch layers so that taps of stitches become those of the largest anchor.

    Each step draws a stitch, all but the largest anchor equally often, and lowers its
    :func:`feature_error` on the next batch. Anchors stay as they are, in eval mode and float32.

    Args:
        network: Network whose stitch layers are fitted.
        batches: Normalised images (B, 3, H, W), at least ``settings.iters`` batches.
        settings: How long and how fast.
        together: Whether all processes take part, each with batches of its own: they step alike.

    Returns:
        Error of each step, of this process' images.

    Raises:
        ValueError: If the network has nothing to match, batches end early, or an error is not
            finite.
    """
    check_can_match(network)
    together = together and is_distributed()
    learning = [p for p in network.stitch_layers.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=settings.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(settings.iters, 1))
    errors: list[float] = []
    with evaluating(network), _anchors_frozen(network), torch.enable_grad():
        for stitch, images in zip(drawn_stitches(network, settings), batches):
            error = feature_error(network, stitch, images.to(network.device, torch.float32))
            error.backward()
            if together:
                _average_gradients(learning)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            errors.append(error.detach())
    for parameter in learning if together else ():
        broadcast(parameter.data)
    return _checked(errors, settings)


def _checked(errors: list[Tensor], settings: MatchSettings) -> list[float]:
    """Errors as numbers; reading them any earlier would let a GPU wait at each step."""
    if len(errors) < settings.iters:
        raise ValueError(
            f'Matching features for {settings.iters} steps needs as many batches, there were '
            f'{len(errors)}: give images.'
        )
    numbers = [float(error) for error in errors]
    if not all(number < float('inf') for number in numbers):
        raise ValueError(
            'Matching features diverged: an error is not finite. Lower lr of match (1e-3 by '
            'default), or leave matching out (match_iters=0).'
        )
    return numbers


def drawn_stitches(network: StitchNetwork, settings: MatchSettings) -> Iterator[Stitch]:
    """Stitches of all steps: every one but the largest anchor once before any comes again."""
    others = [one for one in network.space if one != largest_anchor(network)]
    generator = torch.Generator().manual_seed(settings.seed)
    left: list[int] = []
    for _ in range(settings.iters):
        left = left or torch.randperm(len(others), generator=generator).tolist()
        yield others[left.pop()]


def largest_anchor(network: StitchNetwork) -> Stitch:
    """The stitch that is the largest anchor alone, whose features are matched."""
    last = len(network.space.anchors) - 1
    return next(one for one in network.space if one.is_anchor and one.route.anchors == (last,))


def feature_error(network: StitchNetwork, stitch: str | int | Stitch, images: Tensor) -> Tensor:
    """How far the tapped features of a stitch are from those of the largest anchor.

    Mean over taps of the mean squared difference, divided by the variance of the anchor's features
    over images, tokens and channels: 1 is what a constant would reach at best.

    Args:
        network: The network, in eval mode.
        stitch: The stitch.
        images: Normalised images (B, 3, H, W).

    Returns:
        The error, without dimensions.
    """
    with torch.autocast(images.device.type, enabled=False):
        with torch.no_grad():
            wanted = _taps(network, largest_anchor(network), images)
        given = _taps(network, stitch, images)
        errors = [
            (given[tap] - target).square().mean() / target.var().clamp(min=1e-12)
            for tap, target in wanted.items()
        ]
        return torch.stack(errors).mean()


def _taps(
    network: StitchNetwork, stitch: str | int | Stitch, images: Tensor
) -> Mapping[int, Tensor]:
    """Lifted tokens (B, N, C) of all taps, by position."""
    return network.advance(network.begin(images), network.space.program(stitch)).taps


def _average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over processes, which have run the same stitch."""
    for parameter in parameters:
        if parameter.grad is not None:
            all_reduce(parameter.grad, op='mean')


@contextmanager
def _anchors_frozen(network: StitchNetwork) -> Iterator[None]:
    """Let anchors ask for no gradients within a ``with`` block."""
    learning = [p for p in network.anchors.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
