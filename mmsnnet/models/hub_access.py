"""Asks the Hugging Face Hub once, briefly, before anything is fetched from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.utils import get_session


@contextmanager
def hub_or_cache(timeout: float = 5.0) -> Iterator[None]:
    """Let a ``with`` block fetch from the Hub, or from its cache alone if the Hub is out of reach.

    huggingface_hub tries each file six times over more than half a minute, timm tries two files,
    before they say that there is no network. Within the block they take what the cache holds and
    fail at once on the rest. Afterwards everything is as it was before.

    Args:
        timeout: Seconds that the Hub, or the proxy on the way to it, has for an answer.
    """
    former = constants.HF_HUB_OFFLINE
    if not former and not _answers(timeout):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = former


def _answers(timeout: float) -> bool:
    """Whether the Hub answers, with whatever status."""
    try:
        get_session().head(constants.ENDPOINT, timeout=timeout)
    except Exception:  # of requests or httpx, whichever huggingface_hub uses
        return False
    return True
