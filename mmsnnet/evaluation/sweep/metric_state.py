"""Puts what metrics note of images into plain arrays, and back, without pickling.

A metric's list of results may hold tensors, arrays, numbers, texts and bytes (run-length encoded
masks) in nested lists, tuples and dicts. Their numbers are laid end to end, one array a dtype; a
JSON text says where each belongs. Read back, everything is of the same type and equal bit for bit,
and a file of them can do no harm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Tensor dtypes that numpy lacks, stored by the bits of another.
_BITS = {torch.bfloat16: torch.int16}
_TREE = 'tree'


class _Packer:
    """Collects the numbers of a tree."""

    def __init__(self) -> None:
        self._parts: dict[str, list[np.ndarray]] = {}

    def arrays(self) -> dict[str, np.ndarray]:
        return {dtype: np.concatenate(parts) for dtype, parts in self._parts.items()}

    def pack(self, value: Any) -> Any:
        """A value as JSON knows it, its arrays put aside."""
        if value is None or isinstance(value, (bool, str)):
            return value
        if type(value) in (int, float):
            return value
        if type(value) in (list, tuple):
            return {'list' if type(value) is list else 'tuple': [self.pack(v) for v in value]}
        if isinstance(value, Mapping):
            return {'dict': [[self.pack(key), self.pack(child)] for key, child in value.items()]}
        if isinstance(value, bytes):
            return {'bytes': value.decode('latin-1')}
        if isinstance(value, Tensor):
            return {'tensor': [*self._put_tensor(value.detach().cpu())]}
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in 'biufc':
            kind = 'array' if isinstance(value, np.ndarray) else 'scalar'
            return {kind: [value.dtype.str, list(value.shape), *self._put(np.asarray(value))]}
        raise TypeError(
            f'A metric notes {type(value).__name__} objects for images, which cannot be stored '
            'safely; score with --one-by-one, which stores none.'
        )

    def _put_tensor(self, tensor: Tensor) -> tuple[str, list[int], str]:
        name = str(tensor.dtype).split('.')[-1]
        if tensor.dtype in _BITS:
            tensor = tensor.view(_BITS[tensor.dtype])
        return name, list(tensor.shape), *self._put(tensor.numpy())

    def _put(self, array: np.ndarray) -> tuple[str]:
        self._parts.setdefault(array.dtype.str, []).append(array.reshape(-1))
        return (array.dtype.str,)


class _Unpacker:
    """Rebuilds a tree from its text and its numbers."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays
        self._taken = dict.fromkeys(arrays, 0)

    def unpack(self, node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        ((kind, content),) = node.items()
        if kind in ('list', 'tuple'):
            children = [self.unpack(child) for child in content]
            return children if kind == 'list' else tuple(children)
        if kind == 'dict':
            return {self.unpack(key): self.unpack(child) for key, child in content}
        if kind == 'bytes':
            return content.encode('latin-1')
        name, shape, stored = content
        array = self._take(stored, shape)
        if kind == 'tensor':
            dtype = getattr(torch, name)
            tensor = torch.from_numpy(array)
            return tensor.view(dtype) if dtype in _BITS else tensor
        return array if kind == 'array' else array[()]

    def _take(self, stored: str, shape: list[int]) -> np.ndarray:
        first = self._taken[stored]
        self._taken[stored] = stop = first + int(np.prod(shape, dtype=np.int64))
        return self._arrays[stored][first:stop].reshape(shape).copy()


def pack(value: Any) -> dict[str, np.ndarray]:
    """Arrays that hold a tree of results; one is named 'tree', the others by their dtype.

    Raises:
        TypeError: If there is an object of another type than those of this module's description.
    """
    packer = _Packer()
    text = json.dumps(packer.pack(value), ensure_ascii=False, separators=(',', ':'))
    return {_TREE: np.frombuffer(text.encode(), np.uint8), **packer.arrays()}


def unpack(arrays: Mapping[str, np.ndarray]) -> Any:
    """The tree of :func:`pack`."""
    numbers = {name: array for name, array in arrays.items() if name != _TREE}
    return _Unpacker(numbers).unpack(json.loads(arrays[_TREE].tobytes().decode()))
