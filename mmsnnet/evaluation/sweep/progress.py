"""The progress of a sweep, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmsnnet.stitching import Stitch


@dataclass(frozen=True)
class Progress:
    """What is called while stitches are scored.

    Attributes:
        on_start: Called with the number of pairs of a batch and a stitch that are to be run here.
        on_batch: Called after each of them.
        on_stitch: Called in the main process with each stitch that is final, and its metrics.
    """

    on_start: Callable[[int], None] = lambda total: None
    on_batch: Callable[[], None] = lambda: None
    on_stitch: Callable[[Stitch, Mapping[str, float]], None] = lambda stitch, metrics: None

    def after(self, num_batches: int) -> Progress:
        """The same for work that begins when some batches were run already."""
        return replace(self, on_start=lambda total: self.on_start(num_batches + total))


class ProgressHook(Hook):
    """Reports each batch that a test loop has run.

    Attributes:
        num_batches: How many it has run so far, each counted for each stitch.

    Args:
        progress: What to call.
    """

    priority = 'LOWEST'

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.num_batches = 0

    def after_test_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Report one batch."""
        self.num_batches += 1
        self._progress.on_batch()
