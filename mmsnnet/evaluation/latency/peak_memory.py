"""Peak memory of every stitch, composed from what its parts take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from torch import nn

from mmsnnet.models import RunState, StitchedViT
from mmsnnet.stitching import Block, Step, Stitch, StitchSpace, Tap

from .memory_meter import CudaMeter, TensorMeter
from .parts import covering_stitches, part_of

Meter = Union[TensorMeter, CudaMeter]


@dataclass
class MemoryParts:
    """Bytes that parts of an inference take.

    Attributes:
        before: Held by the model when its backbone is called, in the call where it is most.
        tokens: Of the tokens of each anchor, by index.
        tap: Of one tap at the largest width.
        context: Of what the blocks of each anchor need besides, by index.
        working: Most that a step of a part takes beyond what was held before it, its own output
            included and its context not.
        rest: Most of anything outside the backbone's steps; the same for every stitch.
    """

    before: int = 0
    tokens: dict[int, int] = field(default_factory=dict)
    tap: int = 0
    context: dict[int, int] = field(default_factory=dict)
    working: dict[str, int] = field(default_factory=dict)
    rest: int = 0


class StepMeter:
    """Runs programs for a backbone step by step and notes what each takes.

    It takes the place of the backbone's ``prefix_cache``, through which every forward goes.

    Args:
        backbone: The backbone.
        meter: Counts, and is active.
        parts: Where to note.
    """

    def __init__(self, backbone: StitchedViT, meter: Meter, parts: MemoryParts) -> None:
        self._backbone = backbone
        self._meter = meter
        self._parts = parts

    def advance(self, state: RunState, program: Sequence[Step]) -> RunState:
        """State behind a whole program."""
        meter, parts, space = self._meter, self._parts, self._backbone.space
        parts.rest = max(parts.rest, meter.peak())
        parts.before = max(parts.before, meter.live())
        for step in program:
            anchor = getattr(step, 'anchor', None)
            if isinstance(step, Block) and anchor not in parts.context:
                held = meter.live()
                context = self._backbone.anchor(anchor).context(self._backbone.grid(state.images))
                parts.context[anchor] = meter.live() - held
                del context
            held = meter.live()
            meter.restart()
            state = self._backbone.advance(state, (step,))
            taken = meter.peak() - held
            if isinstance(step, Block):
                taken -= parts.context[anchor]
            elif isinstance(step, Tap):
                parts.tap = _bytes(state.taps[step.position])
            name = part_of(space, step)
            parts.working[name] = max(parts.working.get(name, 0), taken)
            if anchor is not None:
                parts.tokens[anchor] = _bytes(state.tokens)
        meter.restart()
        return state


def _bytes(tensor: Any) -> int:
    return tensor.numel() * tensor.element_size()


def measure_parts(
    backbone: StitchedViT, infer: Callable[[], Any], meter: Callable[[], Meter]
) -> MemoryParts:
    """Bytes of all parts, from one inference each of few stitches that run all of them.

    Args:
        backbone: Stitched backbone of the model.
        infer: Makes the input and runs one inference of the active stitch.
        meter: Makes a meter.
    """
    parts = MemoryParts()
    for stitch in covering_stitches(backbone.space):
        with backbone.use_stitch(stitch), meter() as active:
            backbone.prefix_cache = StepMeter(backbone, active, parts)
            try:
                infer()
            finally:
                backbone.prefix_cache = None
            parts.rest = max(parts.rest, active.peak())
    return parts


def measure_whole(
    backbone: StitchedViT,
    infer: Callable[[], Any],
    meter: Callable[[], Meter],
    stitch: Stitch | str,
) -> int:
    """Most bytes that an inference of a stitch holds at once, weights not counted."""
    with backbone.use_stitch(stitch), meter() as active:
        infer()
        return active.peak()


def compose_peak(space: StitchSpace, stitch: Stitch | str, parts: MemoryParts) -> int:
    """Most bytes that an inference of a stitch holds at once, weights not counted.

    The maximum over its steps of what is held before the step (what the model holds outside, the
    tokens, the taps so far and the contexts of the anchors entered so far) plus what the step
    takes, or what the rest of the model takes if that is more.
    """
    peak, taps, tokens, contexts = parts.rest, 0, 0, set()
    tokens_are_tap = False
    for step in space.program(stitch):
        if isinstance(step, Block):
            contexts.add(step.anchor)
        held = parts.before + taps * parts.tap + (0 if tokens_are_tap else tokens)
        held += sum(parts.context[anchor] for anchor in contexts)
        peak = max(peak, held + parts.working[part_of(space, step)])
        if isinstance(step, Tap):
            taps += 1
            # Without lift and norm a tap is the tokens themselves.
            tokens_are_tap = step.lift is None and not space.normed_taps
        else:
            anchor = step.anchor if hasattr(step, 'anchor') else step.layer.target
            tokens, tokens_are_tap = parts.tokens[anchor], False
    return peak


def weight_bytes(model: nn.Module, backbone: StitchedViT) -> Mapping[str, int]:
    """Bytes of the weights that each stitch needs, with neck and head, without auxiliary heads."""
    own = {id(parameter) for parameter in backbone.parameters()}
    auxiliary = getattr(model, 'auxiliary_head', None)
    if auxiliary is not None:
        own |= {id(parameter) for parameter in auxiliary.parameters()}
    outside = sum(_bytes(p) for p in model.parameters() if id(p) not in own)
    size = next(backbone.parameters()).element_size()
    return {name: outside + size * cost.params for name, cost in backbone.costs.items()}
