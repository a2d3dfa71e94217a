"""Which stitch a training forward ran, for when activation checkpointing runs it once more."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from mmsnnet.stitching import Stitch


def is_recomputation() -> bool:
    """Whether a forward runs inside of a backward pass, as those do that are run once more."""
    return torch._C._current_graph_task_id() != -1


@dataclass
class _Record:
    """Stitches that ran on one input since the last of them was run once more."""

    stitches: dict[str, Stitch] = field(default_factory=dict)
    recalled: bool = False


class TrainingForwards:
    """Remembers the stitch of each training forward by its input.

    Checkpointing keeps the input of a forward and hands it in again, as the same tensor or as a
    detached one of the same memory. So inputs are told apart by their place in a storage that is
    alive; nothing is kept alive here, and an entry goes once its storage is freed.
    """

    def __init__(self) -> None:
        self._records: dict[Hashable, _Record] = {}
        self._limit = 64

    def add(self, images: Tensor, stitch: Stitch) -> None:
        """Remember the stitch of a forward of images."""
        if len(self._records) >= self._limit:
            self._forget_freed()
        record = self._records.setdefault(_place(images), _Record())
        if record.recalled:
            record.stitches, record.recalled = {}, False
        record.stitches[stitch.name] = stitch

    def __reduce__(self) -> tuple[type, tuple]:
        """Copies and pickles are empty: the tensors of this process are not theirs."""
        return TrainingForwards, ()

    def recall(self, images: Tensor, default: Stitch | None = None) -> Stitch:
        """Stitch that ran on images.

        Args:
            images: Input of a forward that is run once more.
            default: What ran if it is not known.

        Raises:
            RuntimeError: If it is not known, or several ran on the very same tensor.
        """
        record = self._records.get(_place(images), _Record())
        record.recalled = True
        if not record.stitches and default is not None:
            return default
        if len(record.stitches) == 1:
            return next(iter(record.stitches.values()))
        found = f'ran {" and ".join(record.stitches)}' if record.stitches else 'is not known'
        raise RuntimeError(
            'Activation checkpointing runs the backbone once more on images whose stitch '
            f'{found}: checkpoint its blocks by with_cp=True instead, or set the stitch of an '
            "iteration by custom_hooks=[dict(type='StitchSamplingHook')]."
        )

    def _forget_freed(self) -> None:
        self._records = {
            place: record for place, record in self._records.items() if not place[0].expired()
        }
        self._limit = 64 + 2 * len(self._records)


def _place(images: Tensor) -> tuple[StorageWeakRef, int, torch.Size, tuple[int, ...]]:
    """Where a tensor lies; no other has the same place while its storage is referred to weakly."""
    storage = StorageWeakRef(images.untyped_storage())
    return storage, images.storage_offset(), images.shape, images.stride()
