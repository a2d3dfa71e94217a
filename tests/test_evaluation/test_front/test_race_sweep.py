"""Races against the full sweep of the same images."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from mmengine.runner import Runner

from mmsnnet.engine.loops import StitchTestLoop
from mmsnnet.evaluation.front.race import RaceOptions, race_order
from mmsnnet.evaluation.front.statistics_folder import StatisticsFolder
from mmsnnet.evaluation.sweep.sweep import StitchSweep
from mmsnnet.evaluation.sweep.sweep_config import prepare_config
from mmsnnet.evaluation.sweep.sweep_options import SweepOptions
from mmsnnet.results.records import read_records
from tests.toy_segmentation import NAMES, logged, run_python, toy_config, toy_runner, write_images
from tools.benchmark import front_race
from tools.benchmark._front_spaces import ReplayedSweep

IMAGES = 12
RACE = RaceOptions('mIoU', confidence=0.8, seed=3, min_images=4)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'), val=IMAGES)


@pytest.fixture(scope='module')
def checkpoint(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    toy_runner(data, folder / 'run', train_cfg=dict(max_iters=3)).train()
    return str(folder / 'run' / 'iter_3.pth')


@pytest.fixture(scope='module')
def runner_config(data, checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp('logs')

    def config(**settings):
        config = toy_config(data, folder / 'run', **settings)
        return prepare_config(config, checkpoint, str(folder / 'log'))

    return config


@pytest.fixture
def run(runner_config):
    """Scores all stitches into a folder, racing or not; returns the sweep."""

    def run(out, race=None, shard_size=3, **settings):
        sweep = StitchSweep(Runner.from_cfg(runner_config(**settings)))
        sweep.open(str(out), race=race)
        pending = sweep.pending(list(sweep.backbone.space))
        if pending:
            sweep.run(pending, SweepOptions(shard_size=shard_size))
        return sweep

    return run


@pytest.fixture(scope='module')
def folders(runner_config, tmp_path_factory):
    """Results of a full sweep and of a race, and the runs of a stitch on a batch in the race."""
    out = tmp_path_factory.mktemp('folders')
    runs, run_iter = [], StitchTestLoop.run_iter

    def spy(loop, index, batch):
        runs.append((index, loop.scoring.backbone.stitch.name))
        run_iter(loop, index, batch)

    for name, race in (('full', None), ('raced', RACE)):
        sweep = StitchSweep(Runner.from_cfg(runner_config()))
        sweep.open(str(out / name), race=race)
        runs.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StitchTestLoop, 'run_iter', spy)
            sweep.run(list(sweep.backbone.space), SweepOptions(shard_size=3))
    return out, tuple(runs)


@pytest.fixture
def full(folders):
    """Records of the full sweep by name."""
    return {row['name']: row for row in read_records(folders[0] / 'full')}


@pytest.fixture
def raced(folders, tmp_path):
    """A copy of the results of the race."""
    return shutil.copytree(folders[0] / 'raced', tmp_path / 'raced')


@pytest.fixture
def calls(monkeypatch):
    """Runs of a stitch on a batch from now on; running out of ``limit`` of them is a crash."""
    run_iter, made = StitchTestLoop.run_iter, []

    def counting(loop, index, batch):
        made.append((index, loop.scoring.backbone.stitch.name))
        if len(made) == counting.limit:
            raise RuntimeError('out of calls')
        run_iter(loop, index, batch)

    counting.limit = None
    monkeypatch.setattr(StitchTestLoop, 'run_iter', counting)
    return made, counting


def race_of(out):
    return json.loads((out / 'race.json').read_text())


def test_what_a_race_scores_has_the_records_of_the_full_sweep(raced, full, folders):
    rows, dropped = read_records(raced), race_of(raced)['dropped']
    assert all(row == full[row['name']] for row in rows)
    assert {row['name'] for row in rows} | {row['name'] for row in dropped} == set(NAMES)
    assert len(rows) + len(dropped) == len(NAMES)
    assert dropped, 'a race that drops nothing shows nothing'
    assert len(folders[1]) == IMAGES * len(rows) + sum(row['images'] for row in dropped)


def test_what_is_dropped_says_how_far_it_came_and_who_beat_it(raced, full):
    race = race_of(raced)
    for row in race['dropped']:
        assert row['kind'] == 'dropped'
        assert row['images'] in race['looks']
        assert RACE.min_images <= row['images'] < row['of'] == IMAGES
        assert full[row['beaten_by']]['flops'] <= row['flops'] == full[row['name']]['flops']
        assert row['probability'] >= 1 - 2 * (1 - RACE.confidence)
        assert row['lead'] > 0
        assert 'metrics' not in row


def test_anchors_are_always_scored(raced):
    assert {'S3', 'L6'} <= {row['name'] for row in read_records(raced)}


def test_images_come_in_the_order_of_the_seed(folders):
    found = list(dict.fromkeys(index for index, _ in folders[1]))
    assert found == race_order(IMAGES, RACE.seed)


def test_the_simulator_replays_a_race_to_the_same_end(folders, full, raced, monkeypatch):
    monkeypatch.setattr(front_race, 'MIN_IMAGES', RACE.min_images)
    monkeypatch.setattr(front_race, 'NUM_DRAWS', 1000)
    replayed = ReplayedSweep(folders[0] / 'full')
    np.testing.assert_allclose(
        replayed.quality, [full[name]['metrics']['mIoU'] for name in replayed.names], atol=0.006
    )
    found = front_race.race(replayed, RACE.seed, RACE.confidence)
    names = {replayed.names[number] for number in found.scored}
    assert names == {row['name'] for row in read_records(raced)}


def test_statistics_are_in_the_order_of_the_data_whatever_the_race(folders):
    """Else resamples would not be paired with those of a full sweep."""
    raced, full = (StatisticsFolder(folders[0] / n).read('S3')[''] for n in ('raced', 'full'))
    assert (raced.areas == full.areas).all()


@pytest.mark.parametrize('share', [0.1, 0.5, 0.95])
def test_a_race_that_crashed_goes_on_to_the_same_end(run, raced, folders, tmp_path, calls, share):
    counting = calls[1]
    counting.limit = round(share * len(folders[1]))
    with pytest.raises(RuntimeError, match='out of calls'):
        run(tmp_path / 'out', RACE)
    counting.limit = None
    run(tmp_path / 'out', RACE, shard_size=2)
    assert race_of(tmp_path / 'out') == race_of(raced)
    assert read_records(tmp_path / 'out') == read_records(raced)


def test_a_finished_race_runs_nothing_again(run, raced, calls):
    run(raced, RACE)
    assert calls[0] == []


def test_in_full_a_race_goes_on_where_stitches_were_dropped(raced, full, calls, runner_config):
    images = {row['name']: row['images'] for row in race_of(raced)['dropped']}
    sweep = StitchSweep(Runner.from_cfg(runner_config()))
    with logged(sweep.runner) as lines:
        sweep.open(str(raced))
    assert f'{len(images)} stitches that the race in' in lines[-1]
    sweep.run(sweep.pending(list(sweep.backbone.space)), SweepOptions(shard_size=3))
    assert len(calls[0]) == sum(IMAGES - count for count in images.values())
    assert {row['name']: row for row in read_records(raced)} == full
    assert race_of(raced)['dropped'] == []


def test_an_unfinished_full_sweep_is_no_race_and_loses_nothing(run, tmp_path, calls):
    calls[1].limit = 40
    with pytest.raises(RuntimeError, match='out of calls'):
        run(tmp_path / 'out')
    shards = sorted(path.name for path in (tmp_path / 'out' / 'shards').iterdir())
    assert shards
    calls[1].limit = None
    with pytest.raises(ValueError, match='holds images of a full sweep that is not finished'):
        run(tmp_path / 'out', RACE)
    assert sorted(path.name for path in (tmp_path / 'out' / 'shards').iterdir()) == shards
    assert not (tmp_path / 'out' / 'race.json').exists()


def test_another_race_is_refused_and_the_difference_named(run, raced):
    other = RaceOptions('mIoU', confidence=0.8, seed=4, min_images=4)
    with pytest.raises(ValueError, match=r'another race \(seed: 3 there, 4 now\)'):
        run(raced, other)


def test_a_metric_that_has_no_statistics_is_refused_before_stitches_are_dropped(run, tmp_path):
    evaluator = dict(type='DumpResults', out_file_path=str(tmp_path / 'x.pkl'), _delete_=True)
    with pytest.raises(ValueError, match='Accuracy and CocoMetric, not for DumpResults'):
        run(tmp_path / 'out', RACE, test_evaluator=evaluator)
    with pytest.raises(ValueError, match='There are no statistics of images for mFscore'):
        run(tmp_path / 'out', RaceOptions('mFscore', min_images=2))


def test_a_shuffled_order_cannot_race(run, tmp_path):
    shuffled = dict(sampler=dict(type='DefaultSampler', shuffle=True))
    with pytest.raises(ValueError, match='Stitches cannot race: test_dataloader gives images in'):
        run(tmp_path / 'out', RACE, test_dataloader=shuffled)


def race_in_processes(config, out, count):
    """Race by the command, in some processes."""
    config.dump(str(out.parent / 'config.py'))
    done = run_python(
        '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', count,
        'tools/test_all_stitches.py', out.parent / 'config.py', config.load_from, '--out', out,
        '--launcher', 'pytorch', '--front', '--drop-confidence', '0.8', '--seed', '3',
        '--min-images', '4', '--metric', 'mIoU', '--shard-size', '2',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_race_as_one_does(raced, runner_config, tmp_path):
    race_in_processes(runner_config(), tmp_path / 'two', 2)
    assert race_of(tmp_path / 'two') == race_of(raced)
    assert read_records(tmp_path / 'two') == read_records(raced)


@pytest.mark.slow
def test_a_race_that_crashed_goes_on_with_another_number_of_processes(
    run, raced, runner_config, tmp_path, calls, folders
):
    calls[1].limit = len(folders[1]) // 2
    with pytest.raises(RuntimeError, match='out of calls'):
        run(tmp_path / 'three', RACE)
    assert race_of(tmp_path / 'three')['looks'] != race_of(raced)['looks']
    race_in_processes(runner_config(), tmp_path / 'three', 3)
    assert race_of(tmp_path / 'three') == race_of(raced)
    assert read_records(tmp_path / 'three') == read_records(raced)
