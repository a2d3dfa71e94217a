"""The bootstrap over images against what resampling one by one, and the truth, say."""

from __future__ import annotations

import numpy as np
import pytest

from mmsnnet.evaluation.front.bootstrap import (
    Replicates,
    completing_weights,
    replicate_all,
    resample_weights,
)
from mmsnnet.evaluation.front.certainty import (
    better,
    certainty_of_results,
    check_confidence,
    interval,
    judge,
    on_front,
)
from mmsnnet.evaluation.front.image_statistics import AreaStatistics, MeanStatistics
from mmsnnet.evaluation.front.statistics_folder import StatisticsFolder
from mmsnnet.results.certainty import read_certainty, write_certainty
from mmsnnet.results.pareto import Point, pareto_front
from tests.results_folder import record


def errors(values):
    return MeanStatistics(dict(abs_rel=np.asarray(values, np.float64)))


def random_areas(random, num_images, num_classes=6, skill=0.8):
    """Areas of images of which each shows some of the classes, and is as hard as it is."""
    shown = random.random((num_images, num_classes)) < 0.6
    label = np.where(shown, random.integers(50, 500, shown.shape), 0)
    hardness = random.beta(8, 2, (num_images, 1)) * skill
    found = (label * hardness).astype(np.int64)
    more = np.where(shown, random.integers(0, 60, shown.shape), 0)
    return AreaStatistics(np.stack([found, found + more, label]).astype(np.int32))


def test_a_resample_draws_as_many_images_as_there_are():
    weights = resample_weights(30, 50, seed=3)
    assert weights.shape == (50, 30)
    assert (weights.sum(1) == 30).all()
    assert weights.std() == pytest.approx(1, abs=0.1)  # of a binomial number of draws


def test_resamples_are_a_function_of_the_seed_alone():
    first = resample_weights(20, 4, seed=5)
    np.testing.assert_array_equal(first, resample_weights(20, 4, seed=5))
    assert (first != resample_weights(20, 4, seed=6)).any()


def test_completed_images_are_as_many_as_the_data_set_and_each_counts():
    weights = completing_weights(20, 50, 30, seed=1)
    assert (weights.sum(1) == 50).all() and (weights >= 1).all()
    assert (weights == completing_weights(20, 50, 30, seed=1)).all()
    assert (completing_weights(20, 20, 3, seed=1) == 1).all()


def test_completed_means_vary_as_those_of_samples_without_replacement():
    """Variance of the mean of a population when n of N are seen: (1 - n/N) s^2 / n."""
    values = np.random.default_rng(2).normal(0, 1, 100)
    for total in (125, 200, 1000):
        means = completing_weights(100, total, 4000, seed=3) @ values / total
        expected = (1 - 100 / total) * values.var() / 100
        np.testing.assert_allclose(means.var(), expected, rtol=0.1)
        np.testing.assert_allclose(means.mean(), values.mean(), atol=4 * means.std() / 4000**0.5)


def test_labels_that_are_summed_once_change_no_replicate():
    random = np.random.default_rng(0)
    one = random_areas(random, 40)
    other = AreaStatistics(np.stack([one.areas[0] // 2, one.areas[1], one.areas[2]]))
    strange = random_areas(random, 40)
    weights = resample_weights(40, 30, seed=0)
    found = replicate_all(dict(a=one, b=other, c=strange), 'mIoU', weights)
    alone = np.stack([s.estimate('mIoU', weights) for s in (one, other, strange)], 1)
    np.testing.assert_array_equal(found, alone)


def test_stitches_of_other_images_are_refused():
    replicates = Replicates('abs_rel', resample_weights(4, 3, seed=0))
    with pytest.raises(ValueError, match='Statistics are of 5 images where others are of 4'):
        replicates.of(errors(range(5)))


def test_fronts_of_resamples_are_those_of_the_front_of_points():
    random = np.random.default_rng(0)
    costs = np.array([3.0, 1.0, 2.0, 2.0, 4.0, 4.0])
    values = random.integers(0, 4, (200, 6)).astype(float)  # with many ties
    for row, found in zip(values, on_front(costs, values)):
        front = pareto_front([Point(str(n), c, q) for n, (c, q) in enumerate(zip(costs, row))])
        assert {str(number) for number in np.flatnonzero(found)} == {p.name for p in front}


def test_ties_count_half():
    shares = better(np.array([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0], [0.0, 1.0]]))
    np.testing.assert_allclose(shares, [[0.5, 0.625], [0.375, 0.5]])


@pytest.mark.parametrize('confidence', [0, 1, -0.1, 1.5, float('nan')])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(ValueError, match='give a number between 0 and 1'):
        check_confidence(confidence)


def judged(columns, rule='greater', costs=None):
    values = np.stack(columns, 1)
    names = ('S6', 'S3-L6', 'L12')
    rows = [
        record(name, cost, float(np.median(column)), number)
        for number, (name, cost, column) in enumerate(zip(names, costs or (1, 2, 3), columns))
    ]
    return judge(rows, values, 'mIoU', rule, num_images=10)


def test_probabilities_count_the_resamples_in_which_it_is_so():
    found = judged([[1.0] * 4, [2.0, 2.0, 2.0, 0.5], [3.0, 1.5, 3.0, 3.0]]).stitches
    assert [one.on_front for one in found.values()] == [1, 0.75, 0.75]
    assert [one.beats_small for one in found.values()] == [None, 0.75, 1]
    assert [one.beats_cheaper for one in found.values()] == [None, 0.75, 0.75]


def test_where_less_is_better_the_probabilities_turn():
    found = judged([[1.0] * 4, [2.0, 2.0, 2.0, 0.5], [3.0, 1.5, 3.0, 3.0]], 'less').stitches
    assert [one.on_front for one in found.values()] == [1, 0.25, 0]
    assert [one.beats_small for one in found.values()] == [None, 0.25, 0]


def test_a_small_difference_that_all_images_share_can_be_told():
    """Paired: the spread of the images is a hundred times the difference."""
    random = np.random.default_rng(0)
    images = random.normal(50, 10, 300)
    weights = resample_weights(300, 500, seed=0)
    first, second = (
        errors(v).estimate('abs_rel', weights)
        for v in (images, images + random.normal(0.1, 0.2, 300))
    )
    found = judged([first, second, second])
    assert found.can_be_told_apart('S6', 'S3-L6')
    assert found.stitches['S6'].high > found.stitches['S3-L6'].low  # the intervals overlap
    assert not found.can_be_told_apart('S3-L6', 'L12')


@pytest.mark.parametrize('kind', ['means', 'areas'])
def test_of_95_percent_intervals_93_to_97_percent_hold(kind):
    """On samples of 200 images from a large population, whose metric is the truth."""
    random = np.random.default_rng(0)
    population = 20_000
    if kind == 'means':
        whole = errors(random.gamma(2, 0.1, population))
    else:
        whole = random_areas(random, population)
    key = 'abs_rel' if kind == 'means' else 'mIoU'
    (truth,) = whole.estimate(key, np.ones((1, population), np.float32))
    trials, held = 1000, 0
    for trial in range(trials):
        drawn = random.integers(population, size=200)
        if kind == 'means':
            sample = errors(whole.values[key][drawn])
        else:
            sample = AreaStatistics(whole.areas[:, drawn])
        low, high = interval(
            sample.estimate(key, resample_weights(200, 400, seed=trial))[:, None], 0.95
        )
        held += bool(low[0] <= truth <= high[0])
    assert 0.93 <= held / trials <= 0.97


def folder_of(tmp_path, columns, seed=0):
    """Results folder of stitches with values of images."""
    folder = StatisticsFolder(tmp_path)
    rows = []
    for number, (name, values) in enumerate(columns.items()):
        folder.add(name, {'': MeanStatistics({'mIoU': np.asarray(values, float)})})
        rows.append(record(name, number + 1, float(np.mean(values)), number))
    return rows


def test_the_certainty_of_a_folder_comes_back_from_its_file(tmp_path):
    random = np.random.default_rng(0)
    rows = folder_of(tmp_path, {n: random.random(50) for n in ('S6', 'S3-L6', 'L12')})
    found, reason = certainty_of_results(tmp_path, rows, 'mIoU', 'greater', seed=4)
    assert reason is None
    assert found.settings == dict(confidence=0.95, resamples=1000, seed=4, images=50)
    write_certainty(tmp_path, found)
    assert read_certainty(tmp_path) == found


def test_stitches_without_statistics_leave_no_certainty_but_the_reason(tmp_path):
    rows = folder_of(tmp_path, {n: [0.1, 0.2] for n in ('S6', 'S3-L6')})
    rows.append(record('L12', 9, 0.5, 5))
    found, reason = certainty_of_results(tmp_path, rows, 'mIoU', 'greater')
    assert found is None
    assert reason.startswith('1 of 3 stitches have no statistics of images, such as L12')


def test_a_metric_without_statistics_is_named(tmp_path):
    rows = folder_of(tmp_path, {n: [0.1, 0.2] for n in ('S6', 'S3-L6')})
    for row in rows:
        row['metrics']['time'] = 1.0
    found, reason = certainty_of_results(tmp_path, rows, 'time', 'less')
    assert found is None
    assert reason == 'there are no statistics of images for time'


def test_stitches_without_a_value_are_left_out(tmp_path):
    rows = folder_of(tmp_path, {n: [0.1, 0.2] for n in ('S6', 'S3-L6')})
    rows.append(record('L12', 9, None, 5))
    found, _ = certainty_of_results(tmp_path, rows, 'mIoU', 'greater')
    assert list(found.stitches) == ['S6', 'S3-L6']


def test_a_damaged_file_of_certainty_is_named(tmp_path):
    (tmp_path / 'certainty.json').write_text('{"stitches": {}}')
    with pytest.raises(ValueError, match=r'certainty\.json is damaged'):
        read_certainty(tmp_path)
