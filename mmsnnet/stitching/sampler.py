"""Which stitch is trained at which step.

Samplers keep no state and touch no global random generator: the stitch of a step follows from
(seed, step) alone, and from the rank where that is asked for. So all processes agree without
communication, and a resumed run goes on with the very stitches of an uninterrupted one.
"""

from __future__ import annotations

import difflib
import hashlib
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from .value_checks import check_flag, check_integer, check_number

if TYPE_CHECKING:
    from .space import Stitch, StitchSpace

_Item = TypeVar('_Item')


def _pick(word: int, items: Sequence[_Item]) -> _Item:
    """Map a uniform 64-bit word onto one of the items (bias far below 2**-40)."""
    return items[word * len(items) >> 64]


def _select(space: StitchSpace, wanted: Iterable[str] | None) -> tuple[Stitch, ...]:
    """Return the stitches that are listed by name or family, in the order of the space."""
    everything = tuple(space)
    if wanted is None:
        return everything
    if not isinstance(wanted, Iterable):
        raise TypeError(f'stitches must be a list of names or families, got {wanted!r}.')
    chosen = [wanted] if isinstance(wanted, str) else list(wanted)
    if not chosen:
        raise ValueError('stitches is empty: list names or families, or leave it out for all.')
    families = list(dict.fromkeys(stitch.family for stitch in everything))
    names = [stitch.name for stitch in everything]
    for entry in sorted((one for one in chosen if one not in (*families, *names)), key=str):
        close = difflib.get_close_matches(str(entry), [*families, *names], n=3, cutoff=0.4)
        raise ValueError(
            f'stitches lists {entry!r}, which is neither a family ({", ".join(families)}) nor one '
            f'of the {len(names)} names ({names[0]} ... {names[-1]})'
            + (f'; closest: {", ".join(close)}.' if close else '.')
        )
    return tuple(s for s in everything if s.name in chosen or s.family in chosen)


class StitchSampler(ABC):
    """Base of all samplers: a pure function from a training step to a stitch.

    Args:
        space: The stitches to choose from.
        flops: FLOPs of each stitch at training size, by name.
        seed: Any integer. Equal seeds give equal stitches in every process and Python version.
        per_rank: Let each process draw a stitch of its own instead of all the same.
        stitches: Names (``'S12'``) or families (``'S-L'``) to draw from; None means all.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If an entry of ``stitches`` is unknown, or a stitch has no FLOPs.
    """

    def __init__(
        self,
        space: StitchSpace,
        flops: Mapping[str, int],
        seed: int = 0,
        per_rank: bool = False,
        stitches: Iterable[str] | None = None,
    ) -> None:
        self.seed = check_integer('seed', seed)
        self.per_rank = check_flag('per_rank', per_rank)
        self.stitches = _select(space, stitches)
        missing = [stitch.name for stitch in self.stitches if stitch.name not in flops]
        if missing:
            raise ValueError(f'flops has no entry for {len(missing)} stitches: {missing[:5]}.')
        self._flops = {stitch.name: flops[stitch.name] for stitch in self.stitches}

    def sample(self, step: int, rank: int = 0) -> Stitch:
        """Return the stitch of a training step.

        Args:
            step: Number of the step, from 0; a negative one raises ValueError.
            rank: Number of the process; without effect unless ``per_rank``.
        """
        if step < 0:
            raise ValueError(f'step must be 0 or more, got {step}.')
        shift = rank if self.per_rank else 0
        # A hash in place of random.Random: as uniform, seven times as fast as seeding a
        # Mersenne twister anew, and its values are fixed by a standard.
        text = f'{self.seed}:{operator.index(step)}:{operator.index(shift)}'
        digest = hashlib.sha256(text.encode()).digest()
        words = int.from_bytes(digest[:8], 'big'), int.from_bytes(digest[8:16], 'big')
        return self._choose(step + shift, *words)

    @abstractmethod
    def probabilities(self) -> dict[str, float]:
        """Return the exact long-run share of each stitch by name; the shares sum to 1."""

    @abstractmethod
    def _choose(self, turn: int, first: int, second: int) -> Stitch:
        """Choose by a turn (step plus shift of the rank) and two uniform 64-bit words."""

    def _by_cost(self) -> list[Stitch]:
        """Return the stitches from cheap to costly; equal costs keep the order of the space."""
        return sorted(self.stitches, key=lambda stitch: self._flops[stitch.name])


class UniformStitchSampler(StitchSampler):
    """Every stitch is equally likely at every step; see `StitchSampler` for the arguments."""

    def _choose(self, turn: int, first: int, second: int) -> Stitch:
        return _pick(first, self.stitches)

    def probabilities(self) -> dict[str, float]:
        """Return 1/n for each of the n stitches, by name."""
        return {stitch.name: 1 / len(self.stitches) for stitch in self.stitches}


class CostBinStitchSampler(StitchSampler):
    """Uniform over bins of cost, then uniform within the bin.

    This is the resource-constrained sampling of SN-Netv2 (arXiv 2307.00154, section 3.4).
    A bin opens at the cheapest stitch that has no bin yet and takes all that cost at most its
    width more. A stitch in a bin of n, with b bins in all, has probability 1 / (b * n), so
    anchors, which tend to be alone in their bins, are trained more often than uniformly.

    Args:
        space, flops: See `StitchSampler`.
        bin_width: Width of a bin in GFLOPs. When neither width is given: 10, the paper's value.
            Small anchors need narrower bins: with all stitches in one bin sampling is uniform.
        relative_bin_width: Width as a fraction in (0, 1] of the difference between costliest and
            cheapest stitch, instead of ``bin_width``.
        **common: ``seed``, ``per_rank`` and ``stitches`` of `StitchSampler`.

    Raises:
        ValueError: If both widths are given or one is out of range.
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
            raise ValueError('Give bin_width (GFLOPs) or relative_bin_width, not both.')
        if relative_bin_width is None:
            gflops = 10.0 if bin_width is None else check_number('bin_width', bin_width)
            if gflops <= 0:
                raise ValueError(f'bin_width must be a positive number of GFLOPs, got {gflops!r}.')
            width = gflops * 1e9
        elif 0 < check_number('relative_bin_width', relative_bin_width) <= 1:
            width = relative_bin_width * (max(self._flops.values()) - min(self._flops.values()))
        else:
            raise ValueError(f'relative_bin_width must lie in (0, 1], got {relative_bin_width!r}.')
        self.bins = self._make_bins(width)

    def _make_bins(self, width: float) -> tuple[tuple[Stitch, ...], ...]:
        """Group the stitches into bins that span at most ``width`` FLOPs, from cheap to costly."""
        bins: list[list[Stitch]] = []
        for stitch in self._by_cost():
            if bins and self._flops[stitch.name] - self._flops[bins[-1][0].name] <= width:
                bins[-1].append(stitch)
            else:
                bins.append([stitch])
        return tuple(map(tuple, bins))

    def _choose(self, turn: int, first: int, second: int) -> Stitch:
        return _pick(second, _pick(first, self.bins))

    def probabilities(self) -> dict[str, float]:
        """Return 1 / (number of bins * size of its bin) for each stitch, by name."""
        return {s.name: 1 / (len(self.bins) * len(group)) for group in self.bins for s in group}


class SandwichStitchSampler(StitchSampler):
    """Costliest, cheapest, then some random stitches, over and over.

    The sandwich rule of slimmable networks (arXiv 1903.05134) sums, within ONE step, gradients of
    the widest, the narrowest and some random sub-networks. A step here trains one stitch, so the
    rule is spread over time: a cycle of 2 + ``num_random`` steps visits the costliest stitch, the
    cheapest, and ``num_random`` uniform draws; accumulating gradients over a cycle applies the
    rule itself. With ``per_rank`` rank r is r steps ahead, so that as many processes as the
    cycle has steps apply it together in every step.

    Args:
        space, flops: See `StitchSampler`.
        num_random: Uniform draws in each cycle.
        **common: ``seed``, ``per_rank`` and ``stitches`` of `StitchSampler`.

    A ``num_random`` that is not an integer of 0 or more raises ValueError.
    """

    def __init__(
        self, space: StitchSpace, flops: Mapping[str, int], num_random: int = 2, **common: object
    ) -> None:
        super().__init__(space, flops, **common)
        if isinstance(num_random, bool) or not isinstance(num_random, int) or num_random < 0:
            raise ValueError(f'num_random must be an integer of 0 or more, got {num_random!r}.')
        self.num_random = num_random
        ranked = self._by_cost()
        self.cheapest, self.costliest = ranked[0], ranked[-1]

    def _choose(self, turn: int, first: int, second: int) -> Stitch:
        place = turn % (2 + self.num_random)
        if place < 2:
            return (self.costliest, self.cheapest)[place]
        return _pick(first, self.stitches)

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
        space, flops: See `StitchSampler`.
        stitch: Name or id of the stitch.
        **common: ``seed``, ``per_rank`` and ``stitches`` of `StitchSampler`; without effect, they
            let a config swap one sampler for another.

    Raises:
        ValueError: If the stitch is unknown or not among ``stitches``.
    """

    def __init__(
        self, space: StitchSpace, flops: Mapping[str, int], stitch: str | int, **common: object
    ) -> None:
        super().__init__(space, flops, **common)
        self.stitch = space[stitch]
        if self.stitch.name not in self._flops:
            raise ValueError(f'stitch {self.stitch.name!r} is not among the listed stitches.')

    def _choose(self, turn: int, first: int, second: int) -> Stitch:
        return self.stitch

    def probabilities(self) -> dict[str, float]:
        """Return 1 for the one stitch and 0 for the others, by name."""
        return {s.name: float(s.name == self.stitch.name) for s in self.stitches}
