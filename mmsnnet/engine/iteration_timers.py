"""Keeps MMEngine's timers of iterations from slowing down an evaluation of many stitches."""

from __future__ import annotations

from mmengine.hooks import IterTimerHook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner

#: Iterations whose durations are remembered.
NUM_REMEMBERED = 1000


def bound_timers(runner: Runner, mode: str) -> None:
    """Let timers of a mode remember its latest iterations alone.

    MMEngine copies the whole history of durations at each iteration, and keeps that of validations
    in checkpoints; under a hundred stitches there are a hundred times as many iterations.

    Args:
        runner: Its timers are bounded, if it has any.
        mode: 'val' or 'test'.
    """
    if not any(isinstance(hook, IterTimerHook) for hook in runner.hooks):
        return
    histories = runner.message_hub.log_scalars
    for key in (f'{mode}/time', f'{mode}/data_time'):
        histories.setdefault(key, HistoryBuffer()).max_length = NUM_REMEMBERED
