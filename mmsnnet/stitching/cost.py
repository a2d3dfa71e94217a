"""Exact analytic cost of every stitch of a space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import index

from .program import Block, Cross, Embed, LayerKey, Step, Tap
from .space import Stitch, StitchSpace


@dataclass(frozen=True)
class Cost:
    """What running a (sub-)network takes.

    Attributes:
        flops: Multiply-adds for one image, each counting as one (as fvcore and the paper count).
        params: Parameters that take part, LoRA counted as merged.
    """

    flops: int = 0
    params: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.params + other.params)


def check_image_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Image size as (height, width) in pixels; one number means a square.

    Raises:
        TypeError: If it is neither an integer nor a pair of them.
        ValueError: If a side is not positive.
    """
    pair = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    try:
        height, width = (index(side) for side in pair)
        if any(isinstance(side, bool) for side in pair):
            raise TypeError
    except (TypeError, ValueError):
        raise TypeError(
            f'An image size is one integer or a pair (height, width), got {image_size!r}.'
        ) from None
    if height < 1 or width < 1:
        raise ValueError(f'An image size must be positive, got {(height, width)}.')
    return height, width


class CostTable(Mapping[str, Cost]):
    """Cost of each stitch of a space at one image size: a mapping from name to :class:`Cost`.

    Counted are linear layers, attention products, norms at 5 FLOPs an element, crossings and
    every lifted tap (tokens x source width x target width); softmax, GELU and additions are not.
    The result is exact under these rules: the published tables of SN-Netv2 follow from it to the
    digit.

    Args:
        space: Space whose stitches are counted.
        image_size: (height, width) in pixels, or one number for a square.
        constant: Cost that every stitch has besides, such as that of neck and head.
        by_last_anchor: For each anchor, from cheap to costly, the cost that stitches which end in
            it have besides, such as that of its classifier; empty for none.

    Raises:
        ValueError: If ``by_last_anchor`` has another length than the anchors.
    """

    def __init__(
        self,
        space: StitchSpace,
        image_size: int | tuple[int, int],
        constant: Cost = Cost(),
        by_last_anchor: Sequence[Cost] = (),
    ) -> None:
        if len(by_last_anchor) not in (0, len(space.anchors)):
            raise ValueError(
                f'by_last_anchor has {len(by_last_anchor)} costs for {len(space.anchors)} anchors.'
            )
        self.by_last_anchor = tuple(by_last_anchor)
        self.space = space
        self.image_size = check_image_size(image_size)
        self.constant = constant
        self._grid = space.anchors[-1].grid(self.image_size)
        self._num_patches = space.anchors[-1].num_patches(self.image_size)
        self._num_tokens = space.anchors[-1].num_tokens(self.image_size)
        self._flops_of_step: dict[Step, int] = {}
        self._costs = {stitch.name: self._count(stitch) for stitch in space}

    def __getitem__(self, stitch: str | int | Stitch) -> Cost:
        return self._costs[self.space[stitch].name]

    def __contains__(self, stitch: object) -> bool:
        return stitch in self.space

    def __iter__(self) -> Iterator[str]:
        return iter(self._costs)

    def __len__(self) -> int:
        return len(self._costs)

    @property
    def flops(self) -> dict[str, int]:
        """FLOPs by name of the stitch."""
        return {name: cost.flops for name, cost in self._costs.items()}

    def at(self, image_size: int | tuple[int, int]) -> CostTable:
        """The table at another image size.

        What stitches cost besides is kept, so it must not depend on size.
        """
        return CostTable(self.space, image_size, self.constant, self.by_last_anchor)

    def plus(self, constant: Cost = Cost(), by_last_anchor: Sequence[Cost] = ()) -> CostTable:
        """The table with a further cost that every stitch has, or those of a last anchor."""
        former, added = self.by_last_anchor, tuple(by_last_anchor)
        both = tuple(map(Cost.__add__, former, added)) if former and added else former or added
        return CostTable(self.space, self.image_size, self.constant + constant, both)

    def step_flops(self, step: Step) -> int:
        """FLOPs of one step of a program."""
        if step not in self._flops_of_step:
            self._flops_of_step[step] = self._count_step(step)
        return self._flops_of_step[step]

    def _count_step(self, step: Step) -> int:
        anchors, tokens = self.space.anchors, self._num_tokens
        if isinstance(step, Embed):
            anchor = anchors[step.anchor]
            return (
                self._num_patches * anchor.embed_flops_per_patch
                + tokens * anchor.embed_flops_per_token
            )
        if isinstance(step, Block):
            return anchors[step.anchor].blocks[step.index].flops(tokens, self._grid)
        if isinstance(step, Cross):
            return tokens * self._map_size(step.layer)
        norm = anchors[step.anchor].norm_flops_per_token if self.space.normed_taps else 0
        lift = self._map_size(step.lift) if step.lift is not None else 0
        return tokens * (norm + lift)

    def _map_size(self, layer: LayerKey) -> int:
        anchors = self.space.anchors
        return anchors[layer.source].width * anchors[layer.target].width

    def _count(self, stitch: Stitch) -> Cost:
        program = self.space.program(stitch)
        flops = sum(self.step_flops(step) for step in program)
        total = Cost(flops, count_params(self.space, program)) + self.constant
        if not self.by_last_anchor:
            return total
        return total + self.by_last_anchor[stitch.route.anchors[-1]]


def count_params(space: StitchSpace, program: tuple[Step, ...]) -> int:
    """Parameters that a program touches; a layer that serves twice counts once."""
    anchors = space.anchors
    params = 0
    layers: set[LayerKey] = set()
    norms: set[int] = set()
    running: set[int] = set()
    for step in program:
        if isinstance(step, Embed):
            params += anchors[step.anchor].embed_params
        elif isinstance(step, Block):
            params += anchors[step.anchor].blocks[step.index].params
            running.add(step.anchor)
        elif isinstance(step, Cross):
            layers.add(step.layer)
        elif isinstance(step, Tap):
            norms.add(step.anchor)
            if step.lift is not None:
                layers.add(step.lift)
    for layer in layers:
        target = anchors[layer.target].width
        params += anchors[layer.source].width * target + target
    params += sum(anchors[anchor].shared_params for anchor in running)
    if space.normed_taps:
        params += sum(anchors[anchor].norm_params for anchor in norms)
    return params
