"""Which stitches a loop scores, and how their metrics are summed up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union

import numpy as np
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

from mmsnnet.models import StitchedViT
from mmsnnet.results.pareto import Point, hypervolume, pareto_front
from mmsnnet.stitching import Stitch, select_stitches

from .metric_names import check_metric_name, only_writes_files, returned_nothing

Stitches = Union[str, int, Iterable[Union[str, int]]]


class StitchScoring:
    """What validation and test share: which stitches they score and how they sum up.

    The summary is made of one metric. It stands first and under the metric's own name, as the best
    value over the stitches, so that monitors of configs for one network find it. Beside it are the
    best and worst value (``best/mIoU``, ``worst/mIoU``), the best of each family
    (``best/S-L/mIoU``, for MMEngine's visualizer to draw over training), the size of the Pareto
    front, and ``pareto/hypervolume`` in [0, 1], the share that the stitches dominate of the
    rectangle of the backbone's FLOPs (up to the costliest stitch) and metric (from worst to best
    possible). A stitch whose metric is missing or not finite counts as the worst possible value.

    Args:
        runner: The runner, its model built.
        backbone: Its stitched backbone.
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
        backbone: StitchedViT,
        stitches: Stitches,
        metric: str | None,
        rule: str,
        metric_range: tuple[float, float],
    ) -> None:
        self._runner = runner
        self.backbone = backbone
        self.stitches = select_stitches(backbone.space, backbone.costs.flops, stitches)
        if rule not in ('greater', 'less'):
            raise ValueError(f"rule={rule!r} is not possible: choose 'greater' or 'less'.")
        self._worst, self._best = metric_range
        if (self._best > self._worst) != (rule == 'greater'):
            raise ValueError(
                f'metric_range={metric_range} is (worst, best) and contradicts rule={rule!r}.'
            )
        self.metric = metric
        self.rule = rule

    @property
    def summary_rules(self) -> dict[str, str]:
        """Keys of the summary, each with the rule of what is better; none without a metric."""
        if self.metric is None:
            return {}
        families = dict.fromkeys(stitch.family for stitch in self.stitches)
        values = [self.metric, f'best/{self.metric}', f'worst/{self.metric}']
        values += [f'best/{family}/{self.metric}' for family in families]
        volumes = ['pareto/hypervolume', 'pareto/size']
        return {**dict.fromkeys(values, self.rule), **dict.fromkeys(volumes, 'greater')}

    def check_metric(self, evaluator: Evaluator) -> None:
        """Refuse a metric that the evaluator cannot give, as far as this shows beforehand.

        Raises:
            ValueError: If it cannot.
        """
        if self.metric is not None and not only_writes_files(evaluator):
            check_metric_name(self.metric, evaluator)

    def summarise(
        self, scores: Mapping[Stitch, Mapping[str, Any]], evaluator: Evaluator
    ) -> dict[str, Any]:
        """The summary, and the metrics of every stitch as ``NAME/metric``.

        Args:
            scores: Metrics of each stitch.
            evaluator: What gave them.

        Raises:
            ValueError: If no stitch has the metric of the summary, although there are others.
        """
        metrics = {
            f'{stitch.name}/{key}': _shortest(value)
            for stitch, values in scores.items()
            for key, value in values.items()
        }
        if self.metric is None or (not metrics and only_writes_files(evaluator)):
            return metrics
        if not any(self.metric in values for values in scores.values()):
            names = {key for values in scores.values() for key in values}
            if not returned_nothing(self.metric, names, evaluator):
                raise ValueError(
                    f'metric={self.metric!r} of the loop is not among the metrics of the '
                    f'evaluator: {sorted(names)}.'
                )
        points = [self._point(stitch, values) for stitch, values in scores.items()]
        for point in points:
            metrics.setdefault(f'{point.name}/{self.metric}', point.quality)
        self._warn(points)
        return {**self._summary(points), **metrics}

    def quality(self, values: Mapping[str, Any]) -> float:
        """The metric of the summary among those of a stitch; NaN if it is missing or infinite."""
        quality = float(_shortest(values.get(self.metric, math.nan)))
        return quality if math.isfinite(quality) else math.nan

    def _point(self, stitch: Stitch, values: Mapping[str, Any]) -> Point:
        return Point(stitch.name, self.backbone.costs[stitch].flops, self.quality(values))

    def log(self, stitch: Stitch, values: Mapping[str, Any]) -> None:
        """Log the metric of the summary of a stitch."""
        point = self._point(stitch, values)
        if self.metric in values:
            self._runner.logger.info(
                f'{point.name}: {point.cost / 1e9:.4g} backbone GFLOPs, '
                f'{self.metric} {point.quality:.4g}'
            )

    def _warn(self, points: Sequence[Point]) -> None:
        missing = [point.name for point in points if math.isnan(point.quality)]
        if missing:
            self._runner.logger.warning(
                f'No finite {self.metric} of {len(missing)} of {len(points)} stitches '
                f'({", ".join(missing)}): they count as the worst value, {self._worst:g}.'
            )

    def _summary(self, points: Sequence[Point]) -> dict[str, float]:
        families: dict[str, list[float]] = {}
        for point in points:
            quality = self._worst if math.isnan(point.quality) else point.quality
            families.setdefault(self.backbone.space[point.name].family, []).append(quality)
        best, worst = (max, min) if self.rule == 'greater' else (min, max)
        qualities = [quality for values in families.values() for quality in values]
        metric = self.metric
        return {
            metric: best(qualities),
            f'best/{metric}': best(qualities),
            f'worst/{metric}': worst(qualities),
            'pareto/size': float(len(pareto_front(points, self.rule))),
            'pareto/hypervolume': hypervolume(
                points,
                max_cost=max(self.backbone.costs.flops.values()),
                worst=self._worst,
                best=self._best,
            ),
            **{f'best/{family}/{metric}': best(values) for family, values in families.items()},
        }


def _shortest(value: Any) -> Any:
    """A metric, of float32 the digits that it has: 45.2, not 45.20000076."""
    return float(str(value)) if isinstance(value, np.float32) else value
