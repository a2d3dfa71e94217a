"""Counts the memory that a changing set of tensors takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch import Tensor


class HeldTensors:
    """Bytes of tensors that are held, memory that several of them share counted once.

    Attributes:
        total: Bytes at present.
        peak: Most bytes at a moment that :meth:`note_peak` was told of.
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
