"""Errors of one of several processes, so that the others do not wait for it in vain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.dist import all_gather_object


@contextmanager
def failing_together() -> Iterator[None]:
    """Let an error of any process end the ``with`` block in all of them; all must enter it.

    Raises:
        ValueError: In processes without an error of their own, with the message of the first
            that had one.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:  # whatever it is, the others must learn of it
        failure = error
    messages = all_gather_object(None if failure is None else str(failure))
    if failure is not None:
        raise failure
    for message in messages:
        if message is not None:
            raise ValueError(message)
