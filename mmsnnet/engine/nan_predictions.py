"""Notices stitches whose features or predictions are not numbers.

An argmax over NaN is a class like any other, and a detector finds nothing in it, so metrics alone
do not tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmsnnet.models import find_predicting_backbone, without_augmentation


def _predicted(value: Any) -> Iterator[Tensor]:
    """Tensors of floats among features or predictions, without ground truth."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _predicted(item)
    elif isinstance(value, BaseDataElement):
        for key, item in value.items():
            if not isinstance(item, BaseDataElement) or key.startswith(('pred', 'seg_logits')):
                yield from _predicted(item)


class NanPredictions:
    """Whether a model's features or predictions held NaN.

    Args:
        model: Model with a stitched backbone, wrapped or not.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = (find_predicting_backbone(model), without_augmentation(model))
        self._flags: list[Tensor] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at all forwards within a ``with`` block."""
        self._flags = []
        handles = [module.register_forward_hook(self._look) for module in self._modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _look(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        # Read by found(), once: reading waits for a GPU.
        self._flags += [torch.isnan(tensor).any() for tensor in _predicted(outputs)]

    def found(self) -> bool:
        """Whether there was NaN in the last ``with`` block."""
        return any(bool(flag) for flag in self._flags)
