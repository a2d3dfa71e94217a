"""Keeps of an image what a metric needs in the end, where the metric itself would keep it whole.

mmseg's DepthMetric notes all depths of an image and of its prediction, and reduces each image to a
few numbers when all are done. Under a hundred stitches that is a hundred images' memory for one. As
the reduction looks at one image alone, it can be done at once, by the metric's own code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from mmengine.evaluator import BaseMetric

#: Method that reduces an image, by name of the class that has it together with the average.
_REDUCTIONS = {'DepthMetric': '_calc_all_metrics'}


def _reduction(metric: BaseMetric) -> str | None:
    """Name of a metric's method that reduces an image, None if there is none to rely on."""
    for kind in type(metric).__mro__:
        if 'compute_metrics' in vars(kind):
            name = _REDUCTIONS.get(kind.__name__)
            return name if name in vars(kind) else None
    return None


def condense(metric: BaseMetric, results: Iterable[Any]) -> list[Any]:
    """Results that a metric noted, each image reduced if it is known how.

    To be evaluated within :func:`accepting_condensed`.
    """
    name = _reduction(metric)
    if name is None:
        return list(results)
    reduce = getattr(metric, name)
    # On the CPU, as BaseMetric.evaluate moves results before it averages them.
    return [(reduce(truth.cpu(), found.cpu()), None) for truth, found in results]


@contextmanager
def accepting_condensed(metrics: Iterable[BaseMetric]) -> Iterator[None]:
    """Let metrics evaluate condensed results for the length of a ``with`` block."""
    with ExitStack() as stack:
        for metric in metrics:
            name = _reduction(metric)
            if name is not None:
                setattr(metric, name, _passing(getattr(metric, name)))
                stack.callback(delattr, metric, name)
        yield


def _passing(reduce: Any) -> Any:
    def passing(truth: Any, found: Any) -> Any:
        return truth if isinstance(truth, Mapping) else reduce(truth, found)

    return passing
