"""Lets ``torch.load`` read mmengine's own checkpoints with ``weights_only`` left on.

Since torch 2.6 ``torch.load`` unpickles allow-listed classes alone. An mmengine checkpoint holds,
besides tensors, its message hub: ``HistoryBuffer`` objects with numpy arrays inside, and numpy
scalars such as the best score. A HistoryBuffer also pickles references to its four statistics
methods, each as a call of ``builtins.getattr``, and mmengine's ``OneCycleLR`` to its annealing
function. That builtin would open every attribute of every allow-listed object to a checkpoint's
author, so the name is mapped to `allowed_attribute`; and in the place of the scheduler's class,
which a checkpoint could otherwise call, stands an object that only that function knows.

Files of DeiT's code and its descendants, the published SN-Netv2 classifiers among them, hold the
arguments of their command line as an ``argparse.Namespace``, which is nothing but its attributes.
"""
from __future__ import annotations

import argparse
import pickle
from importlib import import_module
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mmsnnet.compat.restricted_pickle import load_restricted

STATISTICS = ('min', 'max', 'current', 'mean')
ANNEALING = ('_annealing_cos', '_annealing_linear')
# By its name: importing mmengine.optim imports all of transformers, where that is installed.
ONE_CYCLE = 'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler'
# What a checkpoint gets in place of that class.
_ONE_CYCLE = object()
# Types of plain numbers: scalars of the message hub, and the generator states hooks may store.
NUMBER_TYPES = ('?', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')


def allowed_attribute(owner: Any, name: str) -> Any:
    """Stands in for ``getattr`` inside checkpoints and serves six functions of mmengine alone.

    Args:
        owner: must be the class HistoryBuffer itself, or what stands for OneCycleParamScheduler.
        name: one of HistoryBuffer's four default statistics, or of the two annealing functions.

    Raises:
        pickle.UnpicklingError: for any other object or name.
    """
    if owner is HistoryBuffer and isinstance(name, str) and name in STATISTICS:
        return vars(HistoryBuffer)[name]
    if owner is _ONE_CYCLE and isinstance(name, str) and name in ANNEALING:
        module, _, kind = ONE_CYCLE.rpartition('.')
        return getattr(getattr(import_module(module), kind), name)
    raise pickle.UnpicklingError(
        f'the checkpoint asks for the attribute {name!r} of {owner!r}; only {STATISTICS} of '
        f'mmengine.logging.HistoryBuffer and {ANNEALING} of mmengine\'s OneCycleLR are allowed, '
        'so the file was not loaded')


def safe_globals() -> list[Any]:
    """Returns what checkpoints of mmengine and DeiT hold, in the form ``add_safe_globals`` takes.

    numpy 2 renamed ``numpy.core`` to ``numpy._core``; checkpoints carry the name of the numpy
    that wrote them, so the two helpers of numpy's pickles are listed under both.
    """
    multiarray = np.core.multiarray if np.__version__.startswith('1.') else np._core.multiarray
    helpers = [(getattr(multiarray, name), f'numpy.{core}.multiarray.{name}')
               for name in ('_reconstruct', 'scalar') for core in ('core', '_core')]
    number_types = list(dict.fromkeys(type(np.dtype(code)) for code in NUMBER_TYPES))
    return [HistoryBuffer, argparse.Namespace, np.ndarray, np.dtype, *number_types, *helpers,
            (_ONE_CYCLE, ONE_CYCLE), (allowed_attribute, 'builtins.getattr')]


def torch_reads_safely() -> bool:
    """Whether this torch (>= 2.6) can be taught what mmengine's checkpoints hold beside tensors."""
    major, minor = (int(part) for part in torch.__version__.split('.')[:2])
    return (major, minor) >= (2, 6)


def allow_mmengine_checkpoints() -> bool:
    """Allow-lists mmengine's checkpoint contents where torch checks them by default (>= 2.6).

    Returns:
        Whether there was anything to do; older torch checks nothing unless asked to.
    """
    if not torch_reads_safely():
        return False
    torch.serialization.add_safe_globals(safe_globals())
    return True


def load_allowed(path: str, mmap: bool = False, map_location: Any = 'cpu') -> Any:
    """Content of a file of ``torch.save``; nothing in it runs, under any torch.

    Args:
        path: a file of tensors, plain values and what mmengine itself stores.
        mmap: map the tensors of a zip file into memory instead of reading them.
        map_location: see ``torch.load``.

    Raises:
        pickle.UnpicklingError: if the file asks for anything else.
    """
    if torch_reads_safely():
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    return load_restricted(path, safe_globals(), mmap, map_location)
