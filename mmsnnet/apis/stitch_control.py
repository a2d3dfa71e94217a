"""Choosing the stitch of a loaded model."""

from __future__ import annotations

from torch import nn

from mmsnnet.models import find_stitched_backbone
from mmsnnet.results.candidate import Candidate
from mmsnnet.results.chooser import Chooser, chooser_of_costs
from mmsnnet.stitching import CostTable


class StitchControl:
    """What a model of a host can do besides, once :func:`give_control` has been called.

    Attributes:
        chooser: What is known of the stitches: the scored ones, or all by cost.
    """

    chooser: Chooser
    _costs: CostTable

    @property
    def stitch(self) -> str:
        """Name of the active stitch."""
        return find_stitched_backbone(self).stitch.name

    def set_budget(
        self,
        gflops: float | None = None,
        ms: float | None = None,
        mb: float | None = None,
        params: float | None = None,
    ) -> Candidate:
        """Run the best stitch that keeps a budget from now on.

        Without results of a sweep, which alone show what is best, it is the one of most FLOPs
        within the budget.

        Args:
            gflops: Most GFLOPs of the whole model; of the backbone alone where the head cannot be
                counted, of which ``init_model`` warns.
            ms: Most milliseconds, as measured in the latency file.
            mb: Most megabytes, as measured there.
            params: Most parameters, in millions.

        Returns:
            The stitch, with its costs and quality.

        Raises:
            ValueError: If no stitch keeps the budget, or a cost is not known; the stitch stays.
        """
        return self._activate(self.chooser.choose(gflops=gflops, ms=ms, mb=mb, params=params))

    def select_stitch(
        self,
        stitch: str | int | None = None,
        *,
        min_metric: float | None = None,
        knee: bool | str = False,
    ) -> Candidate:
        """Run a stitch from now on: one by name or id, or what answers a question.

        Args:
            stitch: Name or id.
            min_metric: Take the stitch of fewest GFLOPs that is at least as good as this.
            knee: Take the knee of the front over GFLOPs (True), or over 'ms', 'mb' or 'params'.

        Returns:
            The stitch, with its costs and, if it was scored, its quality.

        Raises:
            ValueError: If there is no such stitch; the active one stays.
        """
        if stitch is None:
            return self._activate(self.chooser.choose(min_metric=min_metric, knee=knee))
        if min_metric is not None or knee:
            raise ValueError('Give a stitch, min_metric= or knee=, one of them.')
        name = find_stitched_backbone(self).space[stitch].name
        known = {one.name: one for one in self.chooser.candidates}
        return self._activate(known.get(name) or chooser_of_costs(self._costs)[name])

    def set_stitch(self, stitch: str | int) -> Candidate:
        """Run a stitch from now on; what :class:`mmsnnet.runtime.BudgetController` calls.

        Args:
            stitch: Name or id.

        Returns:
            The stitch, as :meth:`select_stitch` returns it.

        Raises:
            ValueError: If there is no such stitch; the active one stays.
        """
        if stitch is None:
            raise ValueError('Which stitch? Give a name or an id, or a question to select_stitch.')
        return self.select_stitch(stitch)

    def _activate(self, chosen: Candidate) -> Candidate:
        find_stitched_backbone(self).set_stitch(chosen.name)
        return chosen


def give_control(model: nn.Module, chooser: Chooser, costs: CostTable) -> nn.Module:
    """Give the methods of :class:`StitchControl` to a model, and return it.

    The model stays the object that its host built, with all hooks, and an instance of its class,
    which is what the host's functions for inference require: only its class becomes one that has
    the methods too, as ``torch.nn.utils.parametrize`` does it. A wrapper would be no segmentor for
    them. Save its state dict, not the object: its class has no name to be found by.

    Args:
        model: Model with a StitchedViT.
        chooser: What is known of its stitches.
        costs: Cost of every stitch of the whole model.
    """
    kind = type(model)
    if not isinstance(model, StitchControl):
        model.__class__ = type(
            f'Stitched{kind.__name__}', (StitchControl, kind), {'__module__': kind.__module__}
        )
    model.chooser, model._costs = chooser, costs
    return model
