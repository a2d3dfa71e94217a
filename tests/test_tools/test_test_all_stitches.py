"""The sweep as a user runs it: its files, its table, its second run, its refusals."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmsnnet.engine.loops import StitchTestLoop
from mmsnnet.evaluation.cost.model_cost import model_costs
from mmsnnet.evaluation.front.statistics_folder import StatisticsFolder
from mmsnnet.evaluation.sweep.shards import ShardFolder
from mmsnnet.results.results_folder import ResultsFolder
from mmsnnet.stitching import Block
from mmsnnet.stitching.route_tree import RouteTree
from tests.toy_segmentation import (
    NAMES,
    ROOT,
    backbone_of,
    child_environment,
    run_python,
    toy_runner,
    weights,
    write_images,
)
from tools.test_all_stitches import main

TOOL = ROOT / 'tools' / 'test_all_stitches.py'
REPORT = {f'pareto.{kind}' for kind in ('json', 'csv', 'png', 'svg', 'html')}
FILES = {'run.json', 'stitches.jsonl', 'certainty.json'} | REPORT

#: Dies in the run of a model on a batch whose number is the first argument.
KILLED = """
import os, runpy, signal, sys
import mmsnnet
from mmsnnet.engine.loops import StitchTestLoop
run_iter, calls = StitchTestLoop.run_iter, []
def dying(self, *arguments):
    calls.append(1)
    if len(calls) == int(limit):
        os.kill(os.getpid(), signal.SIGKILL)
    run_iter(self, *arguments)
StitchTestLoop.run_iter = dying
limit, *sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


class Trained:
    """A config and a checkpoint of it, and both as the command takes them."""

    def __init__(self, folder):
        self.data = write_images(folder / 'data')
        runner = toy_runner(self.data, folder / 'run', train_cfg=dict(max_iters=3))
        runner.train()
        self.config = str(folder / 'config.py')
        runner.cfg.dump(self.config)
        self.checkpoint = str(folder / 'run' / 'iter_3.pth')
        self.call = [self.config, self.checkpoint]
        self.runner = runner


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp('trained'))


@pytest.fixture(scope='module')
def swept(trained, tmp_path_factory):
    """Results folder of all stitches, and what the command wrote to its streams."""
    out = tmp_path_factory.mktemp('swept') / 'all'
    done = run_python(TOOL, *trained.call, '--out', out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout, done.stderr


@pytest.fixture
def results(swept, tmp_path):
    """A copy of the results, to be spoilt."""
    return shutil.copytree(swept[0], tmp_path / 'results')


def records(folder):
    return [json.loads(line) for line in (folder / 'stitches.jsonl').read_text().splitlines()]


def contents(folder, names=FILES):
    return {name: (folder / name).read_bytes() for name in names}


def check_equal_but_for_certainty(one_by_one, together):
    """A sweep one by one keeps no statistics of images, so its report lacks what they tell."""
    names = ('run.json', 'stitches.jsonl')
    assert contents(one_by_one, names) == contents(together, names)
    plain, certain = (
        json.loads((folder / 'pareto.json').read_text()) for folder in (one_by_one, together)
    )
    fronts = plain.pop('front'), certain.pop('front')
    assert len(fronts[0]) == len(fronts[1])
    for row, more in zip(*fronts):
        assert row == {key: more[key] for key in row}
    anchors = plain.pop('anchors', []), certain.pop('anchors', [])
    for row, more in zip(*anchors):
        assert row == {key: more[key] for key in row}
    assert plain == {key: certain[key] for key in plain}


@pytest.fixture
def runs(monkeypatch):
    """Pairs of an image and a stitch that are run from now on."""
    pairs, run_iter = [], StitchTestLoop.run_iter

    def spy(loop, index, batch):
        (sample,) = batch['data_samples']
        pairs.append((Path(sample.img_path).stem[-1], loop.scoring.backbone.stitch.name))
        return run_iter(loop, index, batch)

    monkeypatch.setattr(StitchTestLoop, 'run_iter', spy)
    return pairs


def scored(runs):
    """Names of the stitches that were run, each of them on each of the 4 images once."""
    names = {name for _, name in runs}
    assert sorted(runs) == sorted((str(image), name) for image in range(4) for name in names)
    return names


# -- how sure it is -----------------------------------------------------------------------------


def test_the_statistics_of_images_give_the_recorded_metrics(swept, trained):
    metric = trained.runner.test_evaluator.metrics[0]
    folder = StatisticsFolder(swept[0])
    for row in records(swept[0]):
        assert folder.read(row['name'])[''].scores(metric) == row['metrics']


def test_every_stitch_of_the_front_has_its_interval_and_probabilities(swept):
    summary = json.loads((swept[0] / 'pareto.json').read_text())
    assert summary['certainty'] == dict(confidence=0.95, resamples=1000, seed=0, images=4)
    for row in summary['front']:
        low, high = row['interval']
        assert low <= row['value'] <= high
        assert 0 <= row['on_front'] <= 1
    cheapest = summary['front'][0]
    assert cheapest['beats_cheaper'] is None
    assert cheapest['on_front'] == 1
    assert 'P(front)' in swept[1]
    assert 'paired bootstrap over 4 images (1000 resamples, seed 0)' in swept[1]


def test_one_by_one_there_are_no_intervals_and_a_line_says_why(trained, tmp_path, capsys):
    arguments = ['--stitches', 'anchors', '--one-by-one', '--out', str(tmp_path / 'out')]
    assert main([*trained.call, *arguments]) == 0
    assert 'without intervals: 2 of 2 stitches have no statistics' in capsys.readouterr().err
    assert 'certainty' not in json.loads((tmp_path / 'out' / 'pareto.json').read_text())


RACE = ['--front', '--min-images', '2', '--drop-confidence', '0.8']


def test_a_race_that_was_killed_goes_on_to_the_same_files(swept, trained, tmp_path, capsys):
    whole, out = tmp_path / 'whole', tmp_path / 'out'
    assert main([*trained.call, *RACE, '--out', str(whole)]) == 0
    race = json.loads((whole / 'race.json').read_text())
    assert race['dropped'], 'a race that drops nothing shows nothing'
    assert f'The race dropped {len(race["dropped"])} of 8 stitches' in capsys.readouterr().err
    killed(trained, out, 24, *RACE, '--shard-size', '1')
    assert not (out / 'stitches.jsonl').exists()
    assert main([*trained.call, *RACE, '--out', str(out)]) == 0
    names = (FILES | {'race.json'}) - {'pareto.svg'}
    assert contents(out, names) == contents(whole, names)
    rows = records(swept[0])
    assert [row for row in records(out) if row not in rows] == []


@pytest.mark.parametrize(
    'more', [['--one-by-one'], ['--shard', '1/2'], ['--shard-by', 'stitches'], ['--merge', 'x']]
)
def test_a_race_that_cannot_be_is_one_line(trained, tmp_path, capsys, more):
    line = refused(capsys, [*trained.call, *RACE, '--out', tmp_path / 'out', *more])
    assert f'--front compares all stitches on the way: leave out {more[0]}' in line


@pytest.mark.parametrize('confidence', ['0', '1', '1.2', 'nan'])
@pytest.mark.parametrize('option', ['--confidence', '--drop-confidence'])
def test_a_confidence_that_is_none_is_one_line(trained, tmp_path, capsys, option, confidence):
    arguments = [*trained.call, option, confidence, '--out', str(tmp_path / 'out')]
    assert 'give a number between 0 and 1' in refused(capsys, arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--budget-evals', '0'], 'A budget of 0 stitches is not possible: give 1 or more'),
        (['--budget-evals', '5', '--min-gain', 'nan'], 'min_gain=nan is not possible'),
        (['--budget-evals', '5', '--shard', '1/2'], 'all results so far: leave out --shard'),
        (['--budget-evals', '5', '--merge', 'x'], 'all results so far: leave out --merge'),
    ],
)
def test_a_search_that_cannot_be_is_one_line(trained, tmp_path, capsys, arguments, message):
    assert message in refused(capsys, [*trained.call, '--out', tmp_path / 'out', *arguments])


def test_a_budget_of_more_stitches_than_there_are_is_one_line(trained, tmp_path, capsys):
    pytest.importorskip('sklearn', reason='needs the extra [guide]')
    line = refused(capsys, [*trained.call, '--out', tmp_path / 'out', '--budget-evals', '9'])
    assert '9 stitches is not possible: 8 are to choose from' in line
    assert line.endswith('give a number from 3 to 8.')


def test_without_scikit_learn_a_search_says_what_to_install(
    trained, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, 'sklearn.gaussian_process', None)
    line = refused(capsys, [*trained.call, '--out', tmp_path / 'out', '--budget-evals', '5'])
    assert "pip install 'mmsnnet[guide]'" in line
    assert not (tmp_path / 'out').exists()


def test_a_search_says_what_it_did_not_look_at(trained, tmp_path, capsys):
    pytest.importorskip('sklearn', reason='needs the extra [guide]')
    arguments = ['--out', str(tmp_path / 'out'), '--budget-evals', '4', '--min-gain', '0']
    assert main([*trained.call, *arguments]) == 0
    line = '4 stitches were not looked at (the budget is spent; guide.json names them)'
    assert line in capsys.readouterr().err
    search = json.loads((tmp_path / 'out' / 'guide.json').read_text())
    names = {row['name'] for row in records(tmp_path / 'out')}
    assert search['not_looked_at'].keys() == set(NAMES) - names


# -- what it writes -----------------------------------------------------------------------------


def test_all_files_are_written(swept):
    assert {path.name for path in swept[0].iterdir() if path.is_file()} == FILES


def test_there_is_one_line_a_stitch_in_the_order_of_ids(swept, trained):
    rows = records(swept[0])
    space = backbone_of(trained.runner).space
    assert [row['id'] for row in rows] == list(range(8))
    assert [row['name'] for row in rows] == list(NAMES)
    assert [row['family'] for row in rows] == [stitch.family for stitch in space]
    assert all(list(row) == ['id', 'name', 'family', 'flops', 'params', 'metrics'] for row in rows)


def test_the_scores_are_those_of_the_stock_loop_with_the_stitch_set(swept, trained, tmp_path):
    for name in ('S3', 'S1-L4', 'L2-S1-L2'):
        runner = toy_runner(
            trained.data, tmp_path / name, load_from=trained.checkpoint,
            test_cfg=dict(_delete_=True, type='TestLoop'), custom_hooks=[],
        )  # fmt: skip
        backbone_of(runner).set_stitch(name)
        (row,) = [row for row in records(swept[0]) if row['name'] == name]
        assert row['metrics'] == pytest.approx(runner.test())


def test_the_costs_are_those_of_the_whole_model(swept, trained):
    costs = model_costs(trained.runner.model, 64)
    for row in records(swept[0]):
        cost = costs[row['name']]
        assert (row['flops'], row['params']) == (cost.flops, cost.params)


def test_the_run_is_described_with_its_metric(swept, trained):
    run = json.loads((swept[0] / 'run.json').read_text())
    assert set(run['fingerprint']) == {'config', 'checkpoint', 'data', 'code'}
    assert run['details']['checkpoint'] == trained.checkpoint
    assert run['details']['image_size'] == [64, 64]
    assert run['details']['test_loop']['metric'] == 'mIoU'


def test_the_front_is_that_of_comparing_all_pairs(swept):
    points = {row['name']: (row['flops'], row['metrics']['mIoU']) for row in records(swept[0])}
    better = {
        name: [q for q in points.values() if q != p and q[0] <= p[0] and q[1] >= p[1]]
        for name, p in points.items()
    }
    found = json.loads((swept[0] / 'pareto.json').read_text())
    assert [row['name'] for row in found['front']] == sorted(
        (name for name in points if not better[name]), key=lambda name: points[name]
    )
    rows = list(csv.DictReader((swept[0] / 'pareto.csv').open()))
    assert {row['name'] for row in rows} == set(NAMES)


def test_the_table_and_the_paths_go_to_standard_output_and_the_progress_does_not(swept):
    out, stdout, stderr = swept
    front = json.loads((out / 'pareto.json').read_text())['front']
    assert all(row['name'] in stdout for row in front)
    assert all(str(out / name) in stdout for name in FILES - {'run.json'})
    assert '[8/8] S1-L2-S1: ' in stderr and '[8/8]' not in stdout
    assert 'Traceback' not in stderr


# -- going on -----------------------------------------------------------------------------------


def test_a_second_run_scores_nothing_and_leaves_the_files_as_they_are(
    results, trained, runs, capsys
):
    before = contents(results)
    assert main([*trained.call, '--out', str(results)]) == 0
    assert runs == []
    assert contents(results) == before
    assert '8 stitches have results already.' in capsys.readouterr().err


def killed(trained, out, limit, *arguments):
    """Run the command until it is killed in its run of a number."""
    call = [sys.executable, '-c', KILLED, str(limit), str(TOOL), *trained.call, '--out', str(out)]
    child = subprocess.run(
        [*call, *arguments], env=child_environment(), capture_output=True, timeout=300
    )
    assert child.returncode == -signal.SIGKILL, child.stderr


def test_a_sweep_that_was_killed_goes_on_to_the_same_files(swept, trained, tmp_path, runs):
    """In the third of 4 shards of an image each, with other shards and fewer stitches first."""
    out = tmp_path / 'killed'
    killed(trained, out, 2 * 8 + 5, '--shard-size', '1')
    assert {path.name for path in out.glob('*.*')} == {'.lock', 'run.json'}  # nobody holds it
    assert len(list((out / 'shards').glob('*.shard'))) == 2
    assert main([*trained.call, '--out', str(out), '--stitches', 'anchors']) == 0
    assert sorted(runs) == sorted((image, name) for image in '23' for name in ('S3', 'L6'))
    assert [row['name'] for row in records(out)] == ['S3', 'L6']
    runs.clear()
    assert main([*trained.call, '--out', str(out), '--shard-size', '3']) == 0
    assert sorted(runs) == sorted((image, name) for image in '23' for name in NAMES[2:])
    assert contents(out) == contents(swept[0])
    assert not (out / 'shards').exists()


@pytest.mark.parametrize('written', [3, 8])
def test_an_end_between_the_lines_of_stitches_loses_nothing(
    swept, trained, tmp_path, runs, monkeypatch, written
):
    """All images are done and some lines are written, or all and the shards are not removed."""
    out, append, discard = tmp_path / 'out', ResultsFolder.append, ShardFolder.discard

    def ending(results, record):
        if len(results) == written:
            raise KeyboardInterrupt
        return append(results, record)

    def never(partial, names):
        if len(list(names)) == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(ResultsFolder, 'append', ending)
    monkeypatch.setattr(ShardFolder, 'discard', never)
    assert main([*trained.call, '--out', str(out)]) == 130
    monkeypatch.setattr(ResultsFolder, 'append', append)
    monkeypatch.setattr(ShardFolder, 'discard', discard)
    assert len(records(out)) == written and (out / 'shards').exists()
    runs.clear()
    assert main([*trained.call, '--out', str(out)]) == 0
    assert runs == []
    assert contents(out) == contents(swept[0])
    assert not (out / 'shards').exists()


def test_one_by_one_a_killed_sweep_loses_the_stitch_it_was_at(swept, trained, tmp_path, runs):
    out = tmp_path / 'killed'
    killed(trained, out, 3 * 4 + 2, '--one-by-one')
    assert [row['name'] for row in records(out)] == list(NAMES[:3])
    assert main([*trained.call, '--out', str(out), '--one-by-one']) == 0
    assert runs == [(str(image), name) for name in NAMES[3:] for image in range(4)]
    check_equal_but_for_certainty(out, swept[0])


def test_the_stitches_of_an_image_share_what_they_have_in_common(trained, tmp_path, runs):
    counts = Counter()
    backbone_class = type(backbone_of(trained.runner))
    advance = backbone_class.advance

    def spy(backbone, state, steps):
        counts.update(isinstance(step, Block) for step in steps)
        return advance(backbone, state, steps)

    found = {}
    for way in ('--one-by-one', '--shard-size=2'):
        counts.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backbone_class, 'advance', spy)
            assert main([*trained.call, '--out', str(tmp_path / way[2:]), way]) == 0
        found[way] = counts[True]
    space = backbone_of(trained.runner).space
    tree = RouteTree({name: space.program(name) for name in NAMES})
    apart, together = 4 * tree.num_blocks_apart, 4 * tree.num_blocks
    assert found == {'--one-by-one': apart, '--shard-size=2': together}
    one_by_one, together = (tmp_path / name for name in ('one-by-one', 'shard-size=2'))
    check_equal_but_for_certainty(one_by_one, together)


AUGMENTED = '''
_base_ = '{base}'
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=0.75)],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadAnnotations', reduce_zero_label=True)],
            [dict(type='PackSegInputs')],
        ],
    ),
]
'''


def test_an_augmented_test_differs_and_is_the_same_in_both_ways(swept, trained, tmp_path, capsys):
    config = tmp_path / 'augmented.py'
    config.write_text(AUGMENTED.format(base=trained.config))
    call = [str(config), trained.checkpoint, '--tta']
    for way in ('--one-by-one', '--shard-size=2'):
        assert main([*call, '--out', str(tmp_path / way[2:]), way]) == 0
    rows, plain = records(tmp_path / 'one-by-one'), records(swept[0])
    assert rows == records(tmp_path / 'shard-size=2')
    assert [row['flops'] for row in rows] == [row['flops'] for row in plain]
    assert [row['metrics'] for row in rows] != [row['metrics'] for row in plain]
    line = refused(capsys, [*trained.call, '--out', tmp_path / 'one-by-one'])
    assert 'results of another run (config: ' in line
    line = refused(capsys, [*trained.call, '--out', tmp_path / 'out', '--tta'])
    assert 'no tta_model and no tta_pipeline' in line


# -- parts of the work --------------------------------------------------------------------------


@pytest.mark.parametrize('by', ['images', 'stitches'])
@pytest.mark.parametrize('apart', [True, False])
def test_parts_make_the_whole(swept, trained, tmp_path, runs, by, apart):
    """In folders of their own, or all in one."""
    outs = [tmp_path / (str(number) if apart else 'out') for number in range(3)]
    for number, out in enumerate(outs):
        part = ['--shard', f'{number + 1}/3', '--shard-by', by, '--shard-size', '1']
        assert main([*trained.call, '--out', str(out), *part]) == 0
        assert not (out / 'stitches.jsonl').exists()
    assert scored(runs) == set(NAMES)
    merge = ['--merge', *map(str, outs)] if apart else []
    runs.clear()
    whole = tmp_path / ('whole' if apart else 'out')
    assert main([*trained.call, '--out', str(whole), *merge]) == 0
    assert runs == []
    assert contents(whole) == contents(swept[0])


def test_a_part_that_is_missing_is_done_when_the_others_are_merged(
    swept, trained, tmp_path, runs
):
    part = ['--out', str(tmp_path / 'part'), '--shard', '2/2']
    assert main([*trained.call, *part]) == 0
    assert {image for image, _ in runs} == {'2', '3'}
    runs.clear()
    out = tmp_path / 'out'
    assert main([*trained.call, '--out', str(out), '--merge', str(tmp_path / 'part')]) == 0
    assert {image for image, _ in runs} == {'0', '1'}
    assert contents(out) == contents(swept[0])


def test_finished_stitches_are_merged_too(swept, results, trained, tmp_path, runs):
    out = tmp_path / 'out'
    assert main([*trained.call, '--out', str(out), '--merge', str(results)]) == 0
    assert runs == []
    assert contents(out) == contents(swept[0])


def test_stitches_are_added_to_those_that_are_there(trained, tmp_path, runs):
    for choice in ('anchors', 'S3,S2-L2'):
        assert main([*trained.call, '--out', str(tmp_path), '--stitches', choice]) == 0
    assert scored(runs) == {'S3', 'L6', 'S2-L2'}
    assert [row['name'] for row in records(tmp_path)] == ['S3', 'L6', 'S2-L2']


@pytest.mark.parametrize(
    ('choice', 'names'),
    [
        ('anchors', ['S3', 'L6']),
        ('S-L', ['S1-L4', 'S2-L2']),
        ('S1-L4, L6', ['L6', 'S1-L4']),
        ('3', ['S2-L2']),
        ('spread:3', None),
    ],
)
def test_stitches_are_chosen(trained, tmp_path, runs, choice, names):
    assert main([*trained.call, '--out', str(tmp_path), '--stitches', choice]) == 0
    if names is None:
        flops = backbone_of(trained.runner).costs.flops
        middle = min(NAMES, key=lambda name: abs(flops[name] - (flops['S3'] + flops['L6']) / 2))
        names = [name for name in NAMES if name in ('S3', 'L6', middle)]
    assert scored(runs) == set(names)


def test_the_front_of_one_folder_is_scored_into_another(swept, trained, tmp_path, runs):
    arguments = ['--stitches', 'pareto', '--front-of', str(swept[0]), '--out', str(tmp_path)]
    assert main([*trained.call, *arguments]) == 0
    front = json.loads((swept[0] / 'pareto.json').read_text())['front']
    assert scored(runs) == {row['name'] for row in front}


def test_another_metric_makes_another_front_of_the_same_records(results, trained, runs, capsys):
    assert main([*trained.call, '--out', str(results), '--metric', 'aAcc']) == 0
    assert runs == []
    found = json.loads((results / 'pareto.json').read_text())
    best = max(records(results), key=lambda row: row['metrics']['aAcc'])
    assert found['metric'] == 'aAcc'
    assert found['front'][-1]['value'] == best['metrics']['aAcc']
    assert 'aAcc' in capsys.readouterr().out


def test_overwrite_begins_anew(results, trained, runs):
    arguments = ['--out', str(results), '--stitches', 'anchors', '--overwrite']
    assert main([*trained.call, *arguments]) == 0
    assert scored(runs) == {'S3', 'L6'}
    assert len(records(results)) == 2


# -- refusals -----------------------------------------------------------------------------------


def refused(capsys, arguments):
    """Run a command that fails; its one line of error."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == '' or 'error' not in captured.out
    lines = [line for line in captured.err.splitlines() if 'error' in line.lower()]
    assert len(lines) == 1, captured.err
    (line,) = lines
    assert line.startswith('test_all_stitches: error: ')
    assert captured.err.endswith(f'{line}\n')
    return line


def test_results_of_another_config_are_kept_and_named(results, trained, runs, capsys):
    before = contents(results)
    line = refused(
        capsys,
        [*trained.call, '--out', results, '--cfg-options', 'model.test_cfg.mode=slide',
         'model.test_cfg.crop_size=(64,64)', 'model.test_cfg.stride=(32,32)'],
    )  # fmt: skip
    assert 'results of another run (config: ' in line and '--overwrite' in line
    assert 'checkpoint:' not in line and 'data' not in line
    assert runs == [] and contents(results) == before


def test_results_of_another_checkpoint_are_kept_and_named(
    results, trained, runs, capsys, tmp_path
):
    state = weights(trained.runner)
    state['decode_head.conv_seg.bias'] += 1
    torch.save(dict(state_dict=state), tmp_path / 'other.pth')
    before = contents(results)
    line = refused(capsys, [trained.config, tmp_path / 'other.pth', '--out', results])
    assert 'results of another run (checkpoint: ' in line and '--overwrite' in line
    assert runs == [] and contents(results) == before


def test_folders_of_another_run_are_not_merged(results, trained, tmp_path, capsys):
    call = [*trained.call, '--out', tmp_path / 'out']
    assert 'nowhere holds no results' in refused(capsys, [*call, '--merge', 'nowhere'])
    run = json.loads((results / 'run.json').read_text())
    run['fingerprint']['checkpoint'] = 'other'
    (results / 'run.json').write_text(json.dumps(run))
    line = refused(capsys, [*call, '--merge', results])
    assert 'results of another run (checkpoint: other there, ' in line


def test_a_damaged_shard_is_discarded_with_a_line_and_run_again(
    swept, trained, tmp_path, runs, capfd
):
    call = [*trained.call, '--out', str(tmp_path)]
    assert main([*call, '--shard', '1/2']) == 0
    (path,) = (tmp_path / 'shards').glob('*.shard')
    path.write_bytes(path.read_bytes()[:-50])
    runs.clear()
    assert main(call) == 0
    assert scored(runs) == set(NAMES)
    assert contents(tmp_path) == contents(swept[0])
    told = ''.join(capfd.readouterr())
    assert told.count(f'{path} is damaged (its checksum is wrong): it is discarded') == 1


def test_overwriting_discards_partial_results_too(trained, tmp_path, runs):
    call = [*trained.call, '--out', str(tmp_path)]
    assert main([*call, '--shard', '1/2']) == 0
    runs.clear()
    assert main([*call, '--overwrite']) == 0
    assert scored(runs) == set(NAMES)


@pytest.mark.parametrize(
    'arguments',
    [['--shard', '0/2'], ['--shard', '3/2'], ['--shard', '1'], ['--max-memory', '2X'],
     ['--max-memory', '-1'], ['--shard-by', 'luck']],
)  # fmt: skip
def test_impossible_ways_to_work_are_refused_at_once(trained, capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main([*trained.call, *arguments])
    assert caught.value.code == 2
    assert f'argument {arguments[0]}' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--shard-size', '0'], 'shard_size=0'),
        (['--shard', '1/2', '--one-by-one'], 'one pass'),
    ],
)
def test_ways_to_work_that_contradict_are_one_line(trained, tmp_path, capsys, arguments, message):
    assert message in refused(capsys, [*trained.call, '--out', tmp_path / 'out', *arguments])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--stitches', 'S1-L5'], "Unknown stitch 'S1-L5' in a space of 8 .* names: .*S1-L4"),
        (['--stitches', 'spread:0'], 'ask for at least 1'),
        (['--stitches', 'pareto', '--front-of', 'nowhere'], 'nowhere.*does not exist'),
    ],
)
def test_a_wrong_choice_discards_nothing_even_if_told_to_overwrite(
    results, trained, capsys, arguments, message
):
    before = contents(results)
    line = refused(capsys, [*trained.call, '--out', results, '--overwrite', *arguments])
    assert re.search(message, line)
    assert contents(results) == before


def test_a_missing_config_is_named(trained, tmp_path, capsys):
    line = refused(capsys, [tmp_path / 'no.py', trained.checkpoint, '--out', tmp_path / 'out'])
    assert f'There is no config {tmp_path / "no.py"}' in line


def test_a_missing_checkpoint_is_named(trained, tmp_path, capsys):
    line = refused(capsys, [trained.config, tmp_path / 'no.pth', '--out', tmp_path / 'out'])
    assert f'There is no checkpoint {tmp_path / "no.pth"}' in line
    assert not (tmp_path / 'out').exists()


def test_a_file_that_is_no_checkpoint_is_one_line(trained, tmp_path, capsys):
    (tmp_path / 'text.pth').write_text('hello')
    line = refused(capsys, [trained.config, tmp_path / 'text.pth', '--out', tmp_path / 'out'])
    assert 'text.pth' in line


def test_an_unfitted_checkpoint_is_refused(trained, tmp_path, capsys):
    runner = toy_runner(trained.data, tmp_path / 'run')
    torch.save(dict(state_dict=weights(runner)), tmp_path / 'unfitted.pth')
    line = refused(capsys, [trained.config, tmp_path / 'unfitted.pth', '--out', tmp_path / 'out'])
    assert 'The stitch layers were never fitted' in line
    assert not list((tmp_path / 'out').glob('*.json*'))


def test_a_checkpoint_of_other_anchors_is_refused(trained, tmp_path, capsys):
    options = ['--cfg-options', 'model.backbone.anchors.1.model_kwargs.depth=7']
    line = refused(capsys, [*trained.call, '--out', tmp_path / 'out', *options])
    assert 'of another backbone than this StitchedViT (S: 3 x 16, L: 7 x 32): ' in line


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['model.decode_head.in_channels=[32,48]'], 'put [32, 32]'),
        (['model.backbone.out_indices=[2,9]'], 'blocks 0 to 5'),
        (['model.backbone.depth=4'], '_delete_=True'),
        (['model.pretrained=vit.pth'], "name each anchor's weights"),
        (['model.decode_head.type=NoHead'], 'NoHead'),
        (['test_dataloader.dataset.data_root=nowhere'], 'nowhere'),
        (['test_dataloader.dataset.type=NoData'], 'NoData'),
        (['test_evaluator.iou_metrics=[mDonut]'], "does not compute iou_metrics=['mDonut']"),
        (['custom_imports.imports=[no_such_module]'], 'no_such_module'),
    ],
)
def test_a_mistake_in_the_config_is_one_line(trained, tmp_path, capsys, options, message):
    call = [*trained.call, '--out', tmp_path / 'out', '--cfg-options', *options]
    if 'custom_imports' in options[0]:
        text = Config.fromfile(trained.config).pretty_text
        (tmp_path / 'config.py').write_text(text.replace("'mmsnnet'", "'no_such_module'", 1))
        call = [tmp_path / 'config.py', trained.checkpoint, '--out', tmp_path / 'out']
    assert message in refused(capsys, call)


def test_a_config_that_cannot_be_read_is_one_line(trained, tmp_path, capsys):
    (tmp_path / 'config.py').write_text('model = dict(')
    line = refused(capsys, [tmp_path / 'config.py', trained.checkpoint, '--out', tmp_path / 'out'])
    assert 'was never closed' in line


def test_an_unknown_metric_is_refused_and_the_records_are_kept(results, trained, capsys):
    before = contents(results, ['stitches.jsonl'])
    line = refused(capsys, [*trained.call, '--out', results, '--metric', 'mIOU'])
    assert "metric='mIOU' of the loop is not among" in line and "'mIoU'" in line
    assert contents(results, ['stitches.jsonl']) == before
    MMLogger.get_current_instance().warning('what comes later finds no log that was taken away')


def test_a_file_in_the_place_of_the_folder_is_refused(trained, tmp_path, capsys):
    (tmp_path / 'out').write_text('')
    line = refused(capsys, [*trained.call, '--out', tmp_path / 'out'])
    assert str(tmp_path / 'out') in line


def test_the_command_itself_ends_with_code_2(trained, tmp_path):
    done = run_python(TOOL, trained.config, tmp_path / 'no.pth', '--out', tmp_path / 'out')
    assert done.returncode == 2
    assert done.stdout == ''
    assert done.stderr == f'test_all_stitches: error: There is no checkpoint {tmp_path}/no.pth.\n'
