"""Scores many stitches in one pass over the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Protocol

from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.runner import Runner

from mmsnnet.models import find_predicting_backbone
from mmsnnet.models.prefix_cache import PrefixCache
from mmsnnet.stitching import Stitch

from .shared_preprocessing import SharedPreprocessing

#: Metrics of mmseg and mmdet whose results are not in ``results`` alone but in files that each
#: stitch would write anew, or that put videos together from frames.
_APART = ('CityscapesMetric', 'CityScapesMetric', 'CocoPanopticMetric', 'BaseVideoMetric')

#: Results of each metric of an evaluator for one batch.
BatchResults = list[list[Any]]


class Scored(Protocol):
    """What is needed of a loop of MMEngine."""

    runner: Runner
    evaluator: Evaluator

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Run the model on a batch and hand its outputs to the evaluator."""


def reason_against(evaluator: Evaluator) -> str | None:
    """Why stitches must be scored one after the other, None if they can be scored together."""
    if not hasattr(evaluator, 'metrics'):
        return f'{type(evaluator).__name__} does not list its metrics'
    for metric in evaluator.metrics:
        if any(kind.__name__ in _APART for kind in type(metric).__mro__):
            return f'{type(metric).__name__} keeps results outside of its list of results'
    return None


def evaluate(evaluator: Evaluator, results: Iterable[BatchResults], size: int) -> dict[str, float]:
    """Metrics from results of batches; in several processes each gives its own batches.

    Args:
        evaluator: The evaluator that gave them.
        results: Batch by batch, as :meth:`OnePass.run_batch` returns it.
        size: Images of the whole data set.
    """
    with _restored(evaluator, results):
        return evaluator.evaluate(size)


def evaluate_alone(evaluator: Evaluator, results: Iterable[BatchResults]) -> dict[str, float]:
    """Metrics where one of several processes has the results of all batches.

    MMEngine's own evaluation would wait for the others to send theirs.
    """
    metrics = {}
    with _restored(evaluator, results):
        for metric in evaluator.metrics:
            prefix = f'{metric.prefix}/' if metric.prefix else ''
            scores = metric.compute_metrics(list(metric.results))
            metrics.update({f'{prefix}{key}': value for key, value in scores.items()})
    return metrics


@contextmanager
def _restored(evaluator: Evaluator, batches: Iterable[BatchResults]) -> Iterator[None]:
    """Put results of batches back into the metrics, for the length of a ``with`` block."""
    for batch in batches:
        for metric, results in zip(evaluator.metrics, batch):
            metric.results.extend(results)
    try:
        with accepting_condensed(evaluator.metrics):
            yield
    finally:
        for metric in evaluator.metrics:
            metric.results.clear()


class OnePass:
    """Runs all of some stitches on each batch, through the iterations of a loop of MMEngine.

    Per batch, data are loaded and preprocessed once and stitches follow each other in the cheapest
    order (see :class:`~mmsnnet.models.prefix_cache.PrefixCache`). Each runs the loop's own
    ``run_iter``: its hooks of iterations fire once per batch and stitch, its model is called as
    ever, so inference in windows, test-time augmentation, necks and heads are the model's own.
    The evaluator's metrics take turns: their results are taken out after each stitch.

    Args:
        loop: A loop of validation or test.
        stitches: What to score.
        max_memory: Most bytes of kept features; None for no bound.

    Raises:
        ValueError: If there are no stitches, or the bound is negative.
    """

    def __init__(
        self, loop: Scored, stitches: Sequence[Stitch], max_memory: float | None = None
    ) -> None:
        model = loop.runner.model
        self._loop = loop
        self._cache = PrefixCache(find_predicting_backbone(model), stitches, max_memory)
        self._preprocessing = SharedPreprocessing(model)

    @property
    def peak_bytes(self) -> int:
        """Most bytes of features and inputs that were kept at once so far."""
        return self._cache.peak_bytes

    @contextmanager
    def activate(self) -> Iterator[OnePass]:
        """Share work for the length of a ``with`` block."""
        with self._cache.activate(), self._preprocessing.activate():
            yield self

    def run_batch(self, index: int, batch: Any) -> dict[str, BatchResults]:
        """Run all stitches on a batch.

        Args:
            index: Of the batch, for the hooks.
            batch: As the data loader yields it.

        Returns:
            By name of the stitch, for each metric of the evaluator, its results.
        """
        results = {}
        try:
            with closing(self._cache.routes()) as routes:
                for stitch in routes:
                    self._loop.run_iter(index, batch)
                    results[stitch.name] = self._take()
        finally:
            self._preprocessing.forget()
        return results

    def _take(self) -> BatchResults:
        metrics = self._loop.evaluator.metrics
        taken = [condense(metric, metric.results) for metric in metrics]
        for metric in metrics:
            metric.results.clear()
        return taken


# -- results of metrics that keep whole images ------------------------------------------------

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
    """Results that a metric took down, each image reduced if it is known how.

    mmseg's DepthMetric keeps all depths of an image and of its prediction, and reduces each image
    to a few numbers when all are done. Under a hundred stitches that is a hundred images' memory
    for one. As the reduction looks at one image alone, it can be done at once, by the metric's own
    code. To be evaluated within :func:`accepting_condensed`.
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
