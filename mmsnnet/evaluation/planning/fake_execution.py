"""Running code on tensors that have shapes and types but no data.

torch's fake tensors run a whole training step so, backward too, in seconds and without memory.
They cannot answer what depends on values, such as how many labels are not ignored. Here such
questions have answers that need the most memory: every element is chosen, every box is kept,
every value is distinct. Other numbers are 1, and arrays that leave torch hold zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_MASKS = (torch.bool, torch.uint8)


class _FakeMode(FakeTensorMode):
    """A mode that copies of its tensors share, where hosts deepcopy their data samples."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _FakeMode:
        return self


def _indices(count: int) -> Tensor:
    return torch.empty(count, dtype=torch.long)


def _nonzero(mask: Tensor) -> Tensor:
    return torch.empty(mask.numel(), mask.dim(), dtype=torch.long)


def _scalar(value: Tensor) -> bool | int | float | complex:
    return _numpy_type(value).type(1).item()


def _numpy_type(tensor: Tensor) -> np.dtype:
    return np.dtype(str(tensor.dtype).rpartition('.')[2])


def _unique(values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
    count = values.numel()
    return values.new_empty(count), _indices(count), _indices(count)


def _masked_select(values: Tensor, mask: Tensor) -> Tensor:
    return values.new_empty(torch.broadcast_shapes(values.shape, mask.shape).numel())


def _kept_boxes(boxes: Tensor, *_: Any) -> Tensor:
    return _indices(len(boxes))


_ANSWERS: Mapping[str, Callable[..., Any]] = {
    'aten::nonzero': _nonzero,
    'aten::_local_scalar_dense': _scalar,
    'aten::_unique2': _unique,
    'aten::masked_select': _masked_select,
    'torchvision::nms': _kept_boxes,
}


class _Answers(TorchDispatchMode):
    """Answers operators whose result depends on values."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = func.name().partition('.')[0]
        if name in _ANSWERS:
            return _ANSWERS[name](*args, **(kwargs or {}))
        if name == 'aten::index':
            args = (args[0], [one for index in args[1] for one in _without_mask(index)])
        return func(*args, **(kwargs or {}))


def _without_mask(index: Tensor | None) -> list[Tensor | None]:
    """An index of tensor[index] as it is; a mask as indices of all its elements."""
    if index is None or index.dtype not in _MASKS:
        return [index]
    return [_indices(index.numel()) for _ in range(index.dim())]


class _Arrays(TorchFunctionMode):
    """Gives arrays and lists of zeros where code asks a tensor for its values.

    Args:
        joint_norms: Whether norms over a batch see other processes' images as well, so that one
            value of their own is enough.
    """

    def __init__(self, joint_norms: bool) -> None:
        super().__init__()
        self._joint_norms = joint_norms

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is functional.batch_norm and self._joint_norms:
            return _unchecked_batch_norm(*args, **(kwargs or {}))
        if func in (Tensor.numpy, Tensor.tolist):
            zeros = np.zeros(tuple(args[0].shape), _numpy_type(args[0]))
            return zeros if func is Tensor.numpy else zeros.tolist()
        return func(*args, **(kwargs or {}))


def _unchecked_batch_norm(
    values: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Batch norm as torch computes it, without its refusal of one value per channel."""
    if values.numel() == values.shape[1]:  # whose unbiased variance fake tensors fail at
        mean = variance = None
    return torch.batch_norm(
        values, weight, bias, mean, variance, training, momentum, eps, cudnn_enabled=False
    )


class FakeExecution:
    """A place where modules run without data.

    Results have the shapes, types and devices of a real run; their number is the most that values
    could lead to. Nothing is random, nothing is computed.

    Args:
        joint_norms: Whether norms over a batch see other processes' images as well, so that one
            image of their own is enough.
    """

    def __init__(self, joint_norms: bool = False) -> None:
        self._mode = _FakeMode(allow_non_fake_inputs=True)
        self._joint_norms = joint_norms

    def adopt(self, module: nn.Module) -> None:
        """Replace all parameters and buffers of a module, for good, by fake ones on the CPU."""
        fakes: dict[Tensor, nn.Parameter] = {}  # shared parameters stay shared
        with self._mode:
            for child in module.modules():
                for name, buffer in child._buffers.items():
                    if buffer is not None:
                        child._buffers[name] = _like(buffer)
                for name, parameter in child._parameters.items():
                    if parameter is not None and parameter not in fakes:
                        fakes[parameter] = nn.Parameter(_like(parameter), parameter.requires_grad)
                    child._parameters[name] = fakes.get(parameter)

    @contextmanager
    def running(self, observer: TorchDispatchMode) -> Iterator[None]:
        """Run everything in a ``with`` block so.

        Args:
            observer: Mode of torch that sees all operators and their results, such as a meter.
        """
        with _Arrays(self._joint_norms), self._mode, _Answers(), observer:
            yield


def _like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device='cpu')
