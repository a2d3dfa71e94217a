"""Guided searches against the full sweep of the same images."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from mmengine.runner import Runner

from mmsnnet.engine.loops import StitchTestLoop
from mmsnnet.evaluation.front.guide import GuideOptions
from mmsnnet.evaluation.front.guide_file import BUDGET_SPENT
from mmsnnet.evaluation.front.race import RaceOptions
from mmsnnet.evaluation.sweep.sweep import StitchSweep
from mmsnnet.evaluation.sweep.sweep_config import prepare_config
from mmsnnet.evaluation.sweep.sweep_options import SweepOptions
from mmsnnet.results.records import read_records
from tests.toy_segmentation import NAMES, run_python, toy_config, toy_runner, write_images

pytest.importorskip('sklearn')
GUIDE = GuideOptions(6, 'mIoU', seed=2, min_gain=0.0)
RACE = RaceOptions('mIoU', confidence=0.7, seed=3, min_images=2)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Scores stitches into a folder, guided or not; returns the sweep."""
    folder = tmp_path_factory.mktemp('trained')
    data = write_images(folder / 'data', val=6)
    toy_runner(data, folder / 'run', train_cfg=dict(max_iters=3)).train()
    checkpoint = str(folder / 'run' / 'iter_3.pth')

    def config():
        return prepare_config(toy_config(data, folder / 'run'), checkpoint, str(folder / 'log'))

    def run(out, guide=None, race=None, options=None, chosen=NAMES):
        sweep = StitchSweep(Runner.from_cfg(config()))
        sweep.open(str(out), race=race, guide=guide)
        pending = sweep.pending([sweep.backbone.space[name] for name in chosen])
        if pending:
            sweep.run(pending, options or SweepOptions(shard_size=3))
        return sweep

    run.config = config
    return run


@pytest.fixture(scope='module')
def folders(run, tmp_path_factory):
    """Results of a full sweep, of a guided one, and of a guided one that races."""
    out = tmp_path_factory.mktemp('folders')
    run(out / 'full')
    run(out / 'searched', GUIDE)
    run(out / 'raced', GUIDE, RACE)
    return out


@pytest.fixture
def full(folders):
    """Records of the full sweep by name."""
    return {row['name']: row for row in read_records(folders / 'full')}


@pytest.fixture
def searched(folders, tmp_path):
    """A copy of the results of a guided search."""
    return shutil.copytree(folders / 'searched', tmp_path / 'searched')


@pytest.fixture
def raced(folders, tmp_path):
    """A copy of the results of one that raced."""
    return shutil.copytree(folders / 'raced', tmp_path / 'raced')


def search_of(out):
    return json.loads((out / 'guide.json').read_text())


def test_what_is_scored_has_the_records_of_the_full_sweep_and_the_rest_none(full, searched):
    rows, search = read_records(searched), search_of(searched)
    assert all(row == full[row['name']] for row in rows)
    assert {row['name'] for row in rows} == {name for names in search['sets'] for name in names}
    assert len(rows) == GUIDE.budget
    assert search['not_looked_at'].keys() == set(NAMES) - {row['name'] for row in rows}
    assert search['reason'] == BUDGET_SPENT


def test_what_a_race_drops_was_looked_at_and_has_no_record(full, raced):
    rows, search = read_records(raced), search_of(raced)
    dropped = {row['name'] for row in json.loads((raced / 'race.json').read_text())['dropped']}
    names = {row['name'] for row in rows}
    assert all(row == full[row['name']] for row in rows)
    assert dropped and not dropped & names
    assert len(names | dropped) == GUIDE.budget
    assert search['not_looked_at'].keys() == set(NAMES) - names - dropped


def test_a_search_that_crashed_goes_on_to_the_same_end(run, folders, tmp_path, monkeypatch):
    run_iter, left = StitchTestLoop.run_iter, [16]

    def counting(loop, index, batch):
        left[0] -= 1
        if not left[0]:
            raise RuntimeError('out of calls')
        run_iter(loop, index, batch)

    monkeypatch.setattr(StitchTestLoop, 'run_iter', counting)
    with pytest.raises(RuntimeError, match='out of calls'):
        run(tmp_path / 'out', GUIDE, RACE)
    run(tmp_path / 'out', GUIDE, RACE)
    assert search_of(tmp_path / 'out') == search_of(folders / 'raced')
    assert read_records(tmp_path / 'out') == read_records(folders / 'raced')
    left[0] = 1  # what is finished runs nothing again
    run(tmp_path / 'out', GUIDE, RACE)


def test_without_a_budget_the_rest_is_scored_and_none_is_left_out(run, full, searched):
    run(searched)
    assert {row['name']: row for row in read_records(searched)} == full
    assert search_of(searched)['not_looked_at'] == {}


def test_a_race_goes_on_without_the_looks_of_a_search(run, full, raced):
    names = {name for names in search_of(raced)['sets'] for name in names}
    run(raced, race=RACE)
    assert not (raced / 'guide.json').exists()
    race = json.loads((raced / 'race.json').read_text())
    assert {row['name'] for row in race['dropped']} - names, 'looks are those of all stitches'
    rows = read_records(raced)
    assert all(row == full[row['name']] for row in rows)
    assert len(rows) + len(race['dropped']) == len(NAMES)


def test_another_search_is_refused_and_loses_nothing(run, searched):
    before = search_of(searched)
    with pytest.raises(ValueError, match=r'another guided search \(seed: 2 there, 3 now\)'):
        run(searched, GuideOptions(6, 'mIoU', seed=3, min_gain=0.0))
    assert search_of(searched) == before


def test_a_larger_budget_goes_on_and_earlier_results_count(run, searched):
    before = search_of(searched)['sets']
    run(searched, GuideOptions(8, 'mIoU', seed=2, min_gain=0.0))
    assert len(read_records(searched)) == 8
    assert search_of(searched)['sets'][: len(before)] == before


def test_a_search_after_other_results_looks_at_no_more_than_its_budget(run, tmp_path):
    run(tmp_path / 'out', chosen=NAMES[4:8])
    run(tmp_path / 'out', GUIDE)
    assert len(read_records(tmp_path / 'out')) == GUIDE.budget
    assert {'S3', 'L6'} - {row['name'] for row in read_records(tmp_path / 'out')} == set()


def test_a_search_by_a_metric_that_there_is_not_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match="no metric 'mIuO' to search by; known: aAcc, mIoU"):
        run(tmp_path / 'out', GuideOptions(5, 'mIuO'))


def test_values_that_are_worse_than_the_worst_are_searched_all_the_same(run, tmp_path):
    run(tmp_path / 'out', GuideOptions(6, 'mIoU', 'less', worst=0.0, seed=2))
    search = search_of(tmp_path / 'out')
    assert len(search['sets']) > 1 and 0 < search['gain'] < 1


def test_a_search_within_a_share_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match='all results so far, not those of a share'):
        run(tmp_path / 'out', GUIDE, options=SweepOptions(share=(0, 2)))


def test_one_by_one_gives_the_same_kind_of_search(run, full, tmp_path):
    run(tmp_path / 'out', GUIDE, options=SweepOptions(one_by_one=True))
    rows = read_records(tmp_path / 'out')
    assert len(rows) == GUIDE.budget
    assert all(row == full[row['name']] for row in rows)


@pytest.mark.slow
def test_two_processes_search_as_one_does(run, folders, tmp_path):
    config = run.config()
    config.dump(str(tmp_path / 'config.py'))
    arguments = [
        '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
        'tools/test_all_stitches.py', tmp_path / 'config.py', config.load_from, '--out',
        tmp_path / 'two', '--launcher', 'pytorch', '--front', '--drop-confidence', '0.7', '--seed',
        '3', '--min-images', '2', '--metric', 'mIoU', '--shard-size', '2', '--budget-evals', '6',
        '--min-gain', '0',
    ]  # fmt: skip
    done = run_python(*arguments)
    assert done.returncode == 0, done.stderr
    run(tmp_path / 'one', replace(GUIDE, seed=3), RACE)
    assert search_of(tmp_path / 'two') == search_of(tmp_path / 'one')
    assert read_records(tmp_path / 'two') == read_records(tmp_path / 'one')
