"""Reads files of ``torch.save`` by an allow-list where torch's own reader cannot.

``torch.load(weights_only=True)`` of torch before 2.6 has no allow-list to extend by more than
classes (2.4), or none at all, so that it refuses the message hub in every checkpoint of mmengine.
The reader here takes the same names: torch's own, and those of `safe_load.safe_globals`. It is
Python's unpickler in Python, since there calls and BUILD can be restricted too: a pickle may call
what is allowed, not what such a call returned, and set the state of objects that it made, never
that of classes and functions, which belong to the process.
"""
from __future__ import annotations

import codecs
import pickle
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

BUILT = (torch.Tensor, OrderedDict, HistoryBuffer, Namespace, np.ndarray, np.dtype)
"""Types of objects whose state a pickle may set."""

PLAIN = {'_codecs.encode': codecs.encode, 'builtins.bytearray': bytearray, 'builtins.set': set}
"""What newer torch allows beside: bytes as protocol 2 writes them, and containers."""


def load_restricted(path: str, allowed: Iterable[Any], mmap: bool = False,
                    map_location: Any = 'cpu') -> Any:
    """Content of a file.

    Args:
        path: a file of ``torch.save``, zip or older.
        allowed: classes and functions that may be called, or pairs of one and the dotted name
            that stands for it in the file, as ``torch.serialization.add_safe_globals`` takes.
        mmap: map the tensors of a zip file into memory.
        map_location: see ``torch.load``.

    Raises:
        pickle.UnpicklingError: if the file asks for anything else, or is a TorchScript archive.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith('/constants.pkl') for name in archive.namelist()):
                raise pickle.UnpicklingError('a TorchScript archive holds code, not weights alone')
    from torch._weights_only_unpickler import _get_allowed_globals
    names = {**_get_allowed_globals(), **PLAIN, **_by_name(allowed)}

    class Unpickler(_Restricted):
        allowed = names

    reader = SimpleNamespace(__name__='restricted', Unpickler=Unpickler,
                             load=lambda file, **options: Unpickler(file, **options).load())
    return torch.load(path, map_location=map_location, pickle_module=reader, weights_only=False,
                      mmap=mmap)


def _by_name(allowed: Iterable[Any]) -> dict[str, Any]:
    """Objects by the dotted name that stands for them in a pickle."""
    pairs = (item if isinstance(item, tuple) else (item, f'{item.__module__}.{item.__qualname__}')
             for item in allowed)
    return {name: item for item, name in pairs}


class _Restricted(pickle._Unpickler):
    """Python's unpickler with an allow-list of globals and of types whose state may be set."""

    allowed: dict[str, Any] = {}
    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """Returns the object of that name if it is allowed.

        Raises:
            pickle.UnpicklingError: if it is not.
        """
        # Protocol 2, which torch.save writes, has the name of Python 2.
        full_name = f'{"builtins" if module == "__builtin__" else module}.{name}'
        if full_name not in self.allowed:
            raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {full_name}')
        return self.allowed[full_name]

    def _refuse_others(self, called: Any) -> None:
        """Raises UnpicklingError unless an object that is to be called is an allowed one."""
        if not any(called is entry for entry in self.allowed.values()):
            raise pickle.UnpicklingError(f'{called!r} may not be called')

    def load_reduce(self) -> None:
        """Calls an allowed function or class."""
        self._refuse_others(self.stack[-2])
        super().load_reduce()

    def load_newobj(self) -> None:
        """Makes an object of an allowed class."""
        self._refuse_others(self.stack[-2])
        super().load_newobj()

    def load_build(self) -> None:
        """Sets the state of an object that the pickle made.

        Raises:
            pickle.UnpicklingError: if its type is not one of `BUILT`.
        """
        if not isinstance(self.stack[-2], BUILT):
            raise pickle.UnpicklingError(f'the state of {self.stack[-2]!r} may not be set')
        super().load_build()

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.BUILD[0]] = load_build
    for _other_way in (pickle.OBJ, pickle.INST, pickle.NEWOBJ_EX):  # torch.save writes none
        del dispatch[_other_way[0]]
