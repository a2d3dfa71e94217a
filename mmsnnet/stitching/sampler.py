"""Which stitch is trained at which step.

Samplers keep no state and touch no global random generator: the stitch of a step follows from
(seed, step) alone, and from the rank where that is asked for. So all processes agree without
communication, and a resumed run goes on with the very stitches of an uninterrupted one.
"""
from __future__ import annotations

import difflib
import hashlib
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmsnnet.stitching.route import Stitch
    from mmsnnet.stitching.space import StitchSpace

_WORD_BITS = 64
_DEFAULT_BIN_GFLOPS = 10.0


def _pick(word: int, items: tuple) -> object:
    """Map a uniform 64-bit word onto one of the items (bias below 2**-50 for any real space)."""
    return items[word * len(items) >> _WORD_BITS]


def _select(space: StitchSpace, wanted: Iterable[str] | None) -> tuple[Stitch, ...]:
    """Return the stitches of the space that are named, by name or family, in its own order."""
    everything = tuple(space)
    if wanted is None:
        return everything
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    if not wanted:
        raise ValueError('stitches is empty: list names or families, or leave it out for all.')
    families = list(dict.fromkeys(stitch.family for stitch in everything))
    names = [stitch.name for stitch in everything]
    allowed = {*families, *names}
    for entry in wanted:
        if entry not in allowed:
            close = difflib.get_close_matches(str(entry), [*families, *names], n=3, cutoff=0.4)
            hint = f'; closest: {", ".join(close)}' if close else ''
            raise ValueError(
                f'stitches lists {entry!r}, which is neither a family ({", ".join(families)}) '
                f'nor one of the {len(names)} stitch names ({names[0]} ... {names[-1]}){hint}.')
    chosen = set(wanted)
    return tuple(s for s in everything if s.name in chosen or s.family in chosen)


class StitchSampler(ABC):
    """Base of all samplers: a pure function from a training step to a stitch.

    Args:
        space: The stitches to choose from; iterable, and indexed by name.
        flops: FLOPs of each stitch at training size, by name.
        seed: Any integer. Samplers of equal seed and arguments give equal stitches, in every
            process and Python version.
        per_rank: Let each process of a distributed run draw a stitch of its own. By default
            the rank is ignored and all processes train the same stitch.
        stitches: Names (``'S12'``) or families (``'S-L'``) to draw from; None means all.

    Raises:
        ValueError: An entry of `stitches` is unknown, or a stitch has no FLOPs.
        TypeError: The seed or a FLOPs entry is not a number.
    """

    def __init__(
        self,
        space: StitchSpace,
        flops: Mapping[str, int],
        seed: int = 0,
        per_rank: bool = False,
        stitches: Iterable[str] | None = None,
    ) -> None:
        try:
            self.seed = operator.index(seed)
        except TypeError:
            raise TypeError(f'seed must be an integer, got {seed!r}.') from None
        self.per_rank = bool(per_rank)
        self.stitches = _select(space, stitches)
        missing = [s.name for s in self.stitches if s.name not in flops]
        if missing:
            raise ValueError(f'flops has no entry for {len(missing)} stitches: {missing[:5]}.')
        self._flops = {s.name: flops[s.name] for s in self.stitches}
        for name, value in self._flops.items():
            if not isinstance(value, (int, float)):
                raise TypeError(f'flops[{name!r}] must be a number of FLOPs, got {value!r}.')

    @abstractmethod
    def sample(self, step: int, rank: int = 0) -> Stitch:
        """Return the stitch of a training step.

        Args:
            step: Number of the step, from 0.
            rank: Number of the process; without effect unless `per_rank`.

        Raises:
            ValueError: The step is negative.
        """

    @abstractmethod
    def probabilities(self) -> dict[str, float]:
        """Return the exact long-run share of each stitch by name; the shares sum to 1."""

    def _by_cost(self) -> tuple[Stitch, ...]:
        """Return the stitches from cheap to costly; equal costs keep the order of the space."""
        return tuple(sorted(self.stitches, key=lambda stitch: self._flops[stitch.name]))

    def _words(self, step: int, rank: int) -> tuple[int, int]:
        """Return two independent, uniform 64-bit words that belong to this step (and rank)."""
        if step < 0:
            raise ValueError(f'step must be 0 or more, got {step}.')
        # A cryptographic hash in place of random.Random: as uniform, five times as fast as
        # seeding a Mersenne twister, and its values are fixed by a standard.
        text = f'{self.seed}:{operator.index(step)}:{operator.index(rank) if self.per_rank else 0}'
        digest = hashlib.sha256(text.encode()).digest()
        return int.from_bytes(digest[:8], 'big'), int.from_bytes(digest[8:16], 'big')

    def __repr__(self) -> str:
        """Return class, number of stitches and seed, for logs."""
        return (f'{type(self).__name__}({len(self.stitches)} stitches, seed={self.seed}, '
                f'per_rank={self.per_rank})')


class UniformStitchSampler(StitchSampler):
    """Every stitch is equally likely at every step."""

    def sample(self, step: int, rank: int = 0) -> Stitch:
        """Return the stitch of a training step; see `StitchSampler.sample`."""
        return _pick(self._words(step, rank)[0], self.stitches)

    def probabilities(self) -> dict[str, float]:
        """Return 1/n for each of the n stitches, by name."""
        return {stitch.name: 1 / len(self.stitches) for stitch in self.stitches}


class CostBinStitchSampler(StitchSampler):
    """Uniform over bins of cost, then uniform within the bin.

    This is the resource-constrained sampling of SN-Netv2 (arXiv 2307.00154, section 3.4).
    Stitches are sorted by FLOPs; a bin opens at the cheapest stitch that has no bin yet and
    takes all that cost at most `bin_width` more. A stitch in a bin of n, of b bins in all, is
    drawn with probability 1 / (b * n), so anchors, which tend to be alone in their bins, are
    trained much more often than under uniform sampling.

    Args:
        space: See `StitchSampler`.
        flops: See `StitchSampler`.
        bin_width: Width of a bin in GFLOPs. When neither width is given: 10, the paper's value
            for large anchors. Anchors that cost a few GFLOPs need a narrower bin, for with all
            stitches in one bin the sampling is uniform.
        relative_bin_width: The width as a fraction, in (0, 1], of the difference between the
            costliest and the cheapest stitch; given instead of `bin_width`.
        **common: `seed`, `per_rank` and `stitches` of `StitchSampler`.

    Raises:
        ValueError: Both widths are given, or one is out of range.
    """

    def __init__(
        self,
        space: StitchSpace,
        flops: Mapping[str, int],
        bin_width: float | None = None,
        relative_bin_width: float | None = None,
        **common: object,
    ) -> None:
        super().__init__(space, flops, **common)
        if bin_width is not None and relative_bin_width is not None:
            raise ValueError('give bin_width (GFLOPs) or relative_bin_width, not both.')
        costs = self._flops.values()
        if relative_bin_width is not None:
            if not 0 < relative_bin_width <= 1:
                raise ValueError(
                    f'relative_bin_width must lie in (0, 1], got {relative_bin_width!r}; '
                    'a width in GFLOPs is called bin_width.')
            width = relative_bin_width * (max(costs) - min(costs))
        else:
            gflops = _DEFAULT_BIN_GFLOPS if bin_width is None else bin_width
            if not (gflops > 0 and math.isfinite(gflops)):
                raise ValueError(f'bin_width must be a positive number of GFLOPs, got {gflops!r}.')
            width = gflops * 1e9
        self.bins = self._make_bins(width)

    def _make_bins(self, width: float) -> tuple[tuple[Stitch, ...], ...]:
        """Group the stitches into bins of at most `width` FLOPs, from cheap to costly."""
        bins: list[list[Stitch]] = []
        for stitch in self._by_cost():
            cost = self._flops[stitch.name]
            if bins and cost - self._flops[bins[-1][0].name] <= width:
                bins[-1].append(stitch)
            else:
                bins.append([stitch])
        return tuple(map(tuple, bins))

    def sample(self, step: int, rank: int = 0) -> Stitch:
        """Return the stitch of a training step; see `StitchSampler.sample`."""
        bin_word, stitch_word = self._words(step, rank)
        return _pick(stitch_word, _pick(bin_word, self.bins))

    def probabilities(self) -> dict[str, float]:
        """Return 1 / (number of bins * size of its bin) for each stitch, by name."""
        return {s.name: 1 / (len(self.bins) * len(group)) for group in self.bins for s in group}


class SandwichStitchSampler(StitchSampler):
    """Costliest, cheapest, then some random stitches, over and over.

    The sandwich rule of universally slimmable networks (arXiv 1903.05134) adds, within ONE
    step, the gradients of the widest, the narrowest and some random sub-networks. Here a step
    trains one stitch, so the rule is spread over time: a cycle of 2 + `num_random` steps visits
    the costliest stitch, the cheapest, and `num_random` uniform draws, and an optimizer that
    accumulates gradients over a cycle applies the rule itself. With `per_rank` rank r is
    r steps ahead, so 2 + `num_random` processes together apply it in each step.

    Args:
        space: See `StitchSampler`.
        flops: See `StitchSampler`.
        num_random: Uniform draws in each cycle, 0 or more.
        **common: `seed`, `per_rank` and `stitches` of `StitchSampler`.

    Raises:
        ValueError: `num_random` is negative or not an integer.
    """

    def __init__(
        self,
        space: StitchSpace,
        flops: Mapping[str, int],
        num_random: int = 2,
        **common: object,
    ) -> None:
        super().__init__(space, flops, **common)
        if not isinstance(num_random, int) or num_random < 0:
            raise ValueError(f'num_random must be an integer of 0 or more, got {num_random!r}.')
        self.num_random = num_random
        ranked = self._by_cost()
        self.cheapest, self.costliest = ranked[0], ranked[-1]

    def sample(self, step: int, rank: int = 0) -> Stitch:
        """Return the stitch of a training step; see `StitchSampler.sample`."""
        word = self._words(step, rank)[0]
        place = (step + (rank if self.per_rank else 0)) % (2 + self.num_random)
        if place < 2:
            return (self.costliest, self.cheapest)[place]
        return _pick(word, self.stitches)

    def probabilities(self) -> dict[str, float]:
        """Return the share of each stitch over whole cycles, by name."""
        cycle = 2 + self.num_random
        shares = {s.name: self.num_random / (cycle * len(self.stitches)) for s in self.stitches}
        for end in (self.costliest, self.cheapest):
            shares[end.name] += 1 / cycle
        return shares


class FixedStitchSampler(StitchSampler):
    """The same stitch at every step.

    Args:
        space: See `StitchSampler`.
        flops: See `StitchSampler`.
        stitch: Name of the stitch to train.
        **common: `seed`, `per_rank` and `stitches` of `StitchSampler`; they change nothing, and
            are accepted so that configs can swap one sampler for another.

    Raises:
        ValueError: The stitch is unknown, or not among `stitches`.
    """

    def __init__(
        self,
        space: StitchSpace,
        flops: Mapping[str, int],
        stitch: str | None = None,
        **common: object,
    ) -> None:
        super().__init__(space, flops, **common)
        if stitch is None:
            raise ValueError("FixedStitchSampler needs a name, for example stitch='S12'.")
        self.stitch = space[stitch]
        if self.stitch.name not in self._flops:
            raise ValueError(f'stitch {self.stitch.name!r} is not among the listed stitches.')

    def sample(self, step: int, rank: int = 0) -> Stitch:
        """Return the one stitch; see `StitchSampler.sample`."""
        return self.stitch

    def probabilities(self) -> dict[str, float]:
        """Return 1 for the one stitch and 0 for the others, by name."""
        return {s.name: float(s.name == self.stitch.name) for s in self.stitches}
