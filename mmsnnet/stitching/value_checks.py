"""Checks of single values of configs, with messages of one line."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


def check_flag(name: str, value: Any) -> bool:
    """A value that says yes or no.

    Raises:
        TypeError: If it is anything but True or False.
    """
    if not isinstance(value, bool):
        raise TypeError(f'{name} must be True or False, got {value!r}.')
    return value


def check_integer(name: str, value: Any) -> int:
    """An integer; True and False are none.

    Raises:
        TypeError: If it is of another type.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f'{name} must be an integer, got {value!r}.')
    return int(value)


def check_number(name: str, value: Any) -> float:
    """A finite number; True and False are none.

    Raises:
        TypeError: If it is of another type.
        ValueError: If it is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f'{name} must be a number, got {value!r}.')
    if not math.isfinite(value):
        raise ValueError(f'{name} must be a finite number, got {value!r}.')
    return value
