"""Preprocesses each batch once for models that are run on it several times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn


class _Cached(NamedTuple):
    """Outcome of a preprocessor for one batch, or one augmented copy of it."""

    batch: Mapping[str, Any]
    inputs: Any
    versions: list[int]
    samples: Any


def _versions(inputs: Any) -> list[int] | None:
    """Counts of in-place changes of preprocessed inputs; None if they are not known."""
    tensors = [inputs] if isinstance(inputs, Tensor) else inputs
    if not isinstance(tensors, (list, tuple)) or not all(isinstance(t, Tensor) for t in tensors):
        return None
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors]


class SharedPreprocessing:
    """Lets the data preprocessors of a model keep what they made of a batch.

    A second run on the same objects gets the same input tensors, and data samples that are as new:
    copied by the preprocessor itself, as it copies those of a batch. What a preprocessor returns
    in another form, or a model changed in place, is computed again.

    Args:
        model: Model whose ``test_step`` or ``val_step`` will be called several times a batch.
    """

    def __init__(self, model: nn.Module) -> None:
        self._preprocessors = [m for m in model.modules() if isinstance(m, BaseDataPreprocessor)]
        self._cached: list[_Cached] = []

    @contextmanager
    def activate(self) -> Iterator[SharedPreprocessing]:
        """Keep and reuse for the length of a ``with`` block."""
        for preprocessor in self._preprocessors:
            preprocessor.forward = self._caching(preprocessor, preprocessor.forward)
        try:
            yield self
        finally:
            for preprocessor in self._preprocessors:
                del preprocessor.forward
            self.forget()

    def forget(self) -> None:
        """Let go of the batch."""
        self._cached = []

    def _caching(
        self, preprocessor: BaseDataPreprocessor, forward: Callable[..., Any]
    ) -> Callable[..., Any]:
        def cached_forward(data: Any, training: bool = False) -> Any:
            if training or not isinstance(data, Mapping) or 'inputs' not in data:
                return forward(data, training)
            cached = self._find(data)
            if cached is not None:
                samples = preprocessor.cast_data(cached.samples)
                return dict(inputs=cached.inputs, data_samples=samples)
            result = forward(data, training)
            self._store(preprocessor, data, result)
            return result

        return cached_forward

    def _find(self, data: Mapping[str, Any]) -> _Cached | None:
        for cached in self._cached:
            same = len(data) == len(cached.batch) and all(
                key in cached.batch and data[key] is cached.batch[key] for key in data
            )
            if same and _versions(cached.inputs) == cached.versions:
                return cached
        return None

    def _store(
        self, preprocessor: BaseDataPreprocessor, data: Mapping[str, Any], result: Any
    ) -> None:
        if not isinstance(result, dict) or set(result) != {'inputs', 'data_samples'}:
            return
        versions = _versions(result['inputs'])
        if versions is not None:
            # The model writes its predictions into the samples it is given.
            samples = preprocessor.cast_data(result['data_samples'])
            self._cached.append(_Cached(dict(data), result['inputs'], versions, samples))
