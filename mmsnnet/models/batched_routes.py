"""Runs stitches over the same images in groups, what enters a block together in one batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mmsnnet.stitching import Block, Step, Stitch
from mmsnnet.stitching.route_batches import RouteBatches
from mmsnnet.stitching.route_tree import Visit

from .prefix_cache import Call, PrefixCache, state_tensors
from .stitch_network import RunState
from .stitched_vit import StitchedViT


def check_batch_routes(count: int) -> int:
    """The number of routes in a batch, if it is possible.

    Raises:
        ValueError: If it is below 1.
    """
    if count < 1:
        raise ValueError(f'batch_routes={count} is not possible: give 1 (no batches) or more.')
    return count


class BatchedRoutes(PrefixCache):
    """Shares common beginnings of stitches, and batches what they run apart in the same blocks.

    The first stitch of a group that runs the backbone on some images does so for the whole group:
    step by step, the tokens of all routes that come to a block are run through it as one batch.
    The features of the others are kept until they ask for them, with an equal input; a forward
    whose input differs from stitch to stitch is left alone. Features agree with those of single
    forwards to rounding (1e-4), since the sums of a larger batch may be taken in another order.

    Batches pay where a block alone does not fill the device: small images, narrow anchors, a
    batch of one image, a GPU.

    Args:
        backbone: The backbone.
        stitches: What will be run on every batch.
        max_memory: Most bytes that kept features and states may hold; None for no bound. Groups
            become smaller where features do not fit. What a block itself takes while it runs grows
            with the group and is not counted.
        batch_routes: Most stitches in a group.

    Raises:
        ValueError: If there are no stitches, or a bound is not possible.
    """

    def __init__(
        self,
        backbone: StitchedViT,
        stitches: Iterable[str | int | Stitch],
        max_memory: float | None = None,
        batch_routes: int = 8,
    ) -> None:
        super().__init__(backbone, stitches, max_memory)
        self.batch_routes = check_batch_routes(batch_routes)
        space = backbone.space
        self._batches = RouteBatches({name: space.program(name) for name in self.tree.order})
        self._turns = {name: turn for turn, name in enumerate(self.tree.order)}
        self._alone: set[int] = set()  # forwards whose input is a stitch's own

    def _enter(self, visit: Visit) -> None:
        """Begin a route; states are let go when the next group begins."""
        self._visit, self._index = visit, 0

    def advance(self, state: RunState, program: Sequence[Step]) -> RunState:
        """State behind the last step of a program, without its tokens.

        Args:
            state: State before the first step.
            program: Program of the active stitch; any other is run in full.
        """
        if not self._is_shared(program):
            return self.backbone.advance(state, program)
        call = self._call(state.images)
        end = self._batches.paths[self._visit.name][-1]
        if end in call.states:
            done, _ = call.states.pop(end)
            self._held.remove(state_tensors(done))
        else:
            done = self._run_group(call, state, end)
        if not call.states:
            call.images = None
        return replace(done, images=state.images)

    def _call(self, images: Tensor) -> Call:
        index = self._index
        former = self._calls[index] if index < len(self._calls) else None
        call = super()._call(images)
        if former is not None and former is not call and former.images is not None:
            self._alone.add(index)
        return call

    def _run_group(self, call: Call, state: RunState, end: int) -> RunState:
        """Run the active stitch and those after it; keeps the ends of these.

        Returns:
            The state at the end of the active stitch.
        """
        turn, paths = self._turns[self._visit.name], self._batches.paths
        stop = turn + self._group_size(state.images)
        last = self.tree.visits[min(stop, len(self.tree)) - 1]
        later = {paths[last.name][steps]: uses for steps, uses in last.holds}
        names = self.tree.order[turn:stop]
        ends = [paths[name][-1] for name in names]
        known = {0: state} | {place: kept for place, (kept, _) in call.states.items()}
        found = self._run(names, known, {*later, *ends})
        self._retain(call, later)
        for place in ends[1:]:
            self._hold(call, place, replace(found[place], tokens=None), 1)
        for place in sorted(later, reverse=True):  # the deepest spares most
            if place in found and place not in call.states:
                self._hold(call, place, found[place], later[place])
        return replace(found[end], tokens=None)

    def _group_size(self, images: Tensor) -> int:
        """Stitches from the active one on, of which the features of all but one can be kept."""
        if self._index - 1 in self._alone:
            return 1
        if self.max_memory is None:
            return self.batch_routes
        backbone, space = self.backbone, self.backbone.space
        rows, columns = backbone.grid(images)
        tokens = len(images) * (rows * columns + space.anchors[-1].prefix_tokens)
        size = next(backbone.parameters()).element_size()
        features = len(space.taps) * tokens * backbone.channels * size
        free = self.max_memory - self._held.total - images.untyped_storage().nbytes()
        return min(self.batch_routes, 1 + int(max(free, 0) // features))

    def _hold(self, call: Call, place: int, state: RunState, uses: int) -> None:
        """Keep a state, if it fits."""
        self._held.add(state_tensors(state))
        if self.max_memory is not None and self._held.total > self.max_memory:
            self._held.remove(state_tensors(state))
            return
        call.states[place] = state, uses
        self._held.note_peak()

    def _run(
        self, names: Sequence[str], known: Mapping[int, RunState], wanted: Collection[int]
    ) -> dict[int, RunState]:
        """States at wanted places on the paths of routes, in memory of their own.

        Args:
            names: Of the routes.
            known: States at places that were reached before.
            wanted: Places; those that the routes do not come to anew may be missing.
        """
        plan = self._batches.plan(names, known)
        parents = self._batches.parents
        uses = Counter(parents[place] for _, places in plan for place in places)
        states, contexts = dict(known), {}
        for step, places in plan:
            before = [states[parents[place]] for place in places]
            states.update(zip(places, self._step(step, before, contexts)))
            for place in places:
                uses[parents[place]] -= 1
                if not uses[parents[place]] and parents[place] not in wanted:
                    del states[parents[place]]
        return {
            place: replace(state, tokens=_own(state.tokens))
            for place, state in states.items()
            if place in wanted and place not in known
        }

    def _step(
        self, step: Step, before: Sequence[RunState], contexts: dict[int, object]
    ) -> list[RunState]:
        """States after a step, which is done in one batch for all states before it."""
        backbone, (first, *others) = self.backbone, before
        if isinstance(step, Block):
            anchor = backbone.anchor(step.anchor)
            if step.anchor not in contexts:
                contexts[step.anchor] = anchor.context(backbone.grid(first.images))
            tokens = torch.cat([state.tokens for state in before]) if others else first.tokens
            tokens = anchor.run_block(tokens, step.index, contexts[step.anchor])
            return _with_tokens(before, tokens)
        if not others:
            return [backbone.advance(first, (step,))]
        tokens = torch.cat([state.tokens for state in before])
        after = backbone.advance(RunState(first.images, tokens), (step,))
        if not after.taps:
            return _with_tokens(before, after.tokens)
        ((position, taken),) = after.taps.items()
        parts = taken.chunk(len(before))
        return [
            replace(state, taps={**state.taps, position: _own(part)})
            for state, part in zip(before, parts)
        ]


def _with_tokens(states: Sequence[RunState], tokens: Tensor) -> list[RunState]:
    """States with parts of the tokens (len(states) * B, N, C) of a batch."""
    parts = tokens.chunk(len(states))
    return [replace(state, tokens=part) for state, part in zip(states, parts)]


def _own(tensor: Tensor) -> Tensor:
    """A tensor that does not keep a larger one in memory."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
