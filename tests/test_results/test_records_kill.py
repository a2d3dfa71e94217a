"""Real processes, killed with SIGKILL while they append records."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import mmsnnet.results.records as records_module
from mmsnnet.results.records import read_records
from mmsnnet.results.results_folder import open_results

RUN = {'config': 'c0ffee'}
HERE = Path(records_module.__file__).parent

CHILD = """
    import importlib, os, signal, sys, types
    for name, path in (('mmsnnet', {package!r}), ('mmsnnet.results', {folder_of_records!r})):
        sys.modules[name] = types.ModuleType(name)  # the real package takes seconds to import
        sys.modules[name].__path__ = [path]
    records = importlib.import_module('mmsnnet.results.results_folder')
    results = records.open_results({folder!r}, {run!r})
    for number in range(len(results), 100_000):
        metrics = {{f'class {{k}}/IoU': k / 7 for k in range(50)}}
        if number == {torn_at!r}:
            def tear(descriptor):
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - 1000)
                os.kill(os.getpid(), signal.SIGKILL)
            os.fsync = tear
        results.append(dict(id=number, name=f'S{{number}}', family='S', flops=1, params=1,
                            metrics=metrics))
        print(number, flush=True)
"""


def spawn(folder, torn_at=None):
    code = textwrap.dedent(CHILD).format(
        package=str(HERE.parent), folder_of_records=str(HERE), folder=str(folder), run=RUN,
        torn_at=torn_at,
    )  # fmt: skip
    return subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)


def check_after_kill(folder, acknowledged):
    """All acknowledged records are there, whole and in order, and the sweep can go on."""
    results = open_results(folder, RUN)
    found = [record['id'] for record in results.records]
    assert found == list(range(len(found)))
    assert acknowledged < len(found) <= acknowledged + 2
    results.append({**results.records[-1], 'id': len(found), 'name': f'S{len(found)}'})
    assert [r['id'] for r in read_records(folder)] == [*found, len(found)]


def test_a_process_killed_while_appending_loses_nothing_it_had_acknowledged(tmp_path):
    child = spawn(tmp_path)
    for _ in range(30):
        last = child.stdout.readline()
    child.kill()
    rest = child.stdout.read().split()
    assert child.wait() == -signal.SIGKILL
    check_after_kill(tmp_path, int([last, *rest][-1]))


def test_a_process_killed_with_half_a_line_written_loses_that_line_alone(tmp_path):
    child = spawn(tmp_path, torn_at=5)
    acknowledged = child.communicate()[0].split()
    assert child.returncode == -signal.SIGKILL and acknowledged == list('01234')
    assert not (tmp_path / 'stitches.jsonl').read_bytes().endswith(b'\n')
    check_after_kill(tmp_path, 4)
