"""The command line that renders rooms."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rooms import RoomsSpec, write_rooms

from tools.make_rooms import main

ROOT = Path(__file__).resolve().parents[2]
SMALL = ['--train', '3', '--val', '1', '--size', '32', '48', '--workers', '1']


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob('*')) if path.is_file()}


def test_the_options_reach_the_rooms(tmp_path, capsys):
    assert main([str(tmp_path / 'a'), *SMALL, '--seed', '6', '--layout', 'ade20k']) == 0
    write_rooms(tmp_path / 'b', RoomsSpec(3, 1, (32, 48), 6, ('ade20k',)))
    assert contents(tmp_path / 'a') == contents(tmp_path / 'b')
    last = capsys.readouterr().out.splitlines()[-1]
    assert '3 train and 1 val rooms, 32x48, seed 6, layouts ade20k (4 written, 0 kept)' in last


def test_progress_is_told_in_lines_where_there_is_no_terminal(tmp_path, capsys):
    main([str(tmp_path / 'a'), *SMALL])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'rooms 0/4'
    assert lines[-2] == 'rooms 4/4'


def test_a_terminal_gets_a_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('FORCE_COLOR', '1')
    assert main([str(tmp_path / 'a'), *SMALL]) == 0
    assert '4/4' in capsys.readouterr().out
    assert len(contents(tmp_path / 'a')) > 4


def test_other_rooms_are_refused_in_one_line_and_replaced_on_demand(tmp_path, capsys):
    out = str(tmp_path / 'a')
    assert main([out, *SMALL]) == 0
    assert main([out, *SMALL, '--seed', '1']) == 1
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    assert 'error: ' in error and 'seed 0, not 1' in error and '--overwrite' in error
    assert main([out, *SMALL, '--seed', '1', '--overwrite']) == 0


@pytest.mark.parametrize(('options', 'words'), [
    (['--size', '32', '16'], '32x16'), (['--train', '-1'], 'train must not be negative'),
    (['--layout', 'ade20k,voc'], "unknown layout 'voc'"), (['--workers', '0'], 'workers'),
    (['--seed', '-1'], 'seed must not be negative'),
    (['--size', '100000', '100000'], '100000x100000 is too large'),
    (['--size', '8192', '8192'], 'too large'), (['--size', '32', '9000'], 'too large'),
    (['--train', '0', '--val', '0'], '0 rooms'), (['--train', '99999999999'], 'at most')])
def test_bad_values_end_in_one_clear_line(tmp_path, capsys, options, words):
    assert main([str(tmp_path / 'a'), *SMALL, *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith('make_rooms.py: error: ')
    assert words in error and error.count('\n') == 1
    assert not (tmp_path / 'a').exists()


def test_an_option_that_is_no_number_ends_in_one_clear_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / 'a'), '--train', 'many'])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and "'many'" in error


def test_a_place_that_cannot_be_written_ends_in_one_clear_line(tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    for out in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        assert main([str(out), *SMALL]) == 1
        error = capsys.readouterr().err
        assert error.count('\n') == 1 and str(out) in error
        assert error.startswith('make_rooms.py: error: ')


def alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='reads /proc')
def test_a_killed_run_leaves_whole_files_no_workers_and_goes_on(tmp_path):
    out, options = tmp_path / 'a', ['--train', '80', '--val', '4', '--size', '32', '32']
    command = [sys.executable, str(ROOT / 'tools/make_rooms.py'), str(out), *options]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    with subprocess.Popen([*command, '--workers', '2'], env=environment,
                          stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while len(list(out.glob('images/training/ADE_*.jpg'))) < 8:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        task = Path(f'/proc/{process.pid}/task/{process.pid}/children')
        workers = [int(pid) for pid in task.read_text().split()]
        process.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(map(alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    written = len(list(out.glob('images/training/ADE_*.jpg')))
    assert written < 80
    write_rooms(tmp_path / 'b', RoomsSpec(80, 4, (32, 32)), workers=2)
    whole = contents(tmp_path / 'b')
    assert all(whole[name] == data for name, data in contents(out).items()
               if not name.endswith('.tmp'))
    assert main([str(out), *options, '--workers', '2']) == 0
    assert {name: data for name, data in contents(out).items()
            if not name.endswith('.tmp')} == whole
