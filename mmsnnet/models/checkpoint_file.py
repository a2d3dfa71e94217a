"""Reads files of torch so that nothing in them runs; says in one line why one cannot be read."""

from __future__ import annotations

import os
import re
import zipfile
from typing import Any

from mmsnnet.compat import load_allowed

#: First bytes of files that are often taken for checkpoints, and what such a file is.
_OTHER_FILES = {
    b'version https://git-lfs': 'a pointer of Git LFS; fetch the file itself (git lfs pull)',
    b'<': 'a page of the web (HTML or XML); download the file itself',
    b'{': 'a text (JSON)',
    b'\x1f\x8b': 'an archive (gzip); unpack it',
}


def load_safely(path: str | os.PathLike[str]) -> Any:
    """Content of a file of ``torch.save``, on the CPU.

    Whatever torch's version and environment variables are, only tensors, plain values and what
    MMEngine itself stores are unpickled. Tensors of a zip file are mapped into memory, so that
    the file is not copied.

    Raises:
        ValueError: If the file cannot be read so.
    """
    path = os.fspath(path)
    try:
        mapped = zipfile.is_zipfile(path)
        return load_allowed(path, mmap=mapped)
    except Exception as error:  # pickle raises whatever the bytes happen to mean
        raise ValueError(f'Checkpoint {path} cannot be read: {_reason(path, error)}.') from None


def _reason(path: str, error: Exception) -> str:
    """What is wrong with a file that torch refused, without torch's advice to trust it."""
    with open(path, 'rb') as file:
        start = file.read(64).lstrip()
    if not start:
        return 'it is empty'
    for first, kind in _OTHER_FILES.items():
        if start.startswith(first):
            return f'it is {kind}'
    refused = re.search(r'GLOBAL ([\w.]+)|[Uu]nsupported (?:class|global) ([\w.]+)', str(error))
    if refused:
        name = refused.group(1) or refused.group(2)
        return (
            f'it asks for {name}, which is neither a weight nor what MMEngine stores and might '
            'run code; save its state dict alone'
        )
    return f'it is damaged, cut off, or no file of torch.save ({type(error).__name__})'
