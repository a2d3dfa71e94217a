"""Lets ``torch.load`` read mmengine's own checkpoints with ``weights_only`` left on.

Since torch 2.6 ``torch.load`` unpickles allow-listed classes alone. An mmengine checkpoint holds,
besides tensors, its message hub: ``HistoryBuffer`` objects with numpy arrays inside, and numpy
scalars such as the best score. A HistoryBuffer also pickles references to its four statistics
methods, each as a call of ``builtins.getattr``. That builtin would open every attribute of every
allow-listed object to a checkpoint's author, so the name is mapped to `history_statistic`.

Known gap: mmengine's ``OneCycleLR`` is the one scheduler that stores a function of its own by such
a reference; resuming it stays refused.
"""
from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

STATISTICS = ('min', 'max', 'current', 'mean')
# Types of plain numbers: scalars of the message hub, and the generator states hooks may store.
NUMBER_TYPES = ('?', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')


def history_statistic(owner: Any, name: str) -> Any:
    """Stands in for ``getattr`` inside checkpoints and serves HistoryBuffer's statistics alone.

    Args:
        owner: must be the class HistoryBuffer itself.
        name: one of its four default statistics.

    Raises:
        pickle.UnpicklingError: for any other object or name.
    """
    if owner is HistoryBuffer and isinstance(name, str) and name in STATISTICS:
        return vars(HistoryBuffer)[name]
    raise pickle.UnpicklingError(
        f'the checkpoint asks for the attribute {name!r} of {owner!r}; only {STATISTICS} of '
        'mmengine.logging.HistoryBuffer are allowed, so the file was not loaded')


def safe_globals() -> list[Any]:
    """Returns what mmengine's checkpoints hold, in the form ``add_safe_globals`` takes.

    numpy 2 renamed ``numpy.core`` to ``numpy._core``; checkpoints carry the name of the numpy
    that wrote them, so the two helpers of numpy's pickles are listed under both.
    """
    multiarray = np.core.multiarray if np.__version__.startswith('1.') else np._core.multiarray
    helpers = [(getattr(multiarray, name), f'numpy.{core}.multiarray.{name}')
               for name in ('_reconstruct', 'scalar') for core in ('core', '_core')]
    number_types = list(dict.fromkeys(type(np.dtype(code)) for code in NUMBER_TYPES))
    return [HistoryBuffer, np.ndarray, np.dtype, *number_types, *helpers,
            (history_statistic, 'builtins.getattr')]


def allow_mmengine_checkpoints() -> bool:
    """Allow-lists mmengine's checkpoint contents where torch checks them by default (>= 2.6).

    Returns:
        Whether there was anything to do; older torch needs nothing.
    """
    major, minor = (int(part) for part in torch.__version__.split('.')[:2])
    if (major, minor) < (2, 6):
        return False
    torch.serialization.add_safe_globals(safe_globals())
    return True
