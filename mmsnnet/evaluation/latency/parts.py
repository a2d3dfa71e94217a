"""Parts that every stitch is made of, and the time that each takes inside a running model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from mmsnnet.models import RunState, StitchedViT
from mmsnnet.stitching import Block, Cross, Embed, Step, Stitch, StitchSpace

#: Everything of an inference but the steps of the backbone: head, resizing, windows, results.
REST = 'rest'


def part_of(space: StitchSpace, step: Step) -> str:
    """Name of the part that a step is an instance of; steps of one part do the same work.

    These are the embedding of an anchor (``embed S``), its blocks (``block S``, with the number of
    the first block of its shape behind if shapes differ: ``block S.4``), what its taps take
    (``tap S``) and crossings from one anchor to another (``cross S-L``).
    """
    labels = space.labels
    if isinstance(step, Cross):
        return f'cross {labels[step.layer.source]}-{labels[step.layer.target]}'
    label = labels[step.anchor]
    if isinstance(step, Embed):
        return f'embed {label}'
    if not isinstance(step, Block):
        return f'tap {label}'
    blocks = space.anchors[step.anchor].blocks
    first = blocks.index(blocks[step.index])
    return f'block {label}.{first}' if len(set(blocks)) > 1 else f'block {label}'


def context_of(part: str) -> str:
    """Part that holds what the blocks of part ``block S`` need besides: ``context S``."""
    # Labels are names of submodules, so they hold no dot.
    return 'context' + part.removeprefix('block').split('.')[0]


def count_parts(space: StitchSpace, stitch: Stitch | str) -> Counter[str]:
    """How often a stitch runs each part in one pass of the backbone.

    ``context S`` is what the blocks of an anchor need besides tokens, computed once a pass.
    """
    steps = space.program(stitch)
    counts = Counter(part_of(space, step) for step in steps)
    for anchor in {step.anchor for step in steps if isinstance(step, Block)}:
        counts[f'context {space.labels[anchor]}'] = 1
    return counts


def covering_stitches(space: StitchSpace, wanted: Sequence[Stitch] | None = None) -> list[Stitch]:
    """Few stitches that together run every part of the wanted ones, each greedily the most new.

    Args:
        space: Stitches to choose from.
        wanted: Stitches whose parts are to occur; None for all.
    """
    counts = {stitch.name: count_parts(space, stitch) for stitch in space}
    missing = {part for stitch in wanted or space for part in counts[stitch.name]}
    chosen = list(space.anchor_stitches)
    for stitch in chosen:
        missing -= counts[stitch.name].keys()
    while missing:
        best = max(space, key=lambda stitch: len(missing & counts[stitch.name].keys()))
        chosen.append(best)
        missing -= counts[best.name].keys()
    return chosen


def stretches(space: StitchSpace, program: Sequence[Step]) -> Iterator[tuple[str, list[Step]]]:
    """Maximal runs of steps of one part, in order, each with the part's name."""
    held: list[Step] = []
    name = ''
    for step in program:
        part = part_of(space, step)
        if held and part != name:
            yield name, held
            held = []
        name = part
        held.append(step)
    yield name, held


class WallClock:
    """Marks moments on the CPU."""

    def mark(self) -> Any:
        """Now."""
        return time.perf_counter()

    def milliseconds(self, start: Any, stop: Any) -> float:
        """Milliseconds between two marks."""
        return (stop - start) * 1e3

    def synchronize(self) -> None:
        """Wait for work under way: none."""


class CudaClock(WallClock):
    """Marks moments in the stream of a CUDA device, without holding up what runs there."""

    def mark(self) -> torch.cuda.Event:
        """An event behind all work queued so far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self, start: torch.cuda.Event, stop: torch.cuda.Event) -> float:
        """Milliseconds between two events that have passed."""
        return start.elapsed_time(stop)

    def synchronize(self) -> None:
        """Wait for all queued work."""
        torch.cuda.synchronize()


class StepTimer:
    """Runs programs for a backbone part by part and marks the moments between.

    It takes the place of the backbone's ``prefix_cache``, through which every forward goes.

    Args:
        backbone: The backbone.
        clock: Marks the moments.
    """

    def __init__(self, backbone: StitchedViT, clock: WallClock) -> None:
        self._backbone = backbone
        self._clock = clock
        self._marks: list[tuple[str, int, Any, Any]] = []
        self.calls = 0

    def advance(self, state: RunState, program: Sequence[Step]) -> RunState:
        """State behind a whole program."""
        backbone, clock = self._backbone, self._clock
        self.calls += 1
        before = clock.mark()
        for name, steps in stretches(backbone.space, program):
            state = backbone.advance(state, steps)
            after = clock.mark()
            self._marks.append((name, len(steps), before, after))
            before = after
        for anchor in sorted({step.anchor for step in program if isinstance(step, Block)}):
            backbone.anchor(anchor).context(backbone.grid(state.images))
            after = clock.mark()
            self._marks.append((f'context {backbone.space.labels[anchor]}', 1, before, after))
            before = after
        return state

    def take(self) -> list[tuple[str, int, float]]:
        """Part, steps and milliseconds of each stretch so far, forgotten thereby."""
        self._clock.synchronize()
        marks, self._marks, self.calls = self._marks, [], 0
        return [(name, n, self._clock.milliseconds(a, b)) for name, n, a, b in marks]
