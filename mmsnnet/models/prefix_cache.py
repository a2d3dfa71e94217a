"""Runs many stitches over the same images with each common beginning once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmsnnet.stitching import Step, Stitch
from mmsnnet.stitching.route_tree import RouteTree, Visit

from .stitch_network import RunState
from .stitched_vit import StitchedViT


class HeldTensors:
    """Bytes of tensors that are held, memory that several of them share counted once.

    Attributes:
        total: Bytes at present.
        peak: Most bytes at a call of :meth:`note_peak`.
    """

    def __init__(self) -> None:
        self.total = 0
        self.peak = 0
        self._holders: Counter[int] = Counter()

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that are held from now on."""
        for storage in (tensor.untyped_storage() for tensor in tensors):
            key = storage.data_ptr()
            self.total += 0 if self._holders[key] else storage.nbytes()
            self._holders[key] += 1

    def remove(self, tensors: Iterable[Tensor]) -> None:
        """Take back one :meth:`add` of the same tensors, which must not be freed before."""
        for storage in (tensor.untyped_storage() for tensor in tensors):
            key = storage.data_ptr()
            self._holders[key] -= 1
            if not self._holders[key]:
                del self._holders[key]
                self.total -= storage.nbytes()

    def note_peak(self) -> None:
        """Note the present total."""
        self.peak = max(self.peak, self.total)


@dataclass
class Call:
    """What is kept of one forward of the backbone among those that a model makes for a batch.

    Attributes:
        images: Input of that forward; None where nothing is kept.
        version: Count of in-place changes of the input when states were computed from it.
        states: By number of steps behind which each stands, with the routes that will take it up.
    """

    images: Tensor | None
    version: int
    states: dict[int, tuple[RunState, int]] = field(default_factory=dict)

    def is_of(self, images: Tensor) -> bool:
        """Whether the states are those of images."""
        if self.images is None or self.images.dtype != images.dtype:
            return False
        if _version(self.images) != self.version:
            return False
        return _is_same_memory(self.images, images) or torch.equal(self.images, images)


class PrefixCache:
    """Shares the work of common beginnings of stitches between forwards of a backbone.

    A model may run its backbone several times for a batch, as for the windows of a sliding
    inference or augmented copies. States are kept for each of these forwards, by their count
    within the batch, and serve as long as the input is equal to the one they were computed from;
    otherwise the forward runs in full. Features are the same bit for bit, since the same
    operations run on the same tensors. Heads and whatever else a model does are not touched.

    Only forwards in eval mode without gradients are shared, or only those in train mode with
    gradients, between :meth:`activate` and the end of its block; at any other time the backbone
    runs its programs itself. In train mode a common beginning draws its random numbers once, and
    its backward pass runs once as well if the losses of all stitches are summed.

    Args:
        backbone: The backbone.
        stitches: What will be run on every batch.
        learns: Whether it is forwards in train mode that are shared.
        max_memory: Most bytes that kept states may hold; None for no bound. What does not fit is
            computed again when needed. Between two routes a space with two crossings keeps two
            states (tokens and taps) of each forward of the batch.

    Raises:
        ValueError: If there are no stitches or the bound is negative.
    """

    def __init__(
        self,
        backbone: StitchedViT,
        stitches: Iterable[str | int | Stitch],
        max_memory: float | None = None,
        learns: bool = False,
    ) -> None:
        if max_memory is not None and max_memory < 0:
            raise ValueError(f'max_memory={max_memory} is not possible: give 0 or more bytes.')
        self.backbone = backbone
        self.max_memory = max_memory
        self.learns = learns
        space = backbone.space
        self.tree = RouteTree({space[one].name: space.program(one) for one in stitches})
        self._visit: Visit | None = None
        self._calls: list[Call] = []
        self._index = 0
        self._held = HeldTensors()

    @property
    def peak_bytes(self) -> int:
        """Most bytes that were kept at once so far, inputs that states belong to included."""
        return self._held.peak

    @contextmanager
    def activate(self) -> Iterator[PrefixCache]:
        """Serve the backbone's forwards for the length of a ``with`` block.

        Raises:
            RuntimeError: If something else runs the backbone's programs already.
        """
        try:
            with self.backbone.use_executor(self):
                yield self
        finally:
            self._forget_all()

    def routes(self) -> Iterator[Stitch]:
        """Stitches in the cheapest order, each active in the backbone until the next is asked for.

        To be called anew for each batch; the former active stitch is restored at the end.
        """
        self._forget_all()
        use = _use_training_stitch if self.learns else StitchedViT.use_stitch
        try:
            for visit in self.tree.visits:
                with use(self.backbone, visit.name) as stitch:
                    self._enter(visit)
                    yield stitch
        finally:
            self._forget_all()

    def _enter(self, visit: Visit) -> None:
        """Begin a route: of what is kept, only what it begins with is of use from now on."""
        self._visit, self._index = visit, 0
        for call in self._calls:
            kept = {steps: uses for steps, (_, uses) in call.states.items() if steps <= visit.start}
            self._retain(call, kept)

    def advance(self, state: RunState, program: Sequence[Step]) -> RunState:
        """State behind the last step of a program, as the backbone's own ``advance`` computes it.

        Args:
            state: State before the first step.
            program: Program of the active stitch; any other is run in full.
        """
        visit, backbone = self._visit, self.backbone
        if not self._is_shared(program):
            return backbone.advance(state, program)
        call = self._call(state.images)
        done = max(call.states, default=0)
        if done:
            state = call.states[done][0]
        self._retain(call, {steps: uses for steps, uses in visit.holds if steps <= done})
        for steps, uses in visit.holds:
            if steps > done:
                state, done = backbone.advance(state, program[done:steps]), steps
                self._keep(call, steps, state, uses)
        if not call.states:
            call.images = None
        return backbone.advance(state, program[done:])

    def _is_shared(self, program: Sequence[Step]) -> bool:
        """Whether a forward is one of the active stitch, in the mode that is shared."""
        backbone, visit = self.backbone, self._visit
        modes = {backbone.training, torch.is_grad_enabled()}
        if visit is None or modes != {self.learns}:
            return False
        return program is backbone.space.program(visit.name)

    def _call(self, images: Tensor) -> Call:
        """What is kept of this forward, with what is of other images forgotten."""
        index, self._index = self._index, self._index + 1
        if index == len(self._calls):
            self._calls.append(Call(images, _version(images)))
        elif not self._calls[index].is_of(images):
            self._retain(self._calls[index], {})
            self._calls[index] = Call(images, _version(images))
        return self._calls[index]

    def _retain(self, call: Call, wanted: Mapping[int, int]) -> None:
        """Forget all states but those behind a wanted number of steps, and note their new uses."""
        for steps in list(call.states):
            state, _ = call.states.pop(steps)
            if steps in wanted:
                call.states[steps] = state, wanted[steps]
            else:
                self._held.remove(_tensors(state))

    def _keep(self, call: Call, steps: int, state: RunState, uses: int) -> None:
        """Keep a state, and drop those that save least until all fit."""
        call.states[steps] = state, uses
        self._held.add(_tensors(state))
        while self.max_memory is not None and self._held.total > self.max_memory:
            kept = [(other, behind) for other in self._calls for behind in other.states]
            if not kept:
                break
            other, behind = min(kept, key=lambda entry: self._saving(*entry))
            self._held.remove(_tensors(other.states.pop(behind)[0]))
        self._held.note_peak()

    def _saving(self, call: Call, steps: int) -> int:
        """FLOPs of an image that a kept state spares in all, as if it lay on the active route."""
        below = max((other for other in call.states if other < steps), default=0)
        program = self.backbone.space.program(self._visit.name)
        flops = sum(self.backbone.costs.step_flops(step) for step in program[below:steps])
        return flops * call.states[steps][1]

    def _forget_all(self) -> None:
        for call in self._calls:
            self._retain(call, {})
        self._visit, self._calls = None, []


@contextmanager
def _use_training_stitch(backbone: StitchedViT, name: str) -> Iterator[Stitch]:
    """Choose what train-mode forwards run within a ``with`` block, then restore the former."""
    former, stitch = backbone._training_stitch, backbone.space[name]
    backbone.set_training_stitch(stitch)
    try:
        yield stitch
    finally:
        backbone.set_training_stitch(former)


def _tensors(state: RunState) -> list[Tensor]:
    """Tensors that a state keeps in memory."""
    tokens = [] if state.tokens is None else [state.tokens]
    return [state.images, *tokens, *state.taps.values()]


def _version(tensor: Tensor) -> int:
    """Count of in-place changes; inference tensors keep none."""
    return 0 if tensor.is_inference() else tensor._version


def _is_same_memory(one: Tensor, other: Tensor) -> bool:
    return one is other or (
        one.data_ptr() == other.data_ptr()
        and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
        and one.shape == other.shape
        and one.stride() == other.stride()
    )
