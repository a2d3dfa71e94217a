"""Peak memory of every stitch, composed from what its components take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Union

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from mmsnnet.models import RunState, StitchedViT
from mmsnnet.models.host.lookup import reads_anchor_tokens
from mmsnnet.stitching import Block, Step, Stitch, StitchSpace, Tap

from .components import component_of, covering_stitches


class TensorMeter(TorchDispatchMode):
    """Counts the bytes of tensors made under it, on any device.

    The storage of an operator's result is alive until nothing refers to it any more; the peak is
    taken right after each operator, while its inputs and outputs are both alive. Scratch space
    inside an operator (of a convolution or a matrix product) is not seen, nor is what the
    allocator keeps in reserve. Weights, made before, do not count.

    To be used under ``torch.no_grad()``; ``torch.inference_mode()`` hides the insides of composite
    operators such as attention.
    """

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self._peak = 0

    def live(self) -> int:
        """Bytes of tensors that are alive."""
        self._live = {key: item for key, item in self._live.items() if not item[0].expired()}
        return sum(size for _, size in self._live.values())

    def restart(self) -> None:
        """Let the peak begin anew at what is alive now."""
        self._peak = self.live()

    def peak(self) -> int:
        """Most bytes alive at once since the start or the last :meth:`restart`."""
        return self._peak

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        old = {_key(tensor) for tensor in _tensors((args, kwargs or {}))}
        for tensor in _tensors(out):
            if _key(tensor) not in old:  # a view makes nothing
                storage = tensor.untyped_storage()
                self._live[_key(tensor)] = StorageWeakRef(storage), storage.nbytes()
        self._peak = max(self._peak, self.live())
        return out


def _tensors(nest: Any) -> list[Tensor]:
    return [item for item in tree_flatten(nest)[0] if isinstance(item, Tensor)]


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class CudaMeter:
    """The same of a CUDA device, as its allocator counts it; with all scratch space.

    Args:
        device: The device; it need not be the current one of the process.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __enter__(self) -> CudaMeter:
        torch.cuda.synchronize(self._device)
        self._before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def live(self) -> int:
        """Bytes allocated at present, beyond those at the start."""
        return torch.cuda.memory_allocated(self._device) - self._before

    def restart(self) -> None:
        """Let the peak begin anew at what is alive now."""
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> int:
        """Most bytes allocated at once since the start or the last :meth:`restart`."""
        return torch.cuda.max_memory_allocated(self._device) - self._before


Meter = Union[TensorMeter, CudaMeter]


def meter_of(device: torch.device) -> Callable[[], Meter]:
    """What makes meters of a device, 'cpu' or 'cuda'."""
    return partial(CudaMeter, device) if device.type == 'cuda' else TensorMeter


@dataclass
class ComponentMemory:
    """Bytes that the components of an inference take.

    Attributes:
        before: Alive when the backbone is called, in the call where it is most.
        tokens: Of the tokens of each anchor, by index.
        tap: Of one tap at the largest width.
        context: Of what the blocks of each anchor need besides, by index.
        working: Most that a step of a component takes beyond what was alive before it, its own
            output included and its context not.
        rest: Most of anything outside the backbone's steps; the same for every stitch.
    """

    before: int = 0
    tokens: dict[int, int] = field(default_factory=dict)
    tap: int = 0
    context: dict[int, int] = field(default_factory=dict)
    working: dict[str, int] = field(default_factory=dict)
    rest: int = 0


class ProgramMeter:
    """Runs programs for a backbone step by step and records what each takes.

    Args:
        backbone: The backbone.
        meter: Counts, and is active.
        memory: Where it is recorded.
    """

    def __init__(self, backbone: StitchedViT, meter: Meter, memory: ComponentMemory) -> None:
        self._backbone = backbone
        self._meter = meter
        self._memory = memory

    def advance(self, state: RunState, program: Sequence[Step]) -> RunState:
        """State behind a whole program."""
        meter, memory, space = self._meter, self._memory, self._backbone.space
        memory.rest = max(memory.rest, meter.peak())
        memory.before = max(memory.before, meter.live())
        for step in program:
            anchor = getattr(step, 'anchor', None)
            if isinstance(step, Block) and anchor not in memory.context:
                before = meter.live()
                context = self._backbone.anchor(anchor).context(self._backbone.grid(state.images))
                memory.context[anchor] = meter.live() - before
                del context
            before = meter.live()
            meter.restart()
            state = self._backbone.advance(state, (step,))
            taken = meter.peak() - before
            if isinstance(step, Block):
                taken -= memory.context[anchor]
            elif isinstance(step, Tap):
                memory.tap = _bytes(state.taps[step.position])
            name = component_of(space, step)
            memory.working[name] = max(memory.working.get(name, 0), taken)
            if anchor is not None:
                memory.tokens[anchor] = _bytes(state.tokens)
        meter.restart()
        return state


def _bytes(tensor: Any) -> int:
    return tensor.numel() * tensor.element_size()


def measure_components(
    backbone: StitchedViT, infer: Callable[[], Any], meter: Callable[[], Meter]
) -> ComponentMemory:
    """Bytes of all components, from one inference each of few stitches that run all of them.

    Args:
        backbone: Stitched backbone of the model.
        infer: Makes the input and runs one inference of the active stitch.
        meter: Makes a meter.
    """
    memory = ComponentMemory()
    for stitch in covering_stitches(backbone.space):
        with backbone.use_stitch(stitch), meter() as active:
            with backbone.use_executor(ProgramMeter(backbone, active, memory)):
                infer()
            memory.rest = max(memory.rest, active.peak())
    return memory


def measure_whole(
    backbone: StitchedViT,
    infer: Callable[[], Any],
    meter: Callable[[], Meter],
    stitch: Stitch | str,
) -> int:
    """Most bytes that are alive at once in an inference of a stitch, weights not counted."""
    with backbone.use_stitch(stitch), meter() as active:
        infer()
        return active.peak()


def compose_peak(space: StitchSpace, stitch: Stitch | str, memory: ComponentMemory) -> int:
    """Most bytes that are alive at once in an inference of a stitch, weights not counted.

    The maximum over its steps of what is alive before the step (what the model keeps outside, the
    tokens, the taps so far and the contexts of the anchors entered so far) plus what the step
    takes, or what the rest of the model takes if that is more.
    """
    peak, taps, tokens, contexts = memory.rest, 0, 0, set()
    tokens_are_tap = False
    for step in space.program(stitch):
        if isinstance(step, Block):
            contexts.add(step.anchor)
        live = memory.before + taps * memory.tap + (0 if tokens_are_tap else tokens)
        live += sum(memory.context[anchor] for anchor in contexts)
        peak = max(peak, live + memory.working[component_of(space, step)])
        if isinstance(step, Tap):
            taps += 1
            # Without lift and norm a tap is the tokens themselves.
            tokens_are_tap = step.lift is None and not space.normed_taps
        else:
            anchor = step.anchor if hasattr(step, 'anchor') else step.layer.target
            tokens, tokens_are_tap = memory.tokens[anchor], False
    return peak


def weight_bytes(model: nn.Module, backbone: StitchedViT) -> Mapping[str, int]:
    """Bytes of the weights that each stitch needs, with neck and head, without auxiliary heads.

    Of a head with weights for each anchor those of the anchor count in which the stitch ends.
    """
    apart = [backbone, getattr(model, 'auxiliary_head', None)]
    space, by_label = backbone.space, dict.fromkeys(backbone.space.labels, 0)
    if reads_anchor_tokens(model):
        apart.append(model.head)
        for label in space.labels:
            by_label[label] = sum(map(_bytes, model.head.anchor_weights(label).values()))
    own = {id(p) for module in apart if module is not None for p in module.parameters()}
    outside = sum(_bytes(p) for p in model.parameters() if id(p) not in own)
    size = next(backbone.parameters()).element_size()
    costs = backbone.costs
    return {
        stitch.name: outside
        + by_label[space.labels[stitch.route.anchors[-1]]]
        + size * costs[stitch].params
        for stitch in space
    }
