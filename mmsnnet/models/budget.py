"""Chooses the stitch of a backbone by a budget."""

from __future__ import annotations

import os
from typing import Any

from mmsnnet.results.candidate import Candidate
from mmsnnet.results.chooser import Chooser, chooser_of_costs, chooser_of_results


class BudgetMixin:
    """What a backbone knows of its stitches, and the choice among them."""

    _chooser: Chooser | None = None

    @property
    def chooser(self) -> Chooser:
        """The stitches to choose from: scored ones, or else all by the backbone's own costs."""
        return chooser_of_costs(self.costs) if self._chooser is None else self._chooser

    def use_results(
        self,
        results: str | os.PathLike[str],
        latency: str | os.PathLike[str] | None = None,
        metric: str | None = None,
        rule: str | None = None,
    ) -> None:
        """Choose by the results of a sweep from now on, and save them with the backbone.

        Args:
            results: Folder of ``tools/test_all_stitches.py``. Its costs are of the whole model.
            latency: File of ``tools/measure_latency.py``, for limits in ms and MB.
            metric: Metric to judge by; None for the sweep's own.
            rule: 'greater' or 'less', which is better; None for the sweep's own.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If it is damaged, or of other stitches than the backbone's.
        """
        chooser = chooser_of_results(results, latency, metric, rule)
        self._chooser = chooser.check_space(self.space, results)

    def set_budget(self, **limits: Any) -> Candidate:
        """Let eval run the best stitch within limits from now on.

        Without results of a sweep, which alone show what is best, it is the one of most FLOPs.

        Args:
            limits: ``gflops=``, ``params=`` (millions), and with a latency file ``ms=``, ``mb=``.
                Costs are of the backbone alone, or of what was swept if there are results.
                Instead of limits, ``min_metric=`` or ``knee=True``.

        Returns:
            The stitch, with its costs and, if it was scored, its quality.

        Raises:
            ValueError: If no stitch keeps the limits, or a cost is not known; the stitch stays.
        """
        chosen = self.chooser.choose(**limits)
        self.set_stitch(chosen.name)
        return chosen
