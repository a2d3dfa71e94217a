"""How much memory tensors take while code runs."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class MemoryMeter(TorchDispatchMode):
    """Counts the bytes of all storages that results of operators live in, real or fake.

    A storage counts from the operator that made it until nothing holds it any more. What kernels
    take for themselves meanwhile, what an allocator rounds up to or keeps, is not seen.

    Attributes:
        live: Bytes that live now.
        peak: The most that lived at once since :meth:`reset_peak`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run an operator and count what it made."""
        result = func(*args, **(kwargs or {}))
        self.count(leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, Tensor))
        return result

    def count(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that were made before; those that are counted already change nothing."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._sizes:
                self._sizes[key] = storage.nbytes()
                self.live += self._sizes[key]
                weakref.finalize(storage, self._forget, key)
        self.peak = max(self.peak, self.live)

    def reset_peak(self) -> None:
        """Let the peak begin at what lives now."""
        self.peak = self.live

    def _forget(self, key: int) -> None:
        self.live -= self._sizes.pop(key)
