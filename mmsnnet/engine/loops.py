"""Validation and test loops that score several stitches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Union

from mmengine.dist import get_world_size
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner, TestLoop, ValLoop
from torch.utils.data import DataLoader

from mmsnnet.models import check_fitted, find_stitched_backbone
from mmsnnet.registry import LOOPS
from mmsnnet.results.pareto import Point, hypervolume, pareto_front
from mmsnnet.stitching import Stitch, select_stitches

from .one_pass import BatchResults, OnePass, evaluate, evaluate_alone, reason_against
from .rng_state import preserved_rng

Stitches = Union[str, int, Iterable[Union[str, int]]]


class StitchScoring:
    """What the two loops share: which stitches they score and how they sum up.

    The summary is made of one metric: its best and worst value over the stitches, the best of each
    family (``best/S-L/mIoU``, for MMEngine's visualizer to draw over training), and
    ``pareto/hypervolume`` in [0, 1], the share that the stitches dominate of the rectangle of
    FLOPs (up to the backbone's costliest stitch) and metric (from worst to best possible).

    Args:
        runner: The runner, its model built.
        stitches: 'all', 'anchors', 'spread:N', families, names or ids.
        metric: Name of the metric of the summary, such as 'mIoU'; None for no summary.
        rule: 'greater' or 'less', which is better.
        metric_range: Worst and best possible value; (0, 100) for percentages.

    Raises:
        ValueError: If a stitch or the rule is unknown, or the range contradicts the rule.
    """

    def __init__(
        self,
        runner: Runner,
        stitches: Stitches,
        metric: str | None,
        rule: str,
        metric_range: tuple[float, float],
    ) -> None:
        self._runner = runner
        self.backbone = find_stitched_backbone(runner.model)
        self.stitches = select_stitches(self.backbone.space, self.backbone.costs.flops, stitches)
        if rule not in ('greater', 'less'):
            raise ValueError(f"rule={rule!r} is not possible: choose 'greater' or 'less'.")
        self._worst, self._best = metric_range
        if (self._best > self._worst) != (rule == 'greater'):
            raise ValueError(
                f'metric_range={metric_range} is (worst, best) and contradicts rule={rule!r}.'
            )
        self._metric = metric
        self._rule = rule

    def run(self, loop: StitchLoop) -> dict[str, float]:
        """Metrics of every stitch as ``NAME/metric``, and the summary."""
        check_fitted(self.backbone)
        metrics: dict[str, float] = {}
        points = []
        for stitch, scores in loop.run_stitches(self.stitches):
            metrics.update({f'{stitch.name}/{key}': value for key, value in scores.items()})
            if self._metric is not None:
                points.append(self._point(stitch, scores))
        metrics.update(self._summary(points))
        return metrics

    def _point(self, stitch: Stitch, scores: Mapping[str, float]) -> Point:
        if self._metric not in scores:
            raise ValueError(
                f'metric={self._metric!r} of the loop is not among the metrics of the evaluator: '
                f'{sorted(scores)}.'
            )
        point = Point(stitch.name, self.backbone.costs[stitch].flops, float(scores[self._metric]))
        self._runner.logger.info(
            f'{stitch.name}: {point.cost / 1e9:.4g} GFLOPs, {self._metric} {point.quality:.4g}'
        )
        return point

    def _summary(self, points: list[Point]) -> dict[str, float]:
        if not points:
            return {}
        qualities = sorted((point.quality for point in points), reverse=self._rule == 'greater')
        best = max if self._rule == 'greater' else min
        families: dict[str, float] = {}
        for point in points:
            key = f'best/{self.backbone.space[point.name].family}/{self._metric}'
            families[key] = best(families.get(key, point.quality), point.quality)
        return {
            **families,
            f'best/{self._metric}': qualities[0],
            f'worst/{self._metric}': qualities[-1],
            'pareto/size': float(len(pareto_front(points, self._rule))),
            'pareto/hypervolume': hypervolume(
                points,
                max_cost=max(self.backbone.costs.flops.values()),
                worst=self._worst,
                best=self._best,
            ),
        }


class StitchLoop:
    """Mix-in for loops of MMEngine that scores several stitches.

    One pass over the data serves all stitches, which share what they have in common; the results
    are those of one pass each. The hooks of the whole evaluation fire once, those of iterations
    once for each stitch and batch. The active stitch and the states of the global random
    generators are restored.

    Args:
        runner: The runner.
        dataloader: Data loader, or the config of one.
        evaluator: Evaluator, or the config of its metrics.
        fp16: Whether to run under autocast.
        stitches: See :class:`StitchScoring`; None takes the default of the loop.
        metric: See :class:`StitchScoring`.
        rule: See :class:`StitchScoring`.
        metric_range: See :class:`StitchScoring`.
        one_pass: Whether stitches are scored together; else one after the other.
        max_memory: Most bytes of features kept for other stitches in one pass; None for no bound.
    """

    mode: str
    default_stitches: str

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        fp16: bool = False,
        stitches: Stitches | None = None,
        metric: str | None = None,
        rule: str = 'greater',
        metric_range: tuple[float, float] = (0.0, 100.0),
        one_pass: bool = True,
        max_memory: float | None = None,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        self.one_pass = one_pass
        self.max_memory = max_memory
        wanted = self.default_stitches if stitches is None else stitches
        self.scoring = StitchScoring(runner, wanted, metric, rule, metric_range)

    def run(self) -> dict[str, float]:
        """Score the stitches and return their metrics."""
        self.runner.call_hook(f'before_{self.mode}')
        self.runner.call_hook(f'before_{self.mode}_epoch')
        self.runner.model.eval()
        with preserved_rng():
            metrics = self.scoring.run(self)
        self.runner.call_hook(f'after_{self.mode}_epoch', metrics=metrics)
        self.runner.call_hook(f'after_{self.mode}')
        return metrics

    @property
    def reason_against_one_pass(self) -> str | None:
        """Why stitches can only be scored one after the other, None if it is not so."""
        return reason_against(self.evaluator)

    def run_stitches(
        self, stitches: Sequence[Stitch]
    ) -> Iterator[tuple[Stitch, dict[str, float]]]:
        """Each stitch with its metrics over the whole data set."""
        reason = self.reason_against_one_pass
        if self.one_pass and reason is None and len(stitches) > 1:
            yield from self._run_together(stitches)
            return
        if self.one_pass and reason is not None:
            self.runner.logger.warning(f'Stitches are scored one after the other: {reason}.')
        for stitch in stitches:
            yield stitch, self.run_stitch(stitch)

    def _run_together(
        self, stitches: Sequence[Stitch]
    ) -> Iterator[tuple[Stitch, dict[str, float]]]:
        results: dict[str, list[BatchResults]] = {stitch.name: [] for stitch in stitches}
        with self.together(stitches, self.max_memory) as one_pass:
            for index, batch in enumerate(self.dataloader):
                for name, noted in one_pass.run_batch(index, batch).items():
                    results[name].append(noted)
        for stitch in stitches:
            yield stitch, self.evaluate(stitch, results.pop(stitch.name))

    @contextmanager
    def together(
        self, stitches: Sequence[Stitch], max_memory: float | None = None
    ) -> Iterator[OnePass]:
        """What runs stitches together on batches, for the length of a ``with`` block."""
        with OnePass(self, stitches, max_memory).activate() as one_pass:
            yield one_pass

    def evaluate(self, stitch: Stitch, noted: Iterable[BatchResults]) -> dict[str, float]:
        """Metrics of a stitch from what the evaluator's metrics noted for batches.

        In several processes each gives its own batches, and all get the metrics.
        """
        with self.scoring.backbone.use_stitch(stitch):
            return evaluate(self.evaluator, noted, len(self.dataloader.dataset))

    def evaluate_alone(self, stitch: Stitch, noted: Iterable[BatchResults]) -> dict[str, float]:
        """Metrics of a stitch where one process holds what was noted for all batches."""
        if get_world_size() == 1:
            return self.evaluate(stitch, noted)
        with self.scoring.backbone.use_stitch(stitch):
            return evaluate_alone(self.evaluator, noted)

    def run_stitch(self, stitch: Stitch) -> dict[str, float]:
        """Metrics of one stitch over the whole data set, in a pass of its own."""
        with self.scoring.backbone.use_stitch(stitch):
            for index, batch in enumerate(self.dataloader):
                self.run_iter(index, batch)
            return self.evaluator.evaluate(len(self.dataloader.dataset))


@LOOPS.register_module()
class StitchValLoop(StitchLoop, ValLoop):
    """Validation of a few stitches, by default of the anchors, which bound what lies between.

    ``default_hooks.checkpoint`` with ``save_best='pareto/hypervolume', rule='greater'`` keeps the
    checkpoint of the best front (MMEngine needs the rule for metrics it does not know).
    See :class:`StitchLoop` for the arguments.
    """

    mode = 'val'
    default_stitches = 'anchors'


@LOOPS.register_module()
class StitchTestLoop(StitchLoop, TestLoop):
    """Test of many stitches, by default of all. See :class:`StitchLoop` for the arguments."""

    mode = 'test'
    default_stitches = 'all'
