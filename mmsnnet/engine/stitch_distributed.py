"""Trains in several processes that exchange the gradients of what ran, and no others."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, distributed, nn

from mmsnnet.models import find_stitched_backbone
from mmsnnet.models.route_parameters import parameters_of_route
from mmsnnet.registry import MODEL_WRAPPERS
from mmsnnet.stitching.value_checks import check_number

from .gradient_buckets import Agreement, Bucket, Control, make_buckets

#: What a backward pass made of a parameter's gradient.
_IDLE, _USED, _USED_AFTER_LAUNCH = 0, 1, 2


class _Backward:
    """What is known of one backward pass whose gradients are averaged.

    Attributes:
        stitches: Names of the stitches that its forward ran; none if that is not known.
        agreement: Whether all processes run them; None if no process can know.
        agreed: Whether they did; None until that is known.
        usage: What became of each parameter.
        buckets: What is sent while the pass runs; None until processes agreed.
        missing: Of each bucket, the parameters whose gradients are still to come.
        launched: Buckets that are sent.
    """

    def __init__(
        self, stitches: tuple[str, ...], agreement: Agreement | None, parameters: int
    ) -> None:
        self.stitches, self.agreement = stitches, agreement
        self.agreed: bool | None = None
        self.usage = [_IDLE] * parameters
        self.buckets: list[Bucket] | None = None
        self.bucket_of: dict[int, int] = {}
        self.missing: list[set[int]] = []
        self.launched = 0


@MODEL_WRAPPERS.register_module()
class StitchDistributedDataParallel(nn.Module):
    """DistributedDataParallel that exchanges the gradients of the stitch that ran.

    ``model_wrapper_cfg=dict(type='StitchDistributedDataParallel')`` in a config. torch's own, with
    ``find_unused_parameters``, sends zeros for blocks that no process ran. Here each process
    predicts from its stitch which gradients will come, and sends them in buckets while the
    backward pass still runs. Small messages make sure that all processes run the same stitch, and
    in the end which gradients there were: one that was not predicted is sent after the pass. Where
    stitches differ, so are all gradients of the backbone that any process has. Gradients equal
    those of torch's, and gradients that no process has stay as they were.

    Args:
        module: Model with a StitchedViT, on its device.
        broadcast_buffers: Whether the buffers of the first process go to the others before a
            forward pass. MMEngine's Runner trains without.
        bucket_cap_mb: Size of a message in MiB.
        detect_anomalous_params: MMEngine's, for debugging.
        find_unused_parameters, device_ids: Taken for what fits torch's, and without effect.
        static_graph: Refused, as stitches are different graphs.
        **unknown: Refused.

    Raises:
        TypeError: If an argument is unknown.
        ValueError: If ``static_graph`` is set, models of processes differ, a number is not
            possible, or the model has no StitchedViT to train.
    """

    def __init__(
        self,
        module: nn.Module,
        broadcast_buffers: bool = False,
        bucket_cap_mb: float = 25,
        detect_anomalous_params: bool = False,
        find_unused_parameters: bool = True,
        device_ids: Sequence[int] | None = None,
        static_graph: bool = False,
        **unknown: Any,
    ) -> None:
        super().__init__()
        _check(static_graph, bucket_cap_mb, unknown)
        self.module = module
        self.detect_anomalous_params = detect_anomalous_params
        self._broadcasts_buffers = broadcast_buffers
        self._capacity = int(bucket_cap_mb * 2**20)
        self._backbone = [find_stitched_backbone(module)]  # in a list: its keys are the module's
        self._parameters_in_order = list(module.parameters())
        self._index = {p: index for index, p in enumerate(self._parameters_in_order)}
        self._in_backbone = {self._index[p] for p in self._backbone[0].parameters()}
        self._synchronises = self._buffers_due = True
        self._backward: _Backward | None = None
        #: Parameters with gradients of this process alone, from backward passes of ``no_sync``.
        self._unsynchronised: set[int] = set()
        #: Parameters outside of the backbone that stitches left without gradients, by the names of
        #: these; under none of them, those of the last ones.
        self._idle_outside: dict[tuple[str, ...], frozenset[int]] = {(): frozenset()}
        self._told_of_difference = False
        self._watched: set[int] = set()
        self._control = Control(self._parameters_in_order[0].device)
        self._start_equal()

    def _start_equal(self) -> None:
        """Give all processes the weights of the first."""
        described = [(n, tuple(p.shape), p.dtype) for n, p in self.module.named_parameters()]
        if not self._control.ask(described).reached():
            raise ValueError(
                'Parameters differ in name, shape or type between processes: build the model from '
                'the same config in all of them.'
            )
        for tensor in (*self._parameters_in_order, *self.module.buffers()):
            distributed.broadcast(tensor.detach(), src=0)

    # -- steps, as MMEngine calls them -----------------------------------------------------------

    train_step = MMDistributedDataParallel.train_step
    val_step = MMDistributedDataParallel.val_step
    test_step = MMDistributedDataParallel.test_step
    _run_forward = MMDistributedDataParallel._run_forward

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Let the gradients of forward passes within the block be those of this process alone.

        The first backward pass of a forward outside averages them together with its own.
        """
        former, self._synchronises = self._synchronises, False
        try:
            yield
        finally:
            self._synchronises = former

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """Outputs of the model; averages gradients in the backward pass that follows."""
        if self._broadcasts_buffers and self._buffers_due:
            for buffer in self.module.buffers():
                distributed.broadcast(buffer.detach(), src=0)
        outputs = self.module(*inputs, **keywords)
        if torch.is_grad_enabled():
            self._watch()
            self._buffers_due = self._synchronises
            if self._synchronises:
                self._expect_backward(outputs)
        return outputs

    # -- gradients -------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Be told of the gradients of all parameters that learn, those that were thawed too."""
        reference = weakref.ref(self)
        for index, parameter in enumerate(self._parameters_in_order):
            if parameter.requires_grad and index not in self._watched:
                self._watched.add(index)

                def arrived(_: Tensor, index: int = index) -> None:
                    wrapper = reference()
                    if wrapper is not None:
                        wrapper._gradient_arrived(index)

                parameter.register_post_accumulate_grad_hook(arrived)

    def _expect_backward(self, outputs: Any) -> None:
        """Prepare for the backward pass of a forward's outputs."""
        stitches = tuple(stitch.name for stitch in self._backbone[0].last_stitches)
        agreement = self._control.ask(stitches, sorted(self._unsynchronised))
        backward = _Backward(stitches, agreement, len(self._parameters_in_order))
        self._backward = None  # of a pass that an error ended
        for tensor in _tensors(outputs):
            if tensor.requires_grad:
                tensor.register_hook(lambda _, backward=backward: self._begin(backward))

    def _begin(self, backward: _Backward) -> None:
        """Begin to average, where the first gradient of an output comes by."""
        if self._backward is not None:
            return
        if backward.buckets is not None:  # the second pass through one forward
            backward = _Backward((), None, len(self._parameters_in_order))
        self._backward = backward
        torch.autograd.Variable._execution_engine.queue_callback(self._finish)

    def _gradient_arrived(self, index: int) -> None:
        """Send what is complete, now that a parameter has its gradient."""
        backward = self._backward
        if backward is None:
            self._unsynchronised.add(index)
            return
        if backward.buckets is None:
            self._lay_out(backward)
        bucket = backward.bucket_of.get(index)
        if bucket is not None and bucket < backward.launched:
            backward.usage[index] = _USED_AFTER_LAUNCH
            return
        backward.usage[index] = _USED
        if bucket is not None:
            backward.missing[bucket].discard(index)
            _launch_complete(backward)

    def _lay_out(self, backward: _Backward) -> None:
        """Fill buckets with the gradients that are predicted, the same ones in all processes."""
        backward.agreed = backward.agreement is not None and backward.agreement.reached()
        if not backward.agreed and backward.agreement is not None:
            self._tell_of_difference()
        for index in self._unsynchronised:
            backward.usage[index] = _USED
        learning = self._predicted(backward.stitches if backward.agreed else ())
        # What earlier passes left is there already; it may become a gradient of this one too.
        left = self._unsynchronised.difference(learning) if backward.agreed else ()
        parameters = self._parameters_in_order
        order = (parameters[index] for index in (*sorted(left), *learning))
        backward.buckets = make_buckets(order, self._capacity)
        for place, bucket in enumerate(backward.buckets):
            members = [self._index[parameter] for parameter in bucket.parameters]
            backward.bucket_of.update(dict.fromkeys(members, place))
            backward.missing.append(set(members).difference(left))

    def _predicted(self, stitches: tuple[str, ...]) -> list[int]:
        """Parameters whose gradients a backward pass will bring, in about this order.

        Args:
            stitches: What all processes ran; none if that differs.
        """
        idle = self._idle_outside.get(stitches, self._idle_outside[()]) if stitches else ()
        routes = (parameters_of_route(self._backbone[0], stitch) for stitch in stitches)
        run = dict.fromkeys(self._index[p] for route in routes for p in route)
        outside = reversed(range(len(self._parameters_in_order)))
        order = [i for i in outside if i not in self._in_backbone and i not in idle]
        order += reversed(run)
        return [i for i in order if self._parameters_in_order[i].requires_grad]

    def _tell_of_difference(self) -> None:
        """Say once that processes run different stitches."""
        if not self._told_of_difference:
            self._told_of_difference = True
            print_log(
                'Processes run different stitches: gradients of the backbone are exchanged after '
                'the backward pass in place of during it. It takes longer; a sampler without '
                'per_rank=True runs the same stitch in all processes.',
                logger='current',
                level=30,
            )

    def _finish(self) -> None:
        """Send the rest, wait for all, and put the means in place."""
        backward, self._backward = self._backward, None
        if backward.buckets is None:
            self._lay_out(backward)
        for bucket in backward.buckets[backward.launched :]:
            bucket.launch()
        usage = self._control.largest(backward.usage)
        parameters = self._parameters_in_order
        late = [
            index
            for index in reversed(range(len(parameters)))
            if usage[index] == _USED_AFTER_LAUNCH
            or (usage[index] == _USED and index not in backward.bucket_of)
        ]
        rest = make_buckets((parameters[index] for index in late), self._capacity)
        for bucket in rest:
            bucket.launch()
        for bucket in backward.buckets:
            for parameter, mean in bucket.finish():
                if usage[self._index[parameter]] == _USED:
                    _set_gradient(parameter, mean)
        for bucket in rest:
            for parameter, mean in bucket.finish():
                _set_gradient(parameter, mean)
        self._unsynchronised.clear()
        if backward.agreed and backward.stitches:
            outside = set(range(len(parameters))) - self._in_backbone
            idle = frozenset(index for index in outside if not usage[index])
            self._idle_outside[backward.stitches] = self._idle_outside[()] = idle


def _launch_complete(backward: _Backward) -> None:
    """Send buckets that are complete; all processes send them in the same order."""
    for bucket in backward.buckets[backward.launched :]:
        if backward.missing[backward.launched]:
            return
        bucket.launch()
        backward.launched += 1


def _set_gradient(parameter: nn.Parameter, mean: Tensor) -> None:
    if parameter.grad is None:
        parameter.grad = torch.empty_like(parameter).copy_(mean)
    else:
        parameter.grad.copy_(mean)


def _tensors(outputs: Any) -> Iterator[Tensor]:
    """Tensors in dicts and sequences of a model's outputs."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping):
        for value in outputs.values():
            yield from _tensors(value)
    elif isinstance(outputs, (list, tuple)):
        for value in outputs:
            yield from _tensors(value)


def _check(static_graph: bool, bucket_cap_mb: float, unknown: Mapping[str, Any]) -> None:
    """Refuse what cannot be."""
    if static_graph:
        raise ValueError(
            'static_graph=True does not go with StitchDistributedDataParallel: each stitch is '
            'another graph. Leave it out.'
        )
    if check_number('bucket_cap_mb', bucket_cap_mb) <= 0:
        raise ValueError(f'bucket_cap_mb must be a positive number of MiB, got {bucket_cap_mb!r}.')
    if unknown:
        raise TypeError(
            f'StitchDistributedDataParallel has no argument {", ".join(map(repr, unknown))}; it '
            'has broadcast_buffers, bucket_cap_mb and detect_anomalous_params.'
        )
