"""Reads and writes checkpoint files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmsnnet.models.checkpoint_file import load_safely


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Content of a checkpoint of MMEngine, or of a bare state dict, with weights on the CPU.

    Nothing but tensors and what MMEngine itself stores is unpickled.

    Returns:
        A dict with ``state_dict`` and, where the file has them, ``meta``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no checkpoint {path}.')
    content = load_safely(path)
    if isinstance(content, Mapping) and 'state_dict' not in content:
        model = content.get('model')
        content = {'state_dict': model if isinstance(model, Mapping) else content}
    state = content.get('state_dict') if isinstance(content, Mapping) else None
    tensors = isinstance(state, Mapping) and all(isinstance(v, Tensor) for v in state.values())
    if not tensors or not state:
        raise ValueError(f'Checkpoint {path} holds no state dict of tensors.')
    return dict(content)


def write_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f'There is no folder {path.parent} to write {path.name} to.')
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    os.close(handle)
    try:
        torch.save(dict(content), name)
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's files are private
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _umask() -> int:
    """Bits that new files of this process do without."""
    present = os.umask(0)
    os.umask(present)
    return present
