"""Validations that follow the front, in trainings by MMEngine's own runner."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from mmsnnet.engine.front_following import Validation
from mmsnnet.engine.front_state import read_state, write_state
from tests.toy_segmentation import NAMES, backbone_of, logged, toy_runner, write_images

FOLLOW = dict(stitches='front', front=dict(max_forwards=4, explorers=1))
SETTINGS = dict(train_cfg=dict(max_iters=8, val_interval=2), val_cfg=FOLLOW)
EVERY_THREE = dict(default_hooks=dict(checkpoint=dict(interval=3)))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'))


def state_of(folder):
    return json.loads((folder / 'followed_front.json').read_text())


@pytest.fixture(scope='module')
def whole(data, tmp_path_factory):
    """Work directory of a training that went through, its runner, and metrics by iteration."""
    folder, metrics = tmp_path_factory.mktemp('whole') / 'run', {}
    runner = toy_runner(data, folder, **SETTINGS, **EVERY_THREE)
    run = runner.val_loop.run
    runner.val_loop.run = lambda: metrics.setdefault(runner.iter, run())
    runner.train()
    return folder, runner, metrics


def test_the_state_holds_what_each_validation_found(whole):
    folder, _, metrics = whole
    state = state_of(folder)
    assert state['metric'] == 'mIoU'
    assert [row['iteration'] for row in state['validations']] == list(metrics) == [2, 4, 6, 8]
    for row in state['validations']:
        assert len(row['values']) == 4
        assert {'S3', 'L6'} <= row['values'].keys()
        found = metrics[row['iteration']]
        assert {name: found[f'{name}/mIoU'] for name in row['values']} == row['values']
        assert {key.split('/')[0] for key in found} & set(NAMES) == row['values'].keys()
    assert len({tuple(row['values']) for row in state['validations']}) > 2


@pytest.fixture(scope='module')
def interrupted(data, tmp_path_factory):
    """Work directory of the same training, which ended after the validation of iteration 4."""
    folder = tmp_path_factory.mktemp('interrupted') / 'run'
    settings = {**SETTINGS, 'train_cfg': dict(max_iters=4, val_interval=2)}
    toy_runner(data, folder, **settings, **EVERY_THREE).train()
    return folder


@pytest.mark.parametrize('elsewhere', [False, True])
def test_a_resumed_training_follows_as_one_that_was_not_interrupted(
    whole, interrupted, data, tmp_path, elsewhere
):
    """The checkpoint is of iteration 3: the validation of iteration 4 is made again."""
    before = shutil.copytree(interrupted, tmp_path / 'run')
    assert [row['iteration'] for row in state_of(before)['validations']] == [2, 4]
    folder = tmp_path / 'elsewhere' if elsewhere else before
    resumed = toy_runner(
        data, folder, **SETTINGS, **EVERY_THREE,
        load_from=str(before / 'iter_3.pth'), resume=True,
    )  # fmt: skip
    resumed.train()
    assert state_of(folder) == state_of(whole[0])


def test_a_new_training_knows_nothing_of_a_former_one(whole, data, tmp_path):
    state = state_of(whole[0])
    for row in state['validations']:
        row['values'] = dict.fromkeys(NAMES[:4], 99.0)
    (tmp_path / 'followed_front.json').write_text(json.dumps(state))
    toy_runner(data, tmp_path, **SETTINGS).train()
    assert state_of(tmp_path) == state_of(whole[0])


def test_a_state_that_cannot_be_used_is_one_line_and_the_front_is_followed_anew(
    whole, data, tmp_path
):
    (tmp_path / 'followed_front.json').write_text('{"metric": "mIoU", "validations": [{"iter')
    checkpoint = tmp_path / 'iter_6.pth'
    checkpoint.symlink_to(whole[0] / 'iter_6.pth')
    runner = toy_runner(data, tmp_path, **SETTINGS, load_from=str(checkpoint), resume=True)
    with logged(runner) as lines:
        runner.train()
    (line,) = [line for line in lines if 'The front is followed from its beginning' in line]
    assert 'is damaged' in line
    assert [row['iteration'] for row in state_of(tmp_path)['validations']] == [8]


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        ('{"metric": "mIoU", "validations": [{"iter', 'is damaged'),
        ('[]', 'is damaged'),
        ('{"metric": "mIoU", "validations": [3]}', 'is damaged'),
        ('{"metric": "mAcc", "validations": []}', 'is of the metric mAcc, not mIoU'),
        (
            '{"metric": "mIoU", "validations": [{"iteration": 2, "values": {"S9": 1.0}}]}',
            'is of another space: the stitch S9 is not in this one',
        ),
    ],
)
def test_a_state_of_something_else_is_told(tmp_path, content, reason):
    (tmp_path / 'followed_front.json').write_text(content)
    with pytest.raises(ValueError, match=reason):
        read_state(tmp_path, 'mIoU', NAMES, 10)


def test_of_a_state_what_came_later_is_left_out(tmp_path):
    found = [Validation(2, dict(S3=1.5, L6=math.nan)), Validation(4, dict(S3=2.5))]
    write_state(tmp_path, 'mIoU', found)
    assert [one.values for one in read_state(tmp_path, 'mIoU', NAMES, 5)][1:] == [dict(S3=2.5)]
    (first,) = read_state(tmp_path, 'mIoU', NAMES, 4)
    assert (first.iteration, first.values['S3']) == (2, 1.5)
    assert math.isnan(first.values['L6'])
    assert read_state(tmp_path / 'none', 'mIoU', NAMES, 4) == []


def test_a_validation_alone_reads_and_writes_no_state(whole, data, tmp_path):
    folder, _, metrics = whole
    runner = toy_runner(data, tmp_path, **SETTINGS, load_from=str(folder / 'iter_6.pth'))
    found = runner.val()
    assert {key.split('/')[0] for key in found} & set(NAMES) == {
        key.split('/')[0] for key in metrics[2]
    } & set(NAMES)
    assert not (tmp_path / 'followed_front.json').exists()


def test_the_log_repeats_nothing_of_stitches_that_were_not_scored(whole):
    folder, runner, metrics = whole
    (scalars,) = folder.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    rows = {row['step']: row for row in rows if 'mIoU' in row}
    assert list(rows) == list(metrics)
    for iteration, row in rows.items():
        logged_names = {key.split('/')[0] for key in row} & {*NAMES, 'best'}
        assert logged_names == {key.split('/')[0] for key in metrics[iteration]} & {*NAMES, 'best'}
        assert row['mIoU'] == pytest.approx(metrics[iteration]['mIoU'])
    assert backbone_of(runner).stitch.name == 'L6'


def test_the_checkpoint_of_the_best_front_is_kept(data, tmp_path):
    best = dict(save_best='pareto/hypervolume', rule='greater')
    settings = {**SETTINGS, 'train_cfg': dict(max_iters=4, val_interval=2)}
    toy_runner(data, tmp_path, **settings, default_hooks=dict(checkpoint=best)).train()
    assert list(tmp_path.glob('best_pareto_hypervolume_iter_*.pth'))


@pytest.mark.parametrize(
    ('loop', 'message'),
    [
        (dict(FOLLOW, metric=None), "stitches='front' needs the metric"),
        (dict(FOLLOW, front=dict(max_forwards=2, explorers=1)), 'too few for 2 anchors'),
        (dict(stitches='anchors', front=dict(explorers=1)), "goes with stitches='front' alone"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_training(data, tmp_path, loop, message):
    runner = toy_runner(data, tmp_path, val_cfg=loop)
    with pytest.raises(ValueError, match=message):
        runner.train()
    assert not list(tmp_path.glob('*.pth'))
