"""Saves and restores the states of the global random generators."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def capture_rng_state() -> dict[str, Any]:
    """States of python's, numpy's and torch's global generators, of this process' GPU too.

    It holds tensors, lists and numbers alone, so that a checkpoint with it stays loadable with
    ``weights_only=True``.
    """
    version, words, gauss = random.getstate()
    # Reading and restoring is all that is done here with numpy's global generator.
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    state = {
        'python': [version, list(words), gauss],
        'numpy': [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def restore_rng_state(state: Mapping[str, Any]) -> None:
    """Put the global generators into a state that :func:`capture_rng_state` returned."""
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state['numpy']
    keys = keys.cpu().numpy().astype(np.uint32)
    np.random.set_state((name, keys, position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


@contextmanager
def seeded_rng(seed: int) -> Iterator[None]:
    """Seed the global generators for the length of a ``with`` block, then restore them.

    For code of others that draws from them, such as the transforms of a data set.
    """
    state = capture_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        yield
    finally:
        restore_rng_state(state)


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Restore the global generators after a ``with`` block."""
    state = capture_rng_state()
    try:
        yield
    finally:
        restore_rng_state(state)
