"""Matches of detections with objects, image by image, of which COCO's average precision is made.

They are those of pycocotools, for boxes and for masks, at every threshold of IoU and in every range
of areas. Of scores the order alone is kept, which is all that precision and recall depend on.
"""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.fileio import load

#: Figures of COCO: of precision or recall, at one IoU or (None) on average, in the range of areas
#: of a number, with the most detections an image and category: that many, or the entry of that
#: number of ``proposal_nums``. Their order is that of ``COCOeval.stats``.
_ITEMS = {
    'mAP': ('precision', None, 0, 100),
    'mAP_50': ('precision', 0.5, 0, 2),
    'mAP_75': ('precision', 0.75, 0, 2),
    'mAP_s': ('precision', None, 1, 2),
    'mAP_m': ('precision', None, 2, 2),
    'mAP_l': ('precision', None, 3, 2),
    'AR@100': ('recall', None, 0, 0),
    'AR@300': ('recall', None, 0, 1),
    'AR@1000': ('recall', None, 0, 2),
    'AR_s@1000': ('recall', None, 1, 2),
    'AR_m@1000': ('recall', None, 2, 2),
    'AR_l@1000': ('recall', None, 3, 2),
}
#: What CocoMetric computes if it is given no ``metric_items``.
_DEFAULT_ITEMS = tuple(_ITEMS)[:6]
#: Recall at which COCO reads precision, as pycocotools has it.
_RECALLS = np.linspace(0.0, 1.0, 101)
_AREAS = 4
#: Detections x resamples that are worked on at once.
_AT_ONCE = 2_000_000

#: Outcomes of a detection.
FALSE, TRUE, IGNORED = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Matches:
    """Detections of boxes or of masks, and the objects that there are.

    Attributes:
        image: (D,), position of the image of each detection. Detections are sorted by category,
            and then by falling score.
        bounds: (K + 1,): those of category k are [bounds[k], bounds[k + 1]).
        outcome: (A, T, D), int8: false, true or ignored, by range of areas and IoU threshold.
        objects: (K, A, N), int32: objects to be found, by category, range of areas and image.
    """

    image: np.ndarray
    bounds: np.ndarray
    outcome: np.ndarray
    objects: np.ndarray

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Image (D,), outcome (A, T, D) and objects (A, N) of each category."""
        for start, stop, objects in zip(self.bounds, self.bounds[1:], self.objects):
            yield self.image[start:stop], self.outcome[..., start:stop], objects

    def of_images(self, images: Sequence[int]) -> Matches:
        """Matches of some images alone, in a given order."""
        place = np.full(self.objects.shape[2], -1)
        place[list(images)] = np.arange(len(images))
        kept = place[self.image] >= 0
        bounds = np.concatenate([[0], np.cumsum(kept)])[self.bounds]
        return Matches(
            place[self.image[kept]], bounds, self.outcome[..., kept], self.objects[..., images]
        )

    def stored(self) -> dict[str, Any]:
        """Arrays; the outcomes of a detection are a number into a list of those that occur."""
        areas, thresholds, detections = self.outcome.shape
        rows = np.concatenate([self.outcome == TRUE, self.outcome == IGNORED]).reshape(
            2 * areas * thresholds, detections
        )
        kinds, code = np.packbits(rows, axis=0), np.zeros(0, np.int64)
        if detections:
            kinds, code = np.unique(kinds, axis=1, return_inverse=True)
        return dict(
            image=_smallest(self.image),
            bounds=_smallest(self.bounds),
            kinds=kinds,
            code=_smallest(code.reshape(-1)),
            shape=[areas, thresholds],
            objects=_smallest(self.objects),
        )

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> Matches:
        """What :meth:`stored` stored."""
        areas, thresholds = stored['shape']
        planes = stored['kinds'][:, stored['code']]
        bits = np.unpackbits(planes, axis=0, count=2 * areas * thresholds)
        true, ignored = bits.reshape(2, areas, thresholds, planes.shape[1]).astype(np.int8)
        return cls(
            stored['image'].astype(np.int64),
            stored['bounds'].astype(np.int64),
            true * TRUE + ignored * IGNORED,
            stored['objects'].astype(np.int32),
        )

    @classmethod
    def of(cls, evaluation: Any, places: Mapping[Any, int]) -> Matches:
        """Matches of a ``COCOeval`` that has evaluated images one by one.

        Args:
            evaluation: The ``COCOeval``, as detections of one image are sorted by score.
            places: Positions of images by their ids.
        """
        params = evaluation.params
        table = np.empty(len(evaluation.evalImgs), object)
        table[:] = evaluation.evalImgs
        table = table.reshape(len(params.catIds), len(params.areaRng), len(params.imgIds))
        objects = np.zeros(table.shape, np.int32)
        thresholds, parts = len(params.iouThrs), []
        for category, rows in enumerate(table):
            for area, image in zip(*np.nonzero(rows != None)):  # noqa: E711 - element by element
                place = places[params.imgIds[image]]
                objects[category, area, place] = (rows[area, image]['gtIgnore'] == 0).sum()
            parts.append(_of_category(rows, [places[one] for one in params.imgIds], thresholds))
        bounds = np.cumsum([0, *(len(image) for image, _ in parts)])
        image, outcome = (np.concatenate([part[i] for part in parts], -1) for i in (0, 1))
        return cls(image, bounds, outcome, objects)


def _of_category(
    rows: np.ndarray, places: Sequence[int], thresholds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Image (D,) and outcome (A, T, D) of the detections of one category, by falling score.

    Detections behind the last that is true anywhere change neither precision nor recall; these are
    left out.
    """
    found = [number for number, one in enumerate(rows[0]) if one is not None]
    if not found:
        return np.zeros(0, np.int64), np.zeros((len(rows), thresholds, 0), np.int8)
    counts = [len(rows[0, number]['dtScores']) for number in found]
    image = np.repeat([places[number] for number in found], counts)
    scores = np.concatenate([rows[0, number]['dtScores'] for number in found])
    order = np.argsort(-scores, kind='mergesort')  # as pycocotools sorts
    ignored, matched = (
        np.stack([np.concatenate([row[number][key] for number in found], 1) for row in rows])
        for key in ('dtIgnore', 'dtMatches')
    )
    outcome = np.where(ignored.astype(bool), IGNORED, np.where(matched != 0, TRUE, FALSE))
    outcome = outcome.astype(np.int8)[..., order]
    last = np.flatnonzero((outcome == TRUE).any((0, 1)))
    stop = last[-1] + 1 if len(last) else 0
    return image[order][:stop], outcome[..., :stop]


def _smallest(array: np.ndarray) -> np.ndarray:
    """Whole numbers in the smallest unsigned type that holds them."""
    return array.astype(np.min_scalar_type(int(array.max(initial=0))))


def _first(image: np.ndarray, count: int) -> np.ndarray:
    """Which detections (D,) are among the first of their image."""
    order = np.argsort(image, kind='stable')
    ordered = image[order]
    number = np.arange(len(image)) - np.searchsorted(ordered, ordered)
    first = np.empty(len(image), bool)
    first[order] = number < count
    return first


def average_precision(
    image: np.ndarray, outcome: np.ndarray, objects: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Average precision of one category, the mean over thresholds, for weightings of the images.

    That is the mean over 101 values of recall of the best precision at that recall or a greater
    one, as pycocotools has it. Precision is the best of its surroundings at true detections, so it
    is looked at there alone.

    Args:
        image: (D,), of each detection, by falling score.
        outcome: (T, D), see :class:`Matches`.
        objects: (R,), the number of objects of each weighting.
        weights: (R, N), float32.

    Returns:
        (R,); where there are no objects, the value means nothing.
    """
    drawn = weights[:, image]
    seen = np.cumsum(drawn, 1)
    total = np.zeros(len(weights))
    for row in outcome:
        places = np.flatnonzero(row == TRUE)
        if not len(places):
            continue
        true = np.cumsum(drawn[:, places], 1, dtype=np.float64)
        counted = seen[:, places].astype(np.float64)
        if (row == IGNORED).any():
            counted -= np.cumsum(drawn * (row == IGNORED), 1)[:, places]
        precision = true / (counted + np.spacing(1))
        best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        recall = true / np.maximum(objects, 1)[:, None]
        near = np.rint(recall * 100).astype(np.int64)
        reached = near + (_RECALLS[near] <= recall)
        total += (best * np.diff(reached, axis=1, prepend=0)).sum(1)
    return total / (len(_RECALLS) * len(outcome))


def average_recall(
    image: np.ndarray, outcome: np.ndarray, objects: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Recall of one category, the mean over thresholds; see :func:`average_precision`."""
    per_image = np.zeros(weights.shape[1])
    np.add.at(per_image, image, (outcome == TRUE).sum(0))
    return weights @ per_image / (np.maximum(objects, 1) * len(outcome))


@dataclass(frozen=True, eq=False)
class MatchStatistics:
    """Matches of detections, of which the average precision of COCO is made.

    Attributes:
        matches: By what is matched, ``bbox`` or ``segm``.
        thresholds: Of the IoU.
        max_dets: ``proposal_nums`` of the metric, ascending.
        items: ``metric_items`` of the metric.
    """

    matches: Mapping[str, Matches]
    thresholds: tuple[float, ...]
    max_dets: tuple[int, ...]
    items: tuple[str, ...]
    kind: str = field(default='matches', init=False)

    @property
    def num_images(self) -> int:
        """Number of images."""
        return next(iter(self.matches.values())).objects.shape[2]

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of what the metric computes, but for the precision of classes."""
        return tuple(f'{kind}_{item}' for kind in self.matches for item in self.items)

    def scores(self, metric: BaseMetric) -> dict[str, float]:
        """What pycocotools sums up, rounded as the metric rounds it."""
        found = {}
        for kind in self.matches:
            stats = dict(zip(_ITEMS, self._summed_up(kind, metric)))
            for item in self.items:
                found[f'{kind}_{item}'] = float(f'{round(stats[item], 3)}')
        return found

    def _summed_up(self, kind: str, metric: BaseMetric) -> np.ndarray:
        """``stats`` of a ``COCOeval`` that is given the matches."""
        from mmdet.datasets.api_wrappers import COCOeval

        evaluation, one = COCOeval(iouType=kind), self.matches[kind]
        params = evaluation.params
        params.iouThrs, params.maxDets = metric.iou_thrs, sorted(metric.proposal_nums)
        params.catIds, params.imgIds = (list(range(one.objects.shape[i])) for i in (0, 2))
        evaluation.evalImgs = [
            entry for category in one for area in range(_AREAS)
            for entry in _entries(*category, area)
        ]  # fmt: skip
        evaluation._paramsEval = copy.deepcopy(params)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation.stats

    def estimate(self, key: str, weights: np.ndarray) -> np.ndarray:
        """The metric for weightings; see ``ImageStatistics``."""
        kind, item = key.split('_', 1)
        of, iou, area, most = _ITEMS[item]
        rows = [n for n, one in enumerate(self.thresholds) if iou is None or one == iou]
        most = most if most == 100 else self.max_dets[most]
        if not rows or most not in self.max_dets:
            return np.full(len(weights), np.nan)
        measure = average_precision if of == 'precision' else average_recall
        sums, counts = np.zeros(len(weights)), np.zeros(len(weights))
        for image, outcome, objects in self.matches[kind]:
            if not objects[area].any():
                continue
            first = _first(image, most)
            image, outcome = image[first], outcome[area][rows][:, first]
            size = max(_AT_ONCE // max(len(image), 1), 1)
            for start in range(0, len(weights), size):
                part = slice(start, start + size)
                there = weights[part] @ objects[area].astype(np.float64)
                values = measure(image, outcome, there, weights[part])
                sums[part] += np.where(there > 0, values, 0)
                counts[part] += there > 0
        return np.where(counts, sums / np.maximum(counts, 1), np.nan)

    def of_images(self, images: Sequence[int]) -> MatchStatistics:
        """Statistics of some images alone, in a given order."""
        matches = {kind: one.of_images(images) for kind, one in self.matches.items()}
        return replace(self, matches=matches)

    def stored(self) -> dict[str, Any]:
        """Arrays of each kind of matches; what masks share with boxes is stored once."""
        matches, former = {}, {}
        for kind, one in self.matches.items():
            stored = one.stored()
            matches[kind] = {
                name: None if name in former and _same(value, former[name]) else value
                for name, value in stored.items()
            }
            former = former or stored
        return dict(
            kind=self.kind,
            matches=matches,
            thresholds=list(self.thresholds),
            max_dets=list(self.max_dets),
            items=list(self.items),
        )

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> MatchStatistics:
        """What :meth:`stored` stored."""
        first = next(iter(stored['matches'].values()))
        matches = {
            kind: Matches.restored({k: first[k] if v is None else v for k, v in one.items()})
            for kind, one in stored['matches'].items()
        }
        return cls(matches, *(tuple(stored[key]) for key in ('thresholds', 'max_dets', 'items')))

    @classmethod
    def of(cls, metric: BaseMetric, results: Sequence[Any]) -> MatchStatistics | None:
        """Statistics of a CocoMetric; None if nothing was detected, or it matches nothing."""
        kinds = [kind for kind in metric.metrics if kind in ('bbox', 'segm')]
        places = {found['img_id']: number for number, (_, found) in enumerate(results)}
        if not kinds or len(places) < len(results):
            return None
        matches = {}
        for kind, evaluation in _evaluations(metric, results, kinds):
            matches[kind] = Matches.of(evaluation, places)
        if not matches:
            return None
        items = tuple(metric.metric_items or _DEFAULT_ITEMS)
        thresholds = tuple(map(float, metric.iou_thrs))
        return cls(matches, thresholds, tuple(sorted(metric.proposal_nums)), items)


def covers(metric: BaseMetric, num_images: int) -> bool:
    """Whether a CocoMetric scores as many images as there are, and none that were not seen."""
    return metric._coco_api is None or len(metric._coco_api.getImgIds()) == num_images


def first_key(metric: BaseMetric) -> str:
    """Name of the first figure that a CocoMetric computes."""
    return f'{metric.metrics[0]}_{(metric.metric_items or _DEFAULT_ITEMS)[0]}'


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, np.ndarray) and np.array_equal(one, other)


def _entries(
    image: np.ndarray, outcome: np.ndarray, objects: np.ndarray, area: int
) -> list[dict[str, Any] | None]:
    """Entries of ``COCOeval.evalImgs`` of one category in one range of areas, for all images."""
    entries: list[dict[str, Any] | None] = [None] * objects.shape[1]
    order = np.argsort(image, kind='stable')
    starts = np.searchsorted(image[order], np.arange(len(entries) + 1))
    for number, (start, stop) in enumerate(zip(starts, starts[1:])):
        count = objects[area, number]
        if start < stop or count:
            places = order[start:stop]
            rows = outcome[area][:, places]
            entries[number] = dict(
                dtScores=-places.astype(float),  # in the order that the scores had
                dtMatches=(rows == TRUE).astype(float),
                dtIgnore=rows == IGNORED,
                gtIgnore=np.zeros(count),
            )
    return entries


def _evaluations(
    metric: BaseMetric, results: Sequence[Any], kinds: Sequence[str]
) -> Iterator[tuple[str, Any]]:
    """A ``COCOeval`` of each kind that has matched the images of the results.

    It is set up as in ``CocoMetric.compute_metrics``, by the metric's own methods; a copy is used,
    since a metric without a file of annotations would take these images for all.
    """
    from mmdet.datasets.api_wrappers import COCO, COCOeval

    metric = copy.copy(metric)
    truths, found = zip(*results)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        prefix = str(Path(folder, 'results'))
        if metric._coco_api is None:
            metric._coco_api = COCO(metric.gt_to_coco_json(truths, prefix))
        api = metric._coco_api
        metric.cat_ids = api.get_cat_ids(cat_names=metric.dataset_meta['classes'])
        files = metric.results2json(found, prefix)
        for kind in kinds:
            predictions = load(files[kind])
            if not predictions:
                return
            if kind == 'segm':  # else areas would be those of the boxes
                for one in predictions:
                    del one['bbox']
            evaluation = COCOeval(api, api.loadRes(predictions), kind)
            params = evaluation.params
            params.catIds, params.imgIds = metric.cat_ids, [one['img_id'] for one in found]
            params.maxDets, params.iouThrs = list(metric.proposal_nums), metric.iou_thrs
            evaluation.evaluate()
            yield kind, evaluation
