"""Matches of detections against the metric of mmdet and against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator

from mmsnnet.evaluation.front.bootstrap import resample_weights
from mmsnnet.evaluation.front.image_statistics import first_figure, form_of, statistics_of
from mmsnnet.evaluation.front.match_statistics import MatchStatistics, average_precision
from mmsnnet.evaluation.front.statistics_folder import StatisticsFolder, collect

mask = pytest.importorskip('pycocotools.mask')
coco_metric = pytest.importorskip('mmdet.evaluation.metrics.coco_metric')

CLASSES, SIDE = ('chair', 'lamp', 'bed'), 200
ITEMS = ['mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR@100', 'AR@300', 'AR@1000',
         'AR_s@1000', 'AR_m@1000', 'AR_l@1000']  # fmt: skip


def disc(box):
    """RLE of the ellipse in a box."""
    x0, y0, x1, y1 = box
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = ((columns - (x0 + x1) / 2) / max((x1 - x0) / 2, 1)) ** 2 + (
        (rows - (y0 + y1) / 2) / max((y1 - y0) / 2, 1)
    ) ** 2 <= 1
    return mask.encode(np.asfortranarray(inside.astype(np.uint8)))


def boxes(random, count):
    corner = random.uniform(0, SIDE * 0.4, (count, 2))
    size = random.choice([12, 25, 60, 140], (count, 1)) * random.uniform(0.6, 1.2, (count, 2))
    return np.concatenate([corner, np.minimum(corner + size, SIDE - 1)], 1)


def world(num_images, seed, levels=9):
    """Objects of images, some of them crowds, and detections near them, with tied scores."""
    random = np.random.default_rng(seed)
    images = []
    for number in range(num_images):
        objects = boxes(random, random.integers(0, 7))
        labels = random.integers(0, len(CLASSES), len(objects))
        near = np.repeat(objects, 2, 0) + random.normal(0, 4, (2 * len(objects), 4))
        found = np.concatenate([near, boxes(random, 4)]).clip(0, SIDE - 1)
        guesses = np.concatenate([np.repeat(labels, 2), random.integers(0, 3, 4)])
        instances = [
            dict(bbox=box.tolist(), bbox_label=int(label), ignore_flag=int(random.random() < 0.1),
                 mask=disc(box))
            for box, label in zip(objects, labels)
        ]  # fmt: skip
        detected = dict(
            bboxes=torch.tensor(found),
            scores=torch.tensor(random.integers(1, levels, len(found)) / levels),
            labels=torch.tensor(guesses),
            masks=[disc(box) for box in found],
        )
        images.append(
            dict(img_id=100 - number, ori_shape=(SIDE, SIDE), instances=instances,
                 pred_instances=detected)
        )  # fmt: skip
    return images


def coco(**settings):
    metric = coco_metric.CocoMetric(**{'metric': ['bbox', 'segm'], **settings})
    metric.dataset_meta = dict(classes=CLASSES)
    return metric


def noted(images, **settings):
    """A metric and what it noted of images."""
    metric = coco(**settings)
    metric.process({}, images)
    return metric, list(metric.results)


def measured(images, **settings):
    """Metrics of images by mmdet alone."""
    metric, results = noted(images, **settings)
    return metric.compute_metrics(results)


def through_a_file(folder, statistics):
    StatisticsFolder(folder).add('S3', {'coco': statistics})
    return StatisticsFolder(folder).read('S3')['coco']


@pytest.mark.parametrize(
    'settings',
    [
        dict(),
        dict(metric='segm', metric_items=ITEMS),
        dict(metric='bbox', metric_items=ITEMS, proposal_nums=(1, 3, 100)),
        dict(metric=['proposal', 'bbox'], iou_thrs=np.array([0.5, 0.6])),
    ],
    ids=['as mmdet ships it', 'all items', 'few detections', 'other thresholds'],
)
def test_matches_from_a_file_give_the_metrics_own_figures(tmp_path, settings):
    images = world(14, seed=1)
    metric, results = noted(images, **settings)
    scores = through_a_file(tmp_path, statistics_of(metric, results)).scores(metric)
    expected = measured(images, **settings)
    assert scores == {key: expected[key] for key in scores}
    assert len(scores) == sum(key.startswith(('bbox_', 'segm_')) for key in expected)
    assert sum(value > 0.05 for value in scores.values()) > 2


@pytest.mark.parametrize('drawn', [range(14), [0, 0, 3, 7, 7, 7, 11, 13]], ids=['all', 'resample'])
def test_the_estimate_is_the_metric_of_the_drawn_images_before_it_is_rounded(drawn):
    """Without ties of scores, which the metric breaks by the numbers of images."""
    images = world(14, seed=2, levels=10**9)
    metric, results = noted(images, metric_items=ITEMS, proposal_nums=(2, 4, 100))
    statistics = statistics_of(metric, results)
    copies = [dict(images[index], img_id=number) for number, index in enumerate(drawn)]
    expected = measured(copies, metric_items=ITEMS, proposal_nums=(2, 4, 100))
    weights = np.bincount(drawn, minlength=14).astype(np.float32)[None]
    assert set(statistics.keys) == set(expected)
    for key, value in expected.items():
        assert statistics.estimate(key, weights)[0] == pytest.approx(value, abs=0.000501), key


def test_resamples_that_are_worked_on_in_parts_are_those_of_all_at_once(monkeypatch):
    metric, results = noted(world(9, seed=3))
    statistics, weights = statistics_of(metric, results), resample_weights(9, 40, 0)
    whole = statistics.estimate('bbox_mAP', weights)
    monkeypatch.setattr('mmsnnet.evaluation.front.match_statistics._AT_ONCE', 60)
    np.testing.assert_allclose(statistics.estimate('bbox_mAP', weights), whole, rtol=1e-12)
    assert len(set(whole)) > 20


def test_average_precision_is_that_of_its_definition():
    """True, false, true of 4 objects: precision 1 up to recall 0.25, then 2/3 up to 0.5."""
    one = np.ones((1, 3), np.float32)
    found = average_precision(np.arange(3), np.array([[1, 0, 1]]), np.array([4.0]), one)
    assert found[0] == pytest.approx((26 * 1 + 25 * 2 / 3) / 101)


def test_statistics_of_some_images_are_those_that_are_made_of_them():
    images = world(10, seed=4)
    metric, results = noted(images)
    chosen = [7, 2, 5]
    some = statistics_of(metric, results).of_images(chosen)
    alone = statistics_of(metric, [results[index] for index in chosen])
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 3, 0]], np.float32)
    for key in some.keys:
        np.testing.assert_allclose(some.estimate(key, weights), alone.estimate(key, weights))
    assert some.num_images == alone.num_images == 3


def test_a_metric_is_left_as_it_was():
    """Without a file of annotations it would else take the first images it meets for all."""
    metric, results = noted(world(6, seed=5))
    statistics_of(metric, results[:2])
    assert (metric._coco_api, metric.cat_ids, metric.img_ids) == (None, None, None)


def test_nothing_detected_leaves_no_statistics():
    images = world(4, seed=6)
    for image in images:
        image['pred_instances'] = dict(
            bboxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0).long(), masks=[]
        )
    metric, results = noted(images)
    assert statistics_of(metric, results) is None


@pytest.fixture
def annotations(tmp_path):
    metric, results = noted(world(5, seed=7))
    return metric.gt_to_coco_json([truth for truth, _ in results], str(tmp_path / 'x'))


def test_a_file_that_has_more_images_than_were_seen_leaves_no_statistics(annotations):
    """The metric counts the objects of images that were not seen as missed."""
    metric = coco(ann_file=annotations)
    metric.process({}, world(5, seed=7))
    evaluator = Evaluator([metric])
    assert list(collect(evaluator, [[metric.results]], whole=True)) == ['coco']
    assert collect(evaluator, [[metric.results[:4]]], whole=True) == {}
    assert list(collect(evaluator, [[metric.results[:4]]])) == ['coco']


def test_the_first_figure_is_the_first_that_the_metric_computes():
    assert first_figure(coco()) == 'coco/bbox_mAP'
    assert first_figure(coco(metric='segm', metric_items=['AR@100'])) == 'coco/segm_AR@100'
    assert form_of(coco()) is MatchStatistics
    assert form_of(coco(format_only=True, outfile_prefix='x')) is None


def test_hundred_images_of_many_detections_take_less_than_20_kilobytes(tmp_path):
    """Boxes and masks, of 30 detections an image."""
    random = np.random.default_rng(0)
    images = world(100, seed=8)
    for image in images:
        found = image['pred_instances']
        more = 30 - len(found['scores'])
        found['scores'] = torch.tensor(random.beta(0.3, 2, 30))
        found['bboxes'] = torch.cat([found['bboxes'], torch.tensor(boxes(random, more))])
        found['labels'] = torch.cat([found['labels'], torch.tensor(random.integers(0, 3, more))])
        found['masks'] += [disc(box) for box in found['bboxes'][-more:].tolist()]
    metric, results = noted(images)
    through_a_file(tmp_path, statistics_of(metric, results))
    size = sum(path.stat().st_size for path in tmp_path.rglob('*.npz'))
    assert 2000 < size < 20_000
