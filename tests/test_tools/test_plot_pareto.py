"""Plots of results folders, as a command."""

from __future__ import annotations

import pytest

from tests.results_folder import record, write_latency, write_results
from tools.plot_pareto import main, names_of

RECORDS = [record('S6', 1, 40.0), record('L12', 9, 50.0), record('S3-L6', 5, 49.0)]


@pytest.fixture
def folders(tmp_path):
    return [str(write_results(tmp_path / name / 'sweep', RECORDS)) for name in ('a', 'b')]


def test_a_folder_gets_every_kind_and_a_file_its_own(folders, tmp_path, capsys):
    assert main([*folders, '--out', str(tmp_path / 'all')]) == 0
    files = {path.name: path.read_bytes()[:14] for path in (tmp_path / 'all').iterdir()}
    assert files.keys() == {'pareto.png', 'pareto.svg', 'pareto.html'}
    assert files['pareto.png'][:4] == b'\x89PNG' and files['pareto.svg'][:5] == b'<?xml'
    out = str(tmp_path / 'new' / 'one.svg')
    assert main([folders[0], '--out', out]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == out


def test_latency_of_one_file_serves_all(folders, tmp_path):
    rows = {record['name']: (5.0 * i, 1.0) for i, record in enumerate(RECORDS)}
    latency = str(write_latency(tmp_path / 'l.json', rows))
    out = tmp_path / 'x.html'
    calls = ['--axis', 'ms', '--latency', latency, '--out', str(out), '--title', 'On a clock']
    assert main([*folders, *calls]) == 0
    text = out.read_text()
    assert '"axis": "ms"' in text and '"title": "On a clock"' in text and '"ms": 10.0' in text


def test_axes_begin_at_zero_on_request(folders, tmp_path):
    files = [tmp_path / name for name in ('near.svg', 'zero.svg')]
    assert main([folders[0], '--out', str(files[0])]) == 0
    assert main([folders[0], '--out', str(files[1]), '--from-zero']) == 0
    near, zero = (path.read_text() for path in files)
    assert '<!-- 0 -->' in zero and '<!-- 20 -->' in zero and '<!-- 20 -->' not in near


def test_sweeps_are_named_by_what_tells_their_folders_apart(folders):
    assert names_of(folders, None) == ['a/sweep', 'b/sweep']
    assert names_of(folders[:1], None) == ['sweep']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--out', 'x.gif'], 'must end in .png, .svg, .html'),
        (['--out', 'x.png', '--names', 'a'], '2 sweeps need as many different names'),
        (['--out', 'x.png', '--latency', 'a', 'b', 'c'], '--latency takes one file or 2, got 3'),
        (['--out', 'x.png', '--axis', 'ms'], 'give latency=FILE'),
    ],
)
def test_what_is_not_possible_is_one_line(folders, capsys, arguments, message):
    assert main([*folders, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1


def test_a_plot_that_cannot_be_drawn_leaves_no_folder_behind(folders, tmp_path, capsys):
    out = tmp_path / 'new' / 'x.html'
    assert main([folders[0], '--axis', 'ms', '--out', str(out)]) != 0
    assert 'ms' in capsys.readouterr().err
    assert not out.parent.exists()
