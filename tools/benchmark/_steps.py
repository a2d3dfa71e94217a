"""Training steps that are timed against the same by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from _cpu_time import paired_cpu_ratio
from torch import Tensor


class Step:
    """One training step: loss, backward and the optimizer.

    Args:
        loss: Computes the loss from the weights of the optimizer.
        optimizer: What learns from it.
    """

    def __init__(self, loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> None:
        self.loss, self._optimizer = loss, optimizer

    def __call__(self) -> None:
        """Make the step."""
        self._optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        self._optimizer.step()


def same_loss(first: Step, second: Step) -> bool:
    """Whether two steps see the same loss when they draw the same random numbers."""
    losses = []
    for step in (first, second):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            losses.append(step.loss())
    return torch.equal(*losses)


def compare(name: str, stitched: Step, by_hand: Step, repeats: int, goal: float) -> bool:
    """Time two steps in pairs and print a line; whether they agree and the goal is met."""
    same = same_loss(stitched, by_hand)
    ratio, spread, time = paired_cpu_ratio(stitched, by_hand, repeats)
    good = same and ratio <= goal
    print(
        f'  {name:<9} {1000 * time:8.1f} ms   time x {ratio:.3f} +- {spread:.3f}   '
        f'loss {"equal" if same else "DIFFERENT"}{"" if good else "   MISSED"}',
        flush=True,
    )
    return good
