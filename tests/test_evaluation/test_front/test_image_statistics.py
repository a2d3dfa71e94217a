"""Statistics of images against the metrics of the hosts that they come from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmseg.evaluation import IoUMetric
from mmseg.evaluation.metrics import DepthMetric

from mmsnnet.engine.one_pass import condense
from mmsnnet.evaluation.front.image_statistics import AreaStatistics, form_of, statistics_of
from mmsnnet.evaluation.front.statistics_folder import StatisticsFolder, collect, measured_by

CLASSES = 150


@pytest.fixture(autouse=True, scope='module')
def _scope():
    init_default_scope('mmseg')


def iou_metric(num_classes=CLASSES, **settings):
    metric = IoUMetric(**settings)
    metric.dataset_meta = dict(classes=[str(number) for number in range(num_classes)])
    return metric


def segmented(metric, num_images=12, side=40, kinds=9, seed=0):
    """What a metric notes of random label maps of a few classes, some pixels ignored."""
    random = torch.Generator().manual_seed(seed)
    num_classes = len(metric.dataset_meta['classes'])
    for _ in range(num_images):
        chosen = torch.randperm(num_classes, generator=random)[:kinds]
        label = chosen[torch.randint(kinds, (side, side), generator=random)]
        noise = torch.rand(side, side, generator=random)
        found = torch.where(noise < 0.7, label, chosen[torch.randint(kinds, (side, side),
                                                                    generator=random)])
        label = torch.where(noise > 0.97, torch.tensor(255), label)
        sample = dict(pred_sem_seg=dict(data=found[None]), gt_sem_seg=dict(data=label[None]))
        metric.process({}, [sample])
    return list(metric.results)


def measured_depths(metric, num_images=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    for _ in range(num_images):
        truth = torch.rand(20, 30, generator=random) * 8 + 0.5
        found = truth * (0.8 + 0.5 * torch.rand(20, 30, generator=random))
        sample = dict(pred_depth_map=dict(data=found[None]), gt_depth_map=dict(data=truth[None]))
        metric.process({}, [sample])
    return list(metric.results)


def through_a_file(folder, prefix, statistics):
    StatisticsFolder(folder).add('S3', {prefix: statistics})
    return StatisticsFolder(folder).read('S3')[prefix]


IOU_SETTINGS = [
    dict(iou_metrics=['mIoU']),
    dict(iou_metrics=['mIoU', 'mDice', 'mFscore'], beta=2),
    dict(iou_metrics=['mIoU'], nan_to_num=-1),
]


@pytest.mark.parametrize('settings', IOU_SETTINGS)
@pytest.mark.parametrize('num_classes', [4, CLASSES])
def test_areas_from_a_file_give_the_metrics_own_figures(tmp_path, settings, num_classes):
    metric = iou_metric(num_classes, **settings)
    results = segmented(metric, kinds=3)
    expected = metric.compute_metrics(results)
    scores = through_a_file(tmp_path, '', statistics_of(metric, results)).scores(metric)
    np.testing.assert_equal(scores, expected)


@pytest.mark.parametrize('settings', IOU_SETTINGS)
def test_the_estimate_on_all_images_is_the_metric_before_it_is_rounded(settings):
    metric = iou_metric(**settings)
    results = segmented(metric)
    statistics = statistics_of(metric, results)
    once = np.ones((1, len(results)), np.float32)
    expected = metric.compute_metrics(results)
    assert set(statistics.keys) == set(expected)
    for key, value in expected.items():
        assert statistics.estimate(key, once)[0] == pytest.approx(value, abs=0.00501)


def test_the_estimate_of_a_resample_is_the_metric_of_its_images():
    metric = iou_metric(iou_metrics=['mIoU', 'mFscore'])
    results = segmented(metric)
    drawn = [0, 0, 3, 7, 7, 7, 11]
    weights = np.bincount(drawn, minlength=len(results)).astype(np.float32)[None]
    expected = metric.compute_metrics([results[index] for index in drawn])
    statistics = statistics_of(metric, results)
    for key, value in expected.items():
        assert statistics.estimate(key, weights)[0] == pytest.approx(value, abs=0.00501)


def test_depths_from_a_file_give_the_metrics_own_figures(tmp_path):
    metric = DepthMetric()
    results = measured_depths(metric)
    expected = metric.compute_metrics(results)
    statistics = statistics_of(metric, condense(metric, results))
    assert through_a_file(tmp_path, '', statistics).scores(metric) == expected


def test_the_estimate_of_depth_is_the_mean_of_the_drawn_images():
    metric = DepthMetric()
    results = measured_depths(metric)
    statistics = statistics_of(metric, condense(metric, results))
    expected = metric.compute_metrics([results[0], results[0], results[4]])
    weights = np.array([[2, 0, 0, 0, 1]], np.float32)
    for key, value in expected.items():
        assert statistics.estimate(key, weights)[0] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize('settings', [dict(topk=(1, 5)), dict(topk=1, thrs=(0.2, None, 0.5))])
def test_hits_from_a_file_give_the_metrics_own_figures(tmp_path, settings):
    metrics = pytest.importorskip('mmpretrain.evaluation.metrics')
    metric = metrics.Accuracy(**settings)
    random = torch.Generator().manual_seed(0)
    samples = [
        dict(pred_score=torch.rand(10, generator=random),
             gt_label=torch.randint(10, (1,), generator=random))
        for _ in range(37)
    ]  # fmt: skip
    metric.process({}, samples)
    expected = metric.compute_metrics(metric.results)
    statistics = statistics_of(metric, metric.results)
    assert through_a_file(tmp_path, 'accuracy', statistics).scores(metric) == expected
    for key, value in expected.items():
        once = statistics.estimate(key, np.ones((1, 37), np.float32))
        assert once[0] == pytest.approx(value, rel=1e-6)


def test_hundred_images_of_150_classes_take_less_than_20_kilobytes(tmp_path):
    random = np.random.default_rng(0)
    label = np.zeros((100, CLASSES), np.int64)
    for row in label:
        kinds = random.integers(5, 20)
        shares = random.dirichlet(np.full(kinds, 0.5))
        row[random.choice(CLASSES, kinds, replace=False)] = shares * 512 * 683
    found = (label * random.uniform(0.3, 0.95, label.shape)).astype(np.int64)
    extra = (random.random(label.shape) < 0.08) * random.exponential(800, label.shape)
    areas = np.stack([found, found + extra.astype(np.int64), label]).astype(np.int32)
    StatisticsFolder(tmp_path).add('S3', {'': AreaStatistics(areas)})
    size = sum(path.stat().st_size for path in tmp_path.rglob('*.npz'))
    assert 1000 < size < 20_000


class Recomputed(IoUMetric):
    def compute_metrics(self, results):
        return dict(mIoU=math.pi)


def test_a_metric_with_a_computation_of_its_own_has_no_form():
    assert form_of(Recomputed()) is None


def test_a_metric_that_only_writes_files_has_no_form(tmp_path):
    assert form_of(IoUMetric(format_only=True, output_dir=str(tmp_path))) is None


def test_areas_that_are_no_whole_numbers_have_no_form():
    metric = iou_metric(num_classes=2)
    half = torch.tensor([0.5, 1.0])
    assert statistics_of(metric, [(half, half, half, half)]) is None


def test_statistics_are_found_by_the_prefix_of_their_metric():
    first, second = iou_metric(prefix='room'), iou_metric()
    results = segmented(first), segmented(second, seed=1)
    evaluator = Evaluator([first, second])
    found = collect(evaluator, [[results[0][:6], results[1][:6]], [results[0][6:], results[1][6:]]])
    assert measured_by(found, 'room/mIoU') == ('room', 'mIoU')
    assert measured_by(found, 'mAcc') == ('', 'mAcc')
    assert measured_by(found, 'abs_rel') is None
    expected = statistics_of(first, results[0]).areas
    np.testing.assert_array_equal(found['room'].areas, expected)


def test_a_damaged_file_is_named(tmp_path):
    metric = iou_metric(num_classes=3)
    folder = StatisticsFolder(tmp_path)
    folder.add('S3', {'': statistics_of(metric, segmented(metric, kinds=2))})
    (path,) = folder.directory.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r'S3\.npz is damaged'):
        folder.read('S3')


def test_nothing_is_made_for_a_metric_without_a_form(tmp_path):
    StatisticsFolder(tmp_path).add('S3', {})
    assert not list(tmp_path.iterdir())
    assert StatisticsFolder(tmp_path).read('S3') == {}
