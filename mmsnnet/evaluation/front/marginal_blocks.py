"""Blocks that a stitch adds to a pass over the images in which others run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mmsnnet.stitching.program import Block
from mmsnnet.stitching.route_tree import Program


class MarginalBlocks:
    """The tree of a pass that grows by one stitch after the other.

    Args:
        programs: Steps of each stitch by its name.
        shared: Whether stitches share the blocks of their common beginnings; False where they are
            scored one by one.
    """

    def __init__(self, programs: Mapping[str, Program], shared: bool = True) -> None:
        self._places = {
            name: frozenset(
                tuple(program[: end + 1]) if shared else (name, end)
                for end, step in enumerate(program) if isinstance(step, Block)
            )
            for name, program in programs.items()
        }  # fmt: skip
        self._run: set[tuple] = set()

    def of(self, name: str) -> int:
        """Blocks that one more stitch adds; 1 where it adds none, which is not free either."""
        return max(len(self._places[name] - self._run), 1)

    def add(self, names: Iterable[str]) -> None:
        """Let stitches run in this pass."""
        for name in names:
            self._run |= self._places[name]
