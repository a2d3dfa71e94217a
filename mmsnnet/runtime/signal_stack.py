"""Keeps the stack of signal handlers from being one that OpenVINO frees.

OpenVINO's CPU plugin gives the thread that compiles a model an alternate signal stack of its own
and, with the model, puts back the one that was there before. Of two models that end in the order
they were made, the second puts back the stack of the first, which is freed by then: the next
signal with a handler ends the process (SIGCHLD, for which torch's DataLoader has one, will do).
Seen in OpenVINO 2026.4.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _SignalStack(ctypes.Structure):
    """``stack_t`` of sigaltstack(2) on Linux."""

    _fields_ = (
        ('address', ctypes.c_void_p),
        ('flags', ctypes.c_int),
        ('size', ctypes.c_size_t),
    )


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give the thread back the signal stack it had, whatever the block made of it.

    Models compiled in the block then put back that one too, in whatever order they end. Does
    nothing where the system is not Linux.
    """
    if not sys.platform.startswith('linux'):
        yield
        return
    former, library = _SignalStack(), ctypes.CDLL(None)
    library.sigaltstack(None, ctypes.byref(former))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(former), None)
