"""What a metric needs of each image, in a compact form that gives its results back bit for bit.

A form exists for mmseg's IoUMetric (areas by class), its DepthMetric and mmpretrain's Accuracy
(values that are averaged over images), and mmdet's CocoMetric (matches of detections with objects).
Beside the metric's own results, a form gives the metric of any weighting of the images, which is
what a bootstrap over images needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

from .match_statistics import MatchStatistics, covers, first_key


class ImageStatistics(Protocol):
    """Statistics of all images under one stitch, for one metric.

    Attributes:
        num_images: Number of images.
        keys: Names of what the metric computes, without its prefix.
    """

    num_images: int
    keys: tuple[str, ...]

    def scores(self, metric: BaseMetric) -> dict[str, float]:
        """What the metric computes of all images, by its own code wherever it has any for it."""

    def estimate(self, key: str, weights: np.ndarray) -> np.ndarray:
        """The metric for weightings of the images.

        Args:
            key: One of ``keys``.
            weights: How often each image counts (R, N), float32.

        Returns:
            (R,), unrounded; NaN where it is not defined.
        """

    def of_images(self, images: Sequence[int]) -> ImageStatistics:
        """Statistics of some images alone, in a given order."""

    def stored(self) -> dict[str, Any]:
        """Arrays, numbers and texts that :func:`restored` takes."""


@dataclass(frozen=True, eq=False)
class AreaStatistics:
    """Areas by class, of which mIoU and its kin are made.

    Attributes:
        areas: (3, N, C), int32, in pixels: intersection, prediction, label.
        dtype: Of the metric's own areas.
        metrics: ``iou_metrics`` of the metric.
        nan_to_num: Of the metric.
        beta: Of the metric.
    """

    areas: np.ndarray
    dtype: str = 'float32'
    metrics: tuple[str, ...] = ('mIoU',)
    nan_to_num: float | None = None
    beta: float = 1
    kind: str = field(default='areas', init=False)

    @property
    def num_images(self) -> int:
        """Number of images."""
        return self.areas.shape[1]

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of what the metric computes."""
        found = {
            'mIoU': ('mIoU', 'mAcc'),
            'mDice': ('mDice', 'mAcc'),
            'mFscore': ('mFscore', 'mPrecision', 'mRecall'),
        }
        return ('aAcc', *dict.fromkeys(key for name in self.metrics for key in found[name]))

    def scores(self, metric: BaseMetric) -> dict[str, float]:
        """What the metric computes of tuples of intersection, union, prediction and label."""
        inter, pred, label = torch.from_numpy(self.areas).to(getattr(torch, self.dtype))
        return metric.compute_metrics(list(zip(inter, pred + label - inter, pred, label)))

    @cached_property
    def _factors(self) -> np.ndarray:
        return self.areas.astype(np.float32)

    def estimate(
        self, key: str, weights: np.ndarray, label: np.ndarray | None = None
    ) -> np.ndarray:
        """The metric for weightings of the images; see :class:`ImageStatistics`.

        Args:
            key: One of ``keys``.
            weights: (R, N), float32.
            label: Label areas (R, C) under the weights, if another stitch gave them.
        """
        inter, pred = (weights @ self._factors[row] for row in (0, 1))
        label = self.label_areas(weights) if label is None else label
        with np.errstate(divide='ignore', invalid='ignore'):
            if key == 'aAcc':
                return 100.0 * inter.sum(1, dtype=np.float64) / label.sum(1, dtype=np.float64)
            values = self._of_classes(key, inter, pred, label)
        if self.nan_to_num is not None:
            values = np.nan_to_num(values, nan=self.nan_to_num)
        known = ~np.isnan(values)
        counts = known.sum(1)
        sums = np.where(known, values, 0).sum(1, dtype=np.float64)
        return np.where(counts, 100.0 * sums / np.maximum(counts, 1), np.nan)

    def label_areas(self, weights: np.ndarray) -> np.ndarray:
        """Label areas (R, C) under weightings; the same for all stitches of the same images."""
        return weights @ self._factors[2]

    def _of_classes(
        self, key: str, inter: np.ndarray, pred: np.ndarray, label: np.ndarray
    ) -> np.ndarray:
        if key == 'mIoU':
            return inter / (pred + label - inter)
        if key == 'mDice':
            return 2 * inter / (pred + label)
        if key == 'mPrecision':
            return inter / pred
        if key in ('mAcc', 'mRecall'):
            return inter / label
        precision, recall, beta = inter / pred, inter / label, self.beta**2
        return (1 + beta) * precision * recall / (beta * precision + recall)

    def of_images(self, images: Sequence[int]) -> AreaStatistics:
        """Statistics of some images alone, in a given order."""
        return replace(self, areas=self.areas[:, images])

    def stored(self) -> dict[str, Any]:
        """Classes that occur in each image, and their areas as planes of bytes.

        Most areas are small, so that most bytes of the upper planes are 0.
        """
        image, cls = np.nonzero(self.areas.any(0))
        inter, pred, label = self.areas[:, image, cls]
        # Of what prediction and label have in common, both hold the intersection.
        entries = np.stack([inter, pred - inter, label - inter]).astype('<i4')
        return dict(
            kind=self.kind,
            shape=list(self.areas.shape[1:]),
            counts=np.bincount(image, minlength=self.num_images).astype('<u2'),
            classes=cls.astype('<u2'),
            planes=np.ascontiguousarray(entries.reshape(-1).view(np.uint8).reshape(-1, 4).T),
            dtype=self.dtype,
            metrics=list(self.metrics),
            nan_to_num=self.nan_to_num,
            beta=self.beta,
        )

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> AreaStatistics:
        """What :meth:`stored` stored."""
        entries = np.ascontiguousarray(stored['planes'].T).reshape(-1).view('<i4').reshape(3, -1)
        areas = np.zeros((3, *stored['shape']), np.int32)
        image = np.repeat(np.arange(len(stored['counts'])), stored['counts'])
        inter = entries[0]
        areas[:, image, stored['classes'].astype(np.int64)] = np.stack(
            [inter, entries[1] + inter, entries[2] + inter]
        )
        more = (stored['dtype'], tuple(stored['metrics']), stored['nan_to_num'], stored['beta'])
        return cls(areas, *more)

    @classmethod
    def of(cls, metric: BaseMetric, results: Sequence[Any]) -> AreaStatistics | None:
        """Statistics of an IoUMetric; None if its results are not whole areas by class."""
        inter, union, pred, label = (torch.stack([one[i] for one in results]) for i in range(4))
        areas = torch.stack([inter, pred, label]).cpu()
        whole = areas.to(torch.int32)
        if not torch.equal(whole.to(areas.dtype), areas) or bool((whole < 0).any()):
            return None
        if not torch.equal(pred + label - inter, union):
            return None
        names = [metric.metrics] if isinstance(metric.metrics, str) else metric.metrics
        dtype = str(areas.dtype).split('.')[-1]
        return cls(whole.numpy(), dtype, tuple(names), metric.nan_to_num, metric.beta)


@dataclass(frozen=True, eq=False)
class MeanStatistics:
    """Values of images whose means are the metric.

    Attributes:
        values: (N,) by name, float64.
    """

    values: Mapping[str, np.ndarray]
    kind: str = field(default='means', init=False)

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(next(iter(self.values.values())))

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the values."""
        return tuple(self.values)

    def scores(self, metric: BaseMetric) -> dict[str, float]:
        """What the metric computes of the values of images."""
        columns = [values.tolist() for values in self.values.values()]
        rows = [(dict(zip(self.values, row)), None) for row in zip(*columns)]
        # DepthMetric reduces each image by this method before it averages; these are reduced.
        metric._calc_all_metrics = lambda values, _: values
        try:
            return metric.compute_metrics(rows)
        finally:
            del metric._calc_all_metrics

    def estimate(self, key: str, weights: np.ndarray) -> np.ndarray:
        """The mean for weightings of the images; see :class:`ImageStatistics`."""
        return weights.astype(np.float64) @ self.values[key] / weights.sum(1, dtype=np.float64)

    def of_images(self, images: Sequence[int]) -> MeanStatistics:
        """Statistics of some images alone, in a given order."""
        return MeanStatistics({key: values[images] for key, values in self.values.items()})

    def stored(self) -> dict[str, Any]:
        """The values by name."""
        return dict(kind=self.kind, values=dict(self.values))

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> MeanStatistics:
        """What :meth:`stored` stored."""
        return cls(dict(stored['values']))

    @classmethod
    def of(cls, metric: BaseMetric, results: Sequence[Any]) -> MeanStatistics | None:
        """Statistics of a DepthMetric whose results are condensed; None if they are not."""
        rows = [one[0] for one in results]
        if not all(isinstance(row, Mapping) for row in rows):
            return None
        return cls({key: np.array([row[key] for row in rows], np.float64) for key in rows[0]})


@dataclass(frozen=True, eq=False)
class HitStatistics:
    """Hits of mmpretrain's Accuracy.

    Attributes:
        hits: (N,) by the name of the accuracy (``top1``, ``top5_thr-0.50``), bool.
    """

    hits: Mapping[str, np.ndarray]
    kind: str = field(default='hits', init=False)

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(next(iter(self.hits.values())))

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the accuracies."""
        return tuple(self.hits)

    def scores(self, metric: BaseMetric) -> dict[str, float]:
        """Accuracies in percent, in the single precision of the metric."""
        factor = 100.0 / self.num_images
        return {
            key: torch.tensor(float(hits.sum()), dtype=torch.float32).mul_(factor).item()
            for key, hits in self.hits.items()
        }

    def estimate(self, key: str, weights: np.ndarray) -> np.ndarray:
        """The accuracy in percent for weightings; see :class:`ImageStatistics`."""
        hits = weights @ self.hits[key].astype(np.float32)
        return 100.0 * hits.astype(np.float64) / weights.sum(1, dtype=np.float64)

    def of_images(self, images: Sequence[int]) -> HitStatistics:
        """Statistics of some images alone, in a given order."""
        return HitStatistics({key: hits[images] for key, hits in self.hits.items()})

    def stored(self) -> dict[str, Any]:
        """Eight hits a byte, by name."""
        bits = {key: np.packbits(hits) for key, hits in self.hits.items()}
        return dict(kind=self.kind, num_images=self.num_images, hits=bits)

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> HitStatistics:
        """What :meth:`stored` stored."""
        count = stored['num_images']
        return cls({key: np.unpackbits(bits, count=count).astype(bool)
                    for key, bits in stored['hits'].items()})  # fmt: skip

    @classmethod
    def of(cls, metric: BaseMetric, results: Sequence[Any]) -> HitStatistics | None:
        """Statistics of an Accuracy; None if an image has several labels."""
        target = torch.cat([one['gt_label'] for one in results]).to(torch.int64)
        if len(target) != len(results):
            return None
        if 'pred_score' not in results[0]:
            label = torch.cat([one['pred_label'] for one in results]).int()
            return cls({'top1': label.eq(target).numpy()}) if len(label) == len(target) else None
        # As Accuracy.calculate does, up to the sum over images.
        scores, labels = torch.stack([one['pred_score'] for one in results]).float().topk(
            max(metric.topk), dim=1
        )
        correct = labels.eq(target[:, None])
        hits = {}
        for k in metric.topk:
            for threshold in metric.thrs:
                name = f'top{k}'
                if len(metric.thrs) > 1:
                    name += '_no-thr' if threshold is None else f'_thr-{threshold:.2f}'
                counted = correct if threshold is None else correct & (scores > threshold)
                hits[name] = counted[:, :k].any(1).numpy()
        return cls(hits)


#: Form of a metric by the class whose ``compute_metrics`` it runs.
_FORMS = {
    'IoUMetric': AreaStatistics,
    'DepthMetric': MeanStatistics,
    'Accuracy': HitStatistics,
    'CocoMetric': MatchStatistics,
}
_KINDS = {form.kind: form for form in _FORMS.values()}
#: The first figure that metrics of a form compute, whatever their settings.
_FIRST_KEYS = {AreaStatistics: 'aAcc', MeanStatistics: 'd1', HitStatistics: 'top1'}


def form_of(metric: BaseMetric) -> type | None:
    """The form of a metric's statistics; None where there is none.

    A subclass with a computation of its own has none, and neither has a metric that only writes
    files.
    """
    if getattr(metric, 'format_only', False):
        return None
    for kind in type(metric).__mro__:
        if 'compute_metrics' in vars(kind):
            hosts = ('mmseg', 'mmpretrain', 'mmdet')
            return _FORMS.get(kind.__name__) if kind.__module__.split('.')[0] in hosts else None
    return None


def first_figure(metric: BaseMetric) -> str:
    """Name, with its prefix, of the first figure that a metric with a form computes."""
    form = form_of(metric)
    key = first_key(metric) if form is MatchStatistics else _FIRST_KEYS[form]
    return f'{metric.prefix}/{key}' if metric.prefix else key


def is_of_these(metric: BaseMetric, num_images: int) -> bool:
    """Whether the figures of a metric are of as many images, and not of others too."""
    return form_of(metric) is not MatchStatistics or covers(metric, num_images)


def statistics_of(metric: BaseMetric, results: Sequence[Any]) -> ImageStatistics | None:
    """Statistics of images from what a metric noted of them.

    Args:
        metric: The metric.
        results: What it noted, one entry an image.

    Returns:
        None where the metric has no form.
    """
    form = form_of(metric)
    return form.of(metric, results) if form is not None and results else None


def restored(stored: Mapping[str, Any]) -> ImageStatistics:
    """Statistics from their :meth:`ImageStatistics.stored`.

    Raises:
        ValueError: If the kind is unknown.
    """
    if stored.get('kind') not in _KINDS:
        raise ValueError(f'statistics of images of the kind {stored.get("kind")!r} are not known')
    return _KINDS[stored['kind']].restored(stored)
