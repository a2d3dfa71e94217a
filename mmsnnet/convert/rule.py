"""How some weights of one state dict become some weights of another, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Tensors = tuple[Tensor, ...]


def unchanged(*values: Tensor) -> Tensors:
    """The same weights in both layouts."""
    return values


@dataclass(frozen=True)
class Rule:
    """Weights that belong together in both layouts.

    Attributes:
        published: Their names in the published layout.
        ours: Their names in ours.
        convert: Published weights, in the order of their names, to ours.
        restore: Ours to the published ones.
    """

    published: tuple[str, ...]
    ours: tuple[str, ...]
    convert: Callable[..., Tensors] = unchanged
    restore: Callable[..., Tensors] = unchanged

    @classmethod
    def rename(cls, published: str, ours: str) -> Rule:
        """Rule for one weight that is the same in both layouts."""
        return cls((published,), (ours,))

    def names(self, reverse: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names that are read and names that are written."""
        return (self.ours, self.published) if reverse else (self.published, self.ours)

    def apply(self, values: Tensors, reverse: bool) -> Tensors:
        """Weights in the other layout."""
        return (self.restore if reverse else self.convert)(*values)
