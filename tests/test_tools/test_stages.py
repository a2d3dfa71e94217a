"""The record of stages, and the lock that keeps two jobs apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import _stages
import pytest


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'out' / 'record.json'


def test_a_stage_that_is_done_is_not_done_again_for_the_same_inputs(path):
    done = []
    for inputs in (dict(a=1), dict(a=1), dict(a=2)):
        record = _stages.StageRecord(path)
        record.run('train', inputs, lambda inputs=inputs: done.append(inputs) or dict(n=len(done)))
    assert done == [dict(a=1), dict(a=2)]
    assert _stages.StageRecord(path).outputs('train') == dict(n=2)


def test_a_stage_that_raised_or_was_killed_is_begun_but_not_done(path):
    record = _stages.StageRecord(path)

    def work():
        assert _stages.StageRecord(path).inputs('train') == dict(a=1)
        raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        record.run('train', dict(a=1), work)
    again = _stages.StageRecord(path)
    assert again.inputs('train') == dict(a=1) and not again.is_done('train', dict(a=1))
    assert again.inputs('sweep') is None and again.seconds('sweep') == 0


def test_inputs_are_compared_as_json_gives_them_back(path):
    _stages.StageRecord(path).run('train', dict(a=(1, 2)), dict)
    assert _stages.StageRecord(path).is_done('train', dict(a=(1, 2)))
    assert _stages.StageRecord(path).is_done('train', dict(a=[1, 2]))


def test_a_forgotten_stage_is_done_again(path):
    record, done = _stages.StageRecord(path), []
    for _ in range(2):
        assert record.run('export', dict(a=1), lambda: done.append(1) or {})
        record.forget('export')
    assert done == [1, 1]


@pytest.mark.parametrize('text', ['', '[]', '{"stages": [1]}', '{"stages": {"a": {}}}'])
def test_a_damaged_record_is_refused(path, text):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ValueError, match=r'record\.json is damaged or none of make_model'):
        _stages.StageRecord(path)


HOLD = """
import subprocess, sys, _stages
from pathlib import Path
with _stages.locked(Path(sys.argv[1])):
    child = subprocess.Popen(['sleep', '60'], close_fds=False, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == 'win32', reason='there are no such locks')
def test_a_stage_that_outlives_its_killed_job_keeps_the_folder(path):
    tools = str(Path(_stages.__file__).parent)
    job = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**os.environ, 'PYTHONPATH': tools},
    )  # fmt: skip
    child = int(job.stdout.readline())
    try:
        with pytest.raises(ValueError, match='is in use'), _stages.locked(path):
            pass
        job.kill()
        job.wait()
        with pytest.raises(ValueError, match='one that was killed'), _stages.locked(path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
    for _ in range(100):
        with suppress(ValueError), _stages.locked(path):
            return
        time.sleep(0.1)
    pytest.fail('the lock outlives both')
