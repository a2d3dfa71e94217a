"""Several processes of one sweep: they tell each other what they know, end together, share work.

What they send goes through a group of their own, on the CPU: a process may wait for hours for
another that is at its shard, where NCCL's groups give up after ten minutes, and the end of a
process is known at once by those that wait for it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

from mmengine.dist import (
    all_gather_object,
    broadcast_object_list,
    get_rank,
    get_world_size,
)
from torch import distributed

Value = TypeVar('Value')

#: Seconds that a process waits for the others, one of which may have much to do.
LONGEST_WAIT = 24 * 3600.0
#: Seconds between signs of life of a process at work, and without one before it is given up.
BEAT, SILENCE = 5.0, 120.0
_LOST = (
    'Another process of this sweep has ended before its time ({}); its own error says why, if it '
    'had one. What is done is on the disk: the same command goes on from there.'
)


@lru_cache(maxsize=1)
def _beside(world: Any) -> Any:
    """A group of all processes of ``world``, on the CPU."""
    return distributed.new_group(backend='gloo', timeout=timedelta(seconds=LONGEST_WAIT))


def _group() -> Any:
    return None if get_world_size() == 1 else _beside(distributed.group.WORLD)


@contextmanager
def _naming_lost_processes() -> Iterator[None]:
    """Say it in one line where the others cannot be reached any more.

    Raises:
        ConnectionError: If so.
    """
    try:
        yield
    except RuntimeError as error:  # of the backend and of the store, of whatever kind
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConnectionError(_LOST.format(reason)) from error


def broadcast(value: Value | None) -> Value:
    """The value that the main process gives; to be called in all processes alike.

    Raises:
        ConnectionError: If another process has ended.
    """
    values = [value]
    with _naming_lost_processes():
        broadcast_object_list(values, group=_group())
    return values[0]


def gather(value: Value) -> list[Value]:
    """The values of all processes, by rank; to be called in all of them alike.

    Raises:
        ConnectionError: If another process has ended.
    """
    with _naming_lost_processes():
        return all_gather_object(value, group=_group())


@contextmanager
def failing_together() -> Iterator[None]:
    """Let an error of any process end the ``with`` block in all of them; all must enter it.

    Raises:
        ValueError: In processes without an error of their own, with the message of the first
            that had one.
        ConnectionError: If another process has ended.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:  # whatever it is, the others must learn of it
        failure = error
    try:
        messages = gather(None if failure is None else str(failure))
    except ConnectionError as lost:
        raise failure or lost from None
    if failure is not None:
        raise failure
    for message in messages:
        if message is not None:
            raise ValueError(message)


class Deal:
    """Numbers from 0 on, each dealt out to the process that asks for it first.

    To be made and entered in all processes alike. Where one of them fails, no more numbers are
    dealt out; one that gives no sign of life any more is named by the others.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._dealt = 0
        self._ended = threading.Event()
        self._beats: dict[str, tuple[int, float]] = {}
        self._store = None
        name = broadcast(secrets.token_hex(8))
        if get_world_size() > 1:
            store = distributed.distributed_c10d._get_default_store()
            self._store = distributed.PrefixStore(f'mmsnnet/{name}', store)

    def __enter__(self) -> Deal:
        if self._store is not None:
            threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._ended.set()
        if kind is not None and self._store is not None:
            try:
                self._store.add('dealt', self._count)
            except RuntimeError:  # then the others have lost the store as well
                return

    def __iter__(self) -> Iterator[int]:
        """Numbers for this process.

        Raises:
            ConnectionError: If another process has ended.
        """
        while (number := self._take()) < self._count:
            self._check_others()
            yield number

    def _take(self) -> int:
        if self._store is None:
            self._dealt += 1
            return self._dealt - 1
        with _naming_lost_processes():
            return self._store.add('dealt', 1) - 1

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                self._store.add(str(get_rank()), 1)
            except RuntimeError:  # who takes the next number says it
                return

    def _check_others(self) -> None:
        if self._store is None:
            return
        now = time.monotonic()
        for rank in map(str, range(get_world_size())):
            if rank == str(get_rank()):
                continue
            with _naming_lost_processes():
                beat = self._store.add(rank, 0)
            known, since = self._beats.get(rank, (-1, now))
            if beat != known:
                self._beats[rank] = beat, now
            elif now - since > SILENCE:
                reason = f'no sign of life of process {rank} for {SILENCE:.0f} s'
                raise ConnectionError(_LOST.format(reason))
