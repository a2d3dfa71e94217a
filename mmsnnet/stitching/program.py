"""The steps that a route executes.

A program is the one description of a route from which its forward pass, its cost, its parameters
and its export all follow. Steps are hashable and hold no tensors: where two programs begin with
the same steps they begin with the same computation, which can then be done once for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

from .alignment import Alignment
from .route import Route


@dataclass(frozen=True)
class LayerKey:
    """Identity of an affine map from features of one anchor to those of another.

    The map goes from boundary ``source_boundary`` of anchor ``source`` to boundary
    ``target_boundary`` of anchor ``target``; the two face each other. ``lift`` marks a map that
    serves taps alone because these are normalised and crossing features are not.
    """

    source: int
    source_boundary: int
    target: int
    target_boundary: int
    lift: bool = False

    def name(self, labels: Sequence[str]) -> str:
        """Readable name such as ``S5_to_L10``; ``lift_S5_to_L10`` for a map of taps alone."""
        name = (
            f'{labels[self.source]}{self.source_boundary}'
            f'_to_{labels[self.target]}{self.target_boundary}'
        )
        return f'lift_{name}' if self.lift else name


@dataclass(frozen=True)
class Embed:
    """Turn images into the tokens of an anchor."""

    anchor: int


@dataclass(frozen=True)
class Block:
    """Run block ``index`` of an anchor."""

    anchor: int
    index: int


@dataclass(frozen=True)
class Tap:
    """Hand the present tokens to output ``position``, lifted to the largest width by ``lift``."""

    position: int
    anchor: int
    lift: LayerKey | None


@dataclass(frozen=True)
class Cross:
    """Carry the tokens over to another anchor."""

    layer: LayerKey


Step = Union[Embed, Block, Tap, Cross]


def _lift_key(
    anchor: int, block: int, alignment: Alignment, largest: int, normed: bool
) -> LayerKey | None:
    """Map for a tap after ``block``: the layer of the boundary behind it, none for the largest."""
    if anchor == largest:
        return None
    target_boundary = alignment.position(anchor, block + 1)
    return LayerKey(anchor, block + 1, largest, target_boundary, lift=normed)


def compile_program(
    route: Route, alignment: Alignment, taps: Sequence[int], largest: int,
    normed_taps: bool = False, lift_taps: bool = True,
) -> tuple[Step, ...]:  # fmt: skip
    """Steps of a route.

    Args:
        route: Route to compile.
        alignment: Boundaries of the anchors on the scale of the largest.
        taps: Blocks of the largest anchor whose outputs are wanted, increasing.
        largest: Index of the largest anchor.
        normed_taps: Whether taps pass the final norm of their anchor before the lift.
        lift_taps: Whether taps of smaller anchors are lifted to the largest width.

    Returns:
        Steps that yield each tap exactly once: segments tile the common scale, so each tap lies
        in one segment.
    """
    steps: list[Step] = [Embed(route.segments[0].anchor)]
    for number, segment in enumerate(route.segments):
        anchor = segment.anchor
        if number > 0:
            before = route.segments[number - 1]
            steps.append(Cross(LayerKey(before.anchor, before.stop, anchor, segment.start)))
        low = alignment.position(anchor, segment.start)
        high = alignment.position(anchor, segment.stop)
        owned = {
            position: alignment.tap_block(anchor, tap)
            for position, tap in enumerate(taps)
            if low <= tap < high
        }
        for index in range(segment.start, segment.stop):
            steps.append(Block(anchor, index))
            for position, block in owned.items():
                if block == index:
                    lift = _lift_key(anchor, block, alignment, largest, normed_taps)
                    steps.append(Tap(position, anchor, lift if lift_taps else None))
    return tuple(steps)
