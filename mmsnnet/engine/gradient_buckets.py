"""Gradients averaged over processes, many in one message."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, distributed, nn


class Bucket:
    """Gradients that are averaged over all processes in one message.

    Args:
        parameters: Parameters of one type on one device.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self._message: Tensor | None = None
        self._work: distributed.Work | None = None

    @torch.no_grad()
    def launch(self) -> None:
        """Begin to average. A process that has no gradient of a parameter sends zeros."""
        first = self.parameters[0]
        size = sum(parameter.numel() for parameter in self.parameters)
        self._message = torch.empty(size, dtype=first.dtype, device=first.device)
        # Divided before they are summed, as DistributedDataParallel does: to the same bits.
        share = 1.0 / distributed.get_world_size()
        for parameter, part in self._parts():
            if parameter.grad is None:
                part.zero_()
            else:
                torch.mul(parameter.grad, share, out=part)
        self._work = distributed.all_reduce(self._message, async_op=True)

    @torch.no_grad()
    def finish(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Parameters and the means of their gradients, once these are there."""
        self._work.wait()
        yield from self._parts()
        self._message = self._work = None

    def _parts(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        parts = self._message.split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts):
            yield parameter, part.view_as(parameter)


def make_buckets(parameters: Iterable[nn.Parameter], capacity: int) -> list[Bucket]:
    """Buckets of parameters, in the order in which the first ones of each come.

    Args:
        parameters: Parameters; gradients of those that come first are there first.
        capacity: Bytes that a bucket holds, but for its last parameter.
    """
    buckets: list[list[nn.Parameter]] = []
    filling: dict[tuple[torch.dtype, torch.device], tuple[list[nn.Parameter], int]] = {}
    for parameter in parameters:
        kind = parameter.dtype, parameter.device
        members, size = filling.get(kind, ([], capacity))
        if size >= capacity:
            members, size = [], 0
            buckets.append(members)
        members.append(parameter)
        filling[kind] = members, size + parameter.numel() * parameter.element_size()
    return [Bucket(members) for members in buckets]


class Control:
    """Small numbers that processes exchange to agree on what they send.

    They travel by gloo, between the hosts, where that is there: to read a number from a GPU would
    wait for all that runs on it.

    Args:
        device: Device of the model, for where gloo is not there.
    """

    def __init__(self, device: torch.device) -> None:
        self._group, self._device = None, device
        if distributed.get_backend() != 'gloo' and distributed.is_gloo_available():
            self._group = distributed.new_group(backend='gloo')
        if self._group is not None or distributed.get_backend() == 'gloo':
            self._device = torch.device('cpu')

    def ask(self, *things: object) -> Agreement:
        """Begin to find out whether all processes have things of the same ``repr``."""
        digest = hashlib.sha256(repr(things).encode()).digest()
        number = int.from_bytes(digest[:7], 'big')
        extremes = torch.tensor([number, -number], dtype=torch.long, device=self._device)
        return Agreement(extremes, self._reduce(extremes, async_op=True))

    def largest(self, numbers: list[int]) -> list[int]:
        """The largest of all processes for each of some numbers from 0 to 255."""
        values = torch.tensor(numbers, dtype=torch.uint8, device=self._device)
        self._reduce(values)
        return values.tolist()

    def _reduce(self, values: Tensor, async_op: bool = False) -> distributed.Work | None:
        maximum = distributed.ReduceOp.MAX
        return distributed.all_reduce(values, maximum, group=self._group, async_op=async_op)


class Agreement:
    """Answer of all processes to :meth:`Control.ask`, which may still be on its way."""

    def __init__(self, extremes: Tensor, work: distributed.Work) -> None:
        self._extremes, self._work = extremes, work

    def reached(self) -> bool:
        """Whether all processes have the same; waits until that is known."""
        self._work.wait()
        largest, smallest = self._extremes.tolist()
        return largest == -smallest
