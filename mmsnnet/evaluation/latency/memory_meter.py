"""Counts the memory that tensors take while something runs."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TensorMeter(TorchDispatchMode):
    """Counts the bytes of tensors made under it, on any device.

    Every result of an operator holds its storage until nothing refers to that any more; the peak
    is taken right after each operator, while its inputs and outputs are both alive. Scratch space
    inside an operator (of a convolution or a matrix product) is not seen, nor is what the
    allocator keeps in reserve. Weights, made before, do not count.

    To be used under ``torch.no_grad()``; ``torch.inference_mode()`` hides the insides of composite
    operators such as attention.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}
        self._peak = 0

    def live(self) -> int:
        """Bytes held at present."""
        self._held = {key: held for key, held in self._held.items() if not held[0].expired()}
        return sum(size for _, size in self._held.values())

    def restart(self) -> None:
        """Let the peak begin anew at what is held now."""
        self._peak = self.live()

    def peak(self) -> int:
        """Most bytes held at once since the start or the last :meth:`restart`."""
        return self._peak

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        known = [arg for arg in tree_leaves((args, kwargs or {})) if isinstance(arg, Tensor)]
        old = {_key(tensor) for tensor in known}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and _key(tensor) not in old:  # a view makes nothing
                storage = tensor.untyped_storage()
                self._held[_key(tensor)] = StorageWeakRef(storage), storage.nbytes()
        self._peak = max(self._peak, self.live())
        return out


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class CudaMeter:
    """The same of a CUDA device, as its allocator counts it; with all scratch space."""

    def __enter__(self) -> CudaMeter:
        torch.cuda.synchronize()
        self._before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
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
        return torch.cuda.memory_allocated() - self._before

    def restart(self) -> None:
        """Let the peak begin anew at what is held now."""
        torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        """Most bytes allocated at once since the start or the last :meth:`restart`."""
        return torch.cuda.max_memory_allocated() - self._before
