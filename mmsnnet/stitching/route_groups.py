"""Groups of stitches that share much of their beginnings, to be trained in one step."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from .cost import CostTable
from .route_tree import common_steps
from .value_checks import check_integer

if TYPE_CHECKING:
    from .sampler import StitchSampler
    from .space import Stitch

#: Share of the stitches that those which join a drawn one come from. With a sixteenth, pairs of
#: the 134 stitches of depths 12 and 24 take 0.68 of their FLOPs apart and groups of four 0.46;
#: with an eighth 0.74 and 0.55. Fewer would let the same stitches meet over and over.
_NEAREST = 1 / 16


class RouteGroups:
    """Joins stitches to the one that a sampler draws, which share most of its beginning.

    Like the sampler's, a group follows from (seed, step), and from the rank where processes draw
    stitches of their own. The others are drawn uniformly from the sixteenth of the sampler's
    stitches of which most FLOPs, in proportion to those of both, are spared beside the first.

    Args:
        sampler: Sampler that draws the first stitch of each group.
        costs: Costs of the sampler's stitches.
        size: Stitches of a group.

    Raises:
        TypeError: If ``size`` is no integer.
        ValueError: If the sampler has fewer stitches than a group, or ``size`` is below 1.
    """

    def __init__(self, sampler: StitchSampler, costs: CostTable, size: int) -> None:
        available = len(sampler.stitches)
        if not 1 <= check_integer('routes_per_step', size) <= available:
            raise ValueError(
                f'routes_per_step must lie in 1 to {available}, the number of stitches that the '
                f'sampler draws from; got {size}.'
            )
        self.size = size
        self._sampler, self._costs = sampler, costs
        self._nearest = lru_cache(maxsize=None)(self._ranked)

    def sample(self, step: int, rank: int = 0) -> tuple[Stitch, ...]:
        """Stitches of a training step, all different, that of the sampler first.

        Args:
            step: Number of the step, from 0.
            rank: Number of the process; without effect unless the sampler is ``per_rank``.
        """
        first = self._sampler.sample(step, rank)
        candidates = list(self._nearest(first.name))
        shift = rank if self._sampler.per_rank else 0
        group = [first]
        for place in range(1, self.size):
            text = f'{self._sampler.seed}:{step}:{shift}:{place}'
            word = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], 'big')
            group.append(candidates.pop(word * len(candidates) >> 64))
        return tuple(group)

    def _ranked(self, name: str) -> tuple[Stitch, ...]:
        """The stitches that may join one, those that share most first."""
        others = [stitch for stitch in self._sampler.stitches if stitch.name != name]
        others.sort(key=lambda other: -self._shared(name, other.name))  # equals keep their order
        count = max(self.size - 1, round(_NEAREST * len(self._sampler.stitches)))
        return tuple(others[:count])

    def _shared(self, one: str, other: str) -> float:
        """FLOPs of the common beginning of two stitches, in proportion to those of both."""
        space, flops = self._costs.space, self._costs.flops
        program = space.program(one)
        common = program[: common_steps(program, space.program(other))]
        spared = sum(self._costs.step_flops(step) for step in common)
        return spared / (flops[one] + flops[other])
