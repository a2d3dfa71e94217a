"""Lets validation and testing use the head statistics of each stitch."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmsnnet.models.host.head_statistics import HeadStatistics, detach_statistics
from mmsnnet.registry import HOOKS


@HOOKS.register_module()
class HeadStatisticsHook(Hook):
    """Attaches head statistics of a file while a model is tested.

    Args:
        statistics: File that ``tools/test_all_stitches.py --recalibrate-bn`` writes.
    """

    def __init__(self, statistics: str) -> None:
        self._path = statistics

    def before_test(self, runner: Runner) -> None:
        """Attach, once the checkpoint is loaded."""
        HeadStatistics.load(self._path).attach(runner.model)

    def after_test(self, runner: Runner) -> None:
        """Detach."""
        detach_statistics(runner.model)
