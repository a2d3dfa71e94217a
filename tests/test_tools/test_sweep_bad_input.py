"""Sweeps of data, weights and metrics that are not as they should be: a line each, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmseg.evaluation import IoUMetric

from mmsnnet.engine.nan_predictions import NanPredictions
from tests.toy_segmentation import (
    NAMES,
    child_environment,
    toy_config,
    toy_runner,
    write_images,
)
from tools import choose_stitch
from tools.test_all_stitches import main

SOME = ['S3', 'L6', 'S1-L4']


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Data, and a checkpoint of a short training."""
    folder = tmp_path_factory.mktemp('trained')
    data = write_images(folder / 'data', train=6, val=3)
    runner = toy_runner(data, folder / 'run', train_cfg=dict(max_iters=2, val_interval=99))
    runner.train()
    runner.save_checkpoint(str(folder), 'weights.pth')
    return data, folder / 'weights.pth'


@pytest.fixture
def command(trained, tmp_path):
    """Runs the command on a copy of the data that may be spoilt; its config in a file."""
    data = shutil.copytree(trained[0], tmp_path / 'data')
    toy_config(data, tmp_path / 'run').dump(tmp_path / 'config.py')

    def run(*arguments, checkpoint=trained[1], out=tmp_path / 'out', stitches=SOME):
        call = [tmp_path / 'config.py', checkpoint, '--out', out, '--stitches', ','.join(stitches)]
        return main([str(argument) for argument in (*call, *arguments)])

    return run


def records(folder):
    lines = (folder / 'stitches.jsonl').read_text().splitlines()
    return {record['name']: record for record in map(json.loads, lines)}


def error_line(capsys):
    """The one line of error, the last of the error stream."""
    text = capsys.readouterr().err
    assert 'Traceback' not in text
    lines = [line for line in text.splitlines() if 'error' in line.lower()]
    assert len(lines) == 1 and text.endswith(f'{lines[0]}\n'), text
    return lines[0]


def warnings_in(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if ': warning: ' in line]


# -- metrics ------------------------------------------------------------------------------------


def without_metrics(monkeypatch, calls):
    """Let the metric return nothing at its calls of these numbers, as where nothing is found."""
    compute, count = IoUMetric.compute_metrics, [0]

    def spoilt(metric, results):
        count[0] += 1
        return {} if count[0] in calls else compute(metric, results)

    monkeypatch.setattr(IoUMetric, 'compute_metrics', spoilt)


@pytest.mark.parametrize(('way', 'spoilt'), [('--one-by-one', 3), ('--shard-size=2', 1)])
def test_a_stitch_without_a_metric_is_recorded_and_the_sweep_goes_on(
    command, tmp_path, capsys, monkeypatch, way, spoilt
):
    without_metrics(monkeypatch, {spoilt})
    assert command(way) == 0
    found = records(tmp_path / 'out')
    assert list(found) == SOME
    empty = SOME[spoilt - 1]
    assert [name for name in SOME if not found[name]['metrics']] == [empty]
    (line,) = warnings_in(capsys)
    assert f'1 of 3 stitches, such as {empty}, have no value of mIoU' in line
    report = json.loads((tmp_path / 'out' / 'pareto.json').read_text())
    assert report['num_without_metric'] == 1
    assert empty not in {row['name'] for row in report['front']}
    # What is recorded is done, and read by whoever chooses.
    assert command(way) == 0
    assert choose_stitch.main([str(tmp_path / 'out'), '--format', 'name']) == 0


def test_where_no_stitch_has_a_metric_all_are_recorded_and_nothing_is_reported(
    command, tmp_path, capsys, monkeypatch
):
    without_metrics(monkeypatch, {1, 2, 3})
    assert command() == 0
    assert [record['metrics'] for record in records(tmp_path / 'out').values()] == [{}] * 3
    (line,) = warnings_in(capsys)
    assert '3 of 3 stitches, such as S3, have no value of any metric' in line
    assert 'no front' in line
    assert not list((tmp_path / 'out').glob('pareto.*'))


def test_a_metric_that_is_nan_everywhere_is_recorded_as_null(
    command, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(IoUMetric, 'compute_metrics', lambda *_: {'mIoU': float('nan')})
    assert command() == 0
    assert {r['metrics']['mIoU'] for r in records(tmp_path / 'out').values()} == {None}
    (line,) = warnings_in(capsys)
    assert '3 of 3 stitches, such as S3, have no value of mIoU' in line
    assert choose_stitch.main([str(tmp_path / 'out')]) == 2
    assert 'None of the 3 stitches has a value of mIoU' in capsys.readouterr().err


def test_files_alone_are_written_where_nothing_is_to_be_scored(command, tmp_path, capsys):
    options = ['test_evaluator.format_only=True', f'test_evaluator.output_dir={tmp_path}/masks']
    assert command('--cfg-options', *options) == 0
    assert all(not record['metrics'] for record in records(tmp_path / 'out').values())
    assert list((tmp_path / 'masks').rglob('*.png'))
    assert 'no value of any metric' in capsys.readouterr().err


# -- weights ------------------------------------------------------------------------------------


def spoil(trained, tmp_path, value, find):
    """A checkpoint with one number of one weight changed; its path and the weight's name."""
    content = torch.load(trained[1], weights_only=True)
    name = next(name for name in content['state_dict'] if find in name)
    content['state_dict'][name].view(-1)[0] = value
    torch.save(content, tmp_path / 'spoilt.pth')
    return tmp_path / 'spoilt.pth', name


def test_weights_that_are_nan_are_refused(command, trained, tmp_path, capsys):
    path, name = spoil(trained, tmp_path, float('nan'), 'decode_head.conv_seg.weight')
    assert command(checkpoint=path) == 2
    line = error_line(capsys)
    assert str(path) in line and f'NaN in 1 weights, such as {name}' in line
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('way', ['--one-by-one', '--shard-size=2'])
def test_a_stitch_that_predicts_nan_has_no_metrics_and_is_named(
    command, trained, tmp_path, capsys, way
):
    """Weights that are finite and overflow: of the stitches between anchors that cross there."""
    content = torch.load(trained[1], weights_only=True)
    names = [n for n in content['state_dict'] if 'stitch_layers' in n and n.endswith('weight')]
    for name in names:
        if content['state_dict'][name].shape == (32, 16):
            content['state_dict'][name].fill_(1e38)
    torch.save(content, tmp_path / 'large.pth')
    assert command(way, checkpoint=tmp_path / 'large.pth', stitches=NAMES) == 0
    found = records(tmp_path / 'out')
    broken = {
        name for name, record in found.items() if set(record['metrics'].values()) == {None}
    }
    # A route that ends in the small anchor lifts its taps by such layers; L6 has none.
    assert 'S1-L4' in broken and 'L6' not in broken
    err = capsys.readouterr()
    assert f'{len(broken)} of 8 stitches' in err.err
    assert all(f'{name} predicts NaN for some images' in err.out + err.err for name in broken)


def test_nan_of_a_shard_is_known_after_a_new_start(command, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(NanPredictions, 'found', lambda watch: True)
    assert command('--shard', '1/2') == 0
    monkeypatch.undo()
    assert command() == 0
    assert all(
        set(record['metrics'].values()) == {None}
        for record in records(tmp_path / 'out').values()
    )


# -- data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('way', 'workers', 'kind'),
    [
        ('--one-by-one', 1, 'images'),
        ('--shard-size=1', 1, 'annotations'),
        ('--shard-size=1', 0, 'images'),
    ],
)
def test_an_image_that_cannot_be_read_is_one_line(command, tmp_path, capsys, way, workers, kind):
    path = sorted((tmp_path / 'data' / kind / 'validation').iterdir())[1]
    path.write_bytes(b'no picture')
    assert command(way, '--cfg-options', f'test_dataloader.num_workers={workers}') == 2
    line = error_line(capsys)
    assert f'Cannot read image 1 of the test data ({tmp_path}/data/images/validation/' in line
    assert path.stem in line and len(line) < 600


def test_what_was_done_before_an_image_that_cannot_be_read_is_kept(command, tmp_path, capsys):
    path = max((tmp_path / 'data' / 'images' / 'validation').iterdir())
    path.write_bytes(b'no picture')
    assert command('--shard-size', '1') == 2
    assert len(list((tmp_path / 'out' / 'shards').glob('*.shard'))) == 2


def test_a_data_set_without_images_is_one_line(command, tmp_path, capsys):
    for path in Path(tmp_path / 'data' / 'images' / 'validation').iterdir():
        path.unlink()
    assert command() == 2
    assert 'The data set of test_dataloader is empty' in error_line(capsys)
    assert not (tmp_path / 'out').exists()


# -- nothing is left of what is refused ---------------------------------------------------------


@pytest.mark.parametrize(
    'arguments',
    [
        ['--stitches', 'S9'],
        ['--merge', 'nowhere'],
        ['--front-of', 'nowhere', '--stitches', 'pareto'],
        ['--recalibrate-bn', '1'],
        ['--shard-size', '0'],
        ['--cfg-options', 'model.backbone.out_indices=[2,9]'],
        ['--cfg-options', 'test_dataloader.dataset.data_root=nowhere'],
    ],
)
def test_a_refused_sweep_leaves_no_folder(command, tmp_path, capsys, arguments):
    out = tmp_path / 'deep' / 'er' / 'out'
    assert command(*arguments, out=out) == 2
    error_line(capsys)
    assert not (tmp_path / 'deep').exists()


def test_a_wrong_choice_is_refused_before_the_checkpoint_is_read(
    command, trained, tmp_path, capsys
):
    (tmp_path / 'text.pth').write_text('no checkpoint')
    assert command('--stitches', 'S9', checkpoint=tmp_path / 'text.pth') == 2
    assert "Unknown stitch 'S9'" in error_line(capsys)


def test_a_refused_sweep_takes_nothing_from_a_folder_that_was_there(command, tmp_path, capsys):
    (tmp_path / 'out' / 'log' / 'old').mkdir(parents=True)
    (tmp_path / 'out' / 'notes.txt').write_text('mine')
    before = sorted((tmp_path / 'out').rglob('*'))
    assert command('--stitches', 'S9') == 2
    assert sorted((tmp_path / 'out').rglob('*')) == before


# -- the folder ---------------------------------------------------------------------------------


def test_a_disk_that_is_full_again_and_again_loses_nothing(
    command, tmp_path, capsys, monkeypatch
):
    """It is full at some writes, of a shard, of statistics, of a record and of the report."""
    assert command('--shard-size=1') == 0
    expected, synced, writes, failed = records(tmp_path / 'out'), os.fsync, [0], []

    def sync(file):
        writes[0] += 1
        if writes[0] in (2, 7, 10, 14):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced(file)

    monkeypatch.setattr(os, 'fsync', sync)
    out = tmp_path / 'full'
    while command('--shard-size=1', out=out) != 0:
        line = error_line(capsys)
        failed.append(re.fullmatch(rf'.*error: {out}/(.*): No space left on device', line)[1])
    assert records(out) == expected
    kinds = [name.split('/')[0] for name in failed]
    assert kinds == ['shards', 'stitches.jsonl', 'image_statistics', 'pareto.json'], failed
    assert not list(out.rglob('*.tmp'))


def test_a_second_run_in_a_folder_is_refused_until_the_first_has_ended_however_it_did(
    command, tmp_path, capsys
):
    out = tmp_path / 'out'
    hold = f"""
import sys, time
from pathlib import Path
from mmsnnet.results.folder_lock import FolderLock
lock = FolderLock(Path({str(out)!r}))
sys.stdout.write('held')
sys.stdout.flush()
time.sleep(600)
"""
    child = subprocess.Popen(
        [sys.executable, '-c', hold], env=child_environment(), stdout=subprocess.PIPE
    )
    try:
        assert child.stdout.read(4) == b'held'
        assert command() == 2
        line = error_line(capsys)
        assert f'{out} is being written by process {child.pid} of ' in line
        assert not (out / 'run.json').exists()
        assert command('--shard=1/2') == 0  # shares may be done side by side
    finally:
        child.kill()
        child.communicate()
    assert command() == 0
    assert records(out).keys() == set(SOME)
    assert not (out / '.lock').exists()
