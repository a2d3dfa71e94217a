"""Keeps a second run from writing records into a results folder at the same time."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows there is no such lock, as on some network file systems
    fcntl = None

LOCK_NAME = '.lock'


class FolderLock:
    """A lock on a results folder, held until it is released or its process ends, however it does.

    It is a record lock of POSIX, which child processes do not inherit: a worker that outlives a
    killed run does not hold it. Where the system or the file system knows none, nothing is locked;
    :class:`~mmsnnet.results.results_folder.ResultsFolder` still notices a second writer.

    Args:
        directory: The folder; made if need be.

    Raises:
        ValueError: If another process holds it; that is named.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / LOCK_NAME
        self._file = open(self._path, 'a+', encoding='utf-8')  # noqa: SIM115
        if not self._lock():
            self._file.seek(0)
            holder = self._file.read().strip() or 'another process'
            self._file.close()
            raise ValueError(
                f'{directory} is being written by {holder}: wait until it has ended, use another '
                'folder, or let each do a share with --shard.'
            )
        self._file.truncate(0)
        self._file.write(f'process {os.getpid()} of {socket.gethostname()}')
        self._file.flush()

    def _lock(self) -> bool:
        """Whether no other process holds the lock."""
        if fcntl is None:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # no locks here
            return True
        return True

    def release(self) -> None:
        """Let others write."""
        with suppress(OSError):
            self._path.unlink()
        self._file.close()
