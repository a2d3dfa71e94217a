"""Tables of relative position bias at other grids than their own."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from functools import lru_cache

import torch
from timm.models.beit import gen_relative_position_index
from torch import Tensor

#: Rows at the end of a table for pairs with the class token: to, from, and with itself.
NUM_CLASS_ROWS = 3


def _knots(source: int, target: int) -> list[float]:
    """Where the offsets of an axis of ``source`` patches lie on that of ``target`` patches.

    Offset k lies at 1 + q + ... + q^(k-1), with the q that makes the last one reach the last
    offset of the target: near offsets, which matter most, keep their distance. Source: BEiT's
    ``run_class_finetuning.py``, which timm's ``resize_rel_pos_bias_table`` follows; q is sought
    between 1.01 and 1.5 as there.
    """
    reach, (low, high) = source - 1, (1.01, 1.5)
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**reach) / (1 - ratio) > target - 1:
            high = ratio
        else:
            low = ratio
    places, distance = [], 1.0
    for power in range(1, source):
        places.append(distance)
        distance += ratio**power
    return [*(-place for place in reversed(places)), 0.0, *places]


def _neighbors(source: int, target: int) -> tuple[list[tuple[int, int]], list[tuple[float, float]]]:
    """Two offsets of the source axis, and their weights, for each offset of the target axis."""
    knots = _knots(source, target)
    indices, weights = [], []
    for place in range(1 - target, target):
        right = min(bisect.bisect_left(knots, place), len(knots) - 1)
        left = max(right - 1, 0)
        gap = knots[right] - knots[left]
        share = min(max((place - knots[left]) / gap, 0.0), 1.0) if gap else 0.0
        indices.append((left, right))
        weights.append((1.0 - share, share))
    return indices, weights


@dataclass(frozen=True)
class TableLayout:
    """How the table of one (rows, columns) grid serves another.

    Attributes:
        source: Grid that the table is laid out for.
        neighbors: For rows and columns, the two offsets of the source axis (2, offsets) beside
            each offset of the target axis.
        weights: Their weights (2, offsets, 1, 1) and (2, 1, offsets, 1), in float32.
        index: Row of the table at the other grid for each pair of tokens (N, N), the class token
            first.
    """

    source: tuple[int, int]
    neighbors: tuple[Tensor, Tensor]
    weights: tuple[Tensor, Tensor]
    index: Tensor

    @classmethod
    def between(
        cls, source: tuple[int, int], target: tuple[int, int], device: torch.device
    ) -> TableLayout:
        """Layout for tables on a device.

        It follows from the arguments alone, so those of the last few sizes are kept for all
        models and forwards. Under a mode that makes tensors without values, it is built anew.
        """
        if type(torch.empty(0, device=device)) is not Tensor:
            return cls._build(source, target, device)
        return _kept_layout(source, target, device)

    @classmethod
    def _build(
        cls, source: tuple[int, int], target: tuple[int, int], device: torch.device
    ) -> TableLayout:
        neighbors, weights = [], []
        for axis, shape in enumerate(((2, -1, 1, 1), (2, 1, -1, 1))):
            pairs, shares = _neighbors(source[axis], target[axis])
            neighbors.append(torch.tensor(pairs, device=device).T.contiguous())
            shares = torch.tensor(shares, device=device, dtype=torch.float32)
            weights.append(shares.T.reshape(shape))
        index = gen_relative_position_index(target, device=device)
        return cls(source, tuple(neighbors), tuple(weights), index)

    def resample(self, table: Tensor) -> Tensor:
        """Table (M', heads) of the other grid from a table (M, heads), by linear interpolation."""
        rows, columns = (2 * side - 1 for side in self.source)
        offsets = table[:-NUM_CLASS_ROWS].unflatten(0, (rows, columns))  # (rows, columns, heads)
        for axis in (0, 1):
            (left, right), shares = self.neighbors[axis], self.weights[axis].to(table.dtype)
            offsets = (
                offsets.index_select(axis, left) * shares[0]
                + offsets.index_select(axis, right) * shares[1]
            )
        return torch.cat([offsets.flatten(0, 1), table[-NUM_CLASS_ROWS:]])

    def bias(self, table: Tensor) -> Tensor:
        """Bias (heads, N, N) that a table (M, heads) gives the tokens of the other grid."""
        return self.resample(table)[self.index].permute(2, 0, 1).contiguous()


@lru_cache(maxsize=4)
def _kept_layout(
    source: tuple[int, int], target: tuple[int, int], device: torch.device
) -> TableLayout:
    with torch.inference_mode(False):  # tensors that training may use too, whoever asks first
        return TableLayout._build(source, target, device)
