"""The scale-invariant loss of the published NYUv2 models."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from mmsnnet.registry import MODELS

#: Weight of the squared mean beside the variance, as published.
_MEAN_WEIGHT = 0.15


@MODELS.register_module()
class SigLoss(nn.Module):
    """Scale-invariant loss of log depth over all valid pixels of a batch.

    ``sqrt(var(g) + 0.15 mean(g)^2)`` with ``g = log(pred) - log(target)`` and the unbiased
    variance; in the first training calls ``sqrt(0.15 mean(g)^2)`` alone, with ``warm_up_eps``
    added to both depths before their logarithm. This is the formula of the authors' depth toolbox
    (``depth/models/losses/sigloss.py`` of Monocular-Depth-Estimation-Toolbox). mmseg's
    ``SiLogLoss`` is another one: ``sqrt(mean(g^2) - 0.5 mean(g)^2)`` of each image by itself.

    The calls so far are a buffer, saved in checkpoints: a resumed run does not warm up anew.
    Calls in eval mode are not counted. Where the gradient of a root does not exist (a perfect
    prediction) it is zero, and a batch without a valid pixel has the loss zero.

    Args:
        loss_weight: Factor of the loss.
        max_depth: Pixels whose target is deeper, in metres, are left out; None leaves out those
            without a target (0) alone, as published.
        warm_up_iters: Training calls of the warm-up; 0 for none.
        warm_up_eps: Metres added to depths during the warm-up, so that its gradients are bounded.
        loss_name: Key of the loss; it must begin with 'loss' to be minimised.

    Raises:
        TypeError: If a number or the name is of another type.
        ValueError: If a number is not finite or out of range.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        max_depth: float | None = None,
        warm_up_iters: int = 100,
        warm_up_eps: float = 0.1,
        loss_name: str = 'loss_depth',
    ) -> None:
        super().__init__()
        _check_settings(
            loss_weight=loss_weight,
            warm_up_iters=warm_up_iters,
            warm_up_eps=warm_up_eps,
            **({} if max_depth is None else dict(max_depth=max_depth)),
        )
        if not isinstance(loss_name, str):
            raise TypeError(f'loss_name={loss_name!r} of SigLoss must be a text like loss_depth.')
        self.loss_weight = loss_weight
        self.max_depth = max_depth
        self.warm_up_iters = warm_up_iters
        self.warm_up_eps = warm_up_eps
        self.loss_name = loss_name
        self.register_buffer('training_steps', torch.zeros((), dtype=torch.long))

    def forward(self, pred: Tensor, target: Tensor, **_: Any) -> Tensor:
        """Loss, a scalar.

        Args:
            pred: Depth in metres, positive, of any shape.
            target: True depth of the same shape; 0 where it is not known.

        Raises:
            ValueError: If the shapes differ.
        """
        if pred.shape != target.shape:
            raise ValueError(
                f'SigLoss needs prediction and target of one shape, got {tuple(pred.shape)} and '
                f'{tuple(target.shape)}.'
            )
        warming_up = self._next_step()
        valid = target > 0
        if self.max_depth is not None:
            valid = valid & (target <= self.max_depth)
        # Logarithms of half precision are too coarse.
        depth, truth = pred[valid].float(), target[valid].float()
        if not len(depth):
            return self.loss_weight * depth.sum()
        shift = self.warm_up_eps if warming_up else 0.0
        gap = torch.log(depth + shift) - torch.log(truth + shift)
        mean = math.sqrt(_MEAN_WEIGHT) * gap.mean()
        if warming_up or len(gap) == 1:
            return self.loss_weight * mean.abs()
        return self.loss_weight * torch.linalg.vector_norm(torch.stack((gap.std(), mean)))

    def _next_step(self) -> bool:
        """Whether this call belongs to the warm-up; counts it in train mode."""
        warming_up = int(self.training_steps) < self.warm_up_iters
        if self.training:
            self.training_steps += 1
        return warming_up


def _check_settings(**numbers: Any) -> None:
    """Check the numbers of a loss.

    Raises:
        TypeError: If one is no number, or ``warm_up_iters`` no integer.
        ValueError: If one is not finite or out of range.
    """
    for name, value in numbers.items():
        kind = Integral if name == 'warm_up_iters' else Real
        if isinstance(value, bool) or not isinstance(value, kind):
            noun = 'an integer' if kind is Integral else 'a number'
            raise TypeError(f'{name}={value!r} of SigLoss must be {noun}.')
        metres = name in ('max_depth', 'warm_up_eps')
        if not math.isfinite(value) or value < 0 or (metres and value == 0):
            allowed = 'positive metres' if metres else '0 or more'
            also = ', or None' if name == 'max_depth' else ''
            raise ValueError(f'{name}={value} of SigLoss must be {allowed} and finite{also}.')
