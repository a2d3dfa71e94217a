"""How a sweep goes about its work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar('Item')


@dataclass(frozen=True)
class SweepOptions:
    """How stitches are scored; none of this changes a result.

    Attributes:
        one_by_one: Make a pass over the data for each stitch, instead of one for all.
        shard_size: Images between two points from which a killed sweep goes on.
        max_memory: Most bytes of features kept for other stitches; None for no bound.
        share: (index, count): do share ``index`` of ``count`` equal shares of the work, and leave
            the records to whoever brings the shares together. (0, 1) does all of it.
        share_by: 'images' or 'stitches': what is dealt out to shares, and to the processes of one.

    Raises:
        ValueError: If a value is not possible.
    """

    one_by_one: bool = False
    shard_size: int = 100
    max_memory: float | None = None
    share: tuple[int, int] = (0, 1)
    share_by: str = 'images'

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ValueError(f'shard_size={self.shard_size} is not possible: give 1 image or more.')
        index, count = self.share
        if not 0 <= index < count:
            raise ValueError(f'Share {index + 1}/{count} does not exist; there are 1 to {count}.')
        if self.share_by not in ('images', 'stitches'):
            raise ValueError(f"share_by={self.share_by!r} is neither 'images' nor 'stitches'.")
        if self.one_by_one and count > 1:
            raise ValueError('A share of the work is done in one pass; leave out --one-by-one.')

    @property
    def is_share(self) -> bool:
        """Whether another share of the work is done elsewhere."""
        return self.share[1] > 1


def share_of(items: Sequence[Item], index: int, count: int) -> Sequence[Item]:
    """Share ``index`` of ``count`` of a sequence, in consecutive items."""
    size = len(items)
    return items[size * index // count : size * (index + 1) // count]
