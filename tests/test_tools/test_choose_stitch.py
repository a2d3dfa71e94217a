"""The command that chooses a stitch."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.results_folder import record, write_latency, write_results
from tools.choose_stitch import main

RECORDS = [
    record('S6', 1, 40.0, 0),
    record('L12', 9, 50.0, 1),
    record('S3-L6', 5, 49.0, 2),
    record('L2-S5', 3, 39.0, 3),
    record('L4-S4', 4, None, 4),
]


@pytest.fixture
def folder(tmp_path):
    return str(write_results(tmp_path / 'sweep', RECORDS, dict(metric='mIoU')))


@pytest.fixture
def latency(tmp_path):
    rows = {'S6': (10, 5), 'L12': (90, 50), 'S3-L6': (95, 30), 'L2-S5': (20, 9), 'L4-S4': (1, 1)}
    return str(write_latency(tmp_path / 'l.json', rows))


@pytest.mark.parametrize(
    ('arguments', 'names'),
    [
        ([], ['S6', 'S3-L6', 'L12']),
        (['--front'], ['S6', 'S3-L6', 'L12']),
        (['--gflops', '5'], ['S3-L6']),
        (['--gflops', '8', '--params', '0.4'], ['S6']),
        (['--min-metric', '45'], ['S3-L6']),
        (['--knee'], ['S3-L6']),
        (['--dominated'], ['L2-S5', 'L4-S4']),
    ],
)
def test_each_question_has_its_answer(folder, capsys, arguments, names):
    assert main([folder, *arguments, '--format', 'name']) == 0
    assert capsys.readouterr().out.split() == names


@pytest.mark.parametrize(
    ('arguments', 'names'),
    [
        (['--ms', '94'], ['L12']),
        (['--mb', '30'], ['S3-L6']),
        (['--front', '--axis', 'ms'], ['S6', 'L12']),
        (['--min-metric', '45', '--axis', 'ms'], ['L12']),
    ],
)
def test_latency_brings_milliseconds_and_bytes(folder, latency, capsys, arguments, names):
    assert main([folder, *arguments, '--latency', latency, '--format', 'name']) == 0
    assert capsys.readouterr().out.split() == names


def test_the_table_has_the_columns_that_have_values(folder, latency, capsys):
    assert main([folder, '--knee']) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ['name', 'family', 'GFLOPs', 'M', 'params', 'mIoU']
    assert row.split() == ['S3-L6', 'S-L', '5.000', '0.5000', '49.000']
    assert main([folder, '--knee', '--latency', latency]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[4:6] == ['95.000', '30.000']


def test_json_and_csv_hold_the_same(folder, latency, capsys):
    assert main([folder, '--latency', latency, '--format', 'json']) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0] == dict(
        name='S6', family='S', gflops=1.0, params=0.1, ms=10.0, mb=5.0, mIoU=40.0
    )
    assert main([folder, '--latency', latency, '--format', 'csv']) == 0
    read = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert list(read) == [{key: str(value) for key, value in row.items()} for row in rows]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--gflops', '0.5'], 'No stitch keeps within 0.5 GFLOPs; the cheapest is S6 with 1 '),
        (['--ms', '5'], 'give latency=FILE'),
        (['--knee', '--gflops', '3'], 'Ask for one thing at once, not for a budget and --knee'),
        (['--metric', 'IoU'], "no metric 'IoU'"),
        (['--latency', 'none.json'], 'no latency file none.json'),
        (['--min-metric', '60'], 'None is as good as 60'),
    ],
)
def test_what_cannot_be_answered_is_one_line_and_a_code(folder, capsys, arguments, message):
    assert main([folder, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert message in captured.err and captured.err.count('\n') == 1


def test_a_folder_without_results_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert 'does not exist: score the stitches' in capsys.readouterr().err


def test_results_without_any_value_are_refused(folder, capsys, tmp_path):
    write_results(tmp_path, [record('S6', 1, None), record('L12', 9, None, 1)])
    assert main([str(tmp_path)]) == 2
    assert 'None of the 2 stitches has a value of mIoU' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        (dict(record('S6', 1, 41.0)), "repeats the stitch 'S6'"),
        (dict(record('S5', -1, 41.0)), 'flops'),
        (dict(record('S5', 1, 41.0), family=None), 'family'),
    ],
)
def test_a_line_that_cannot_be_is_one_line_with_its_number(folder, capsys, line, message):
    with open(f'{folder}/stitches.jsonl', 'a') as file:
        file.write(json.dumps(line) + '\n')
    assert main([folder]) == 2
    error = capsys.readouterr().err
    assert 'stitches.jsonl, line 6, ' in error and message in error and error.count('\n') == 1


def test_the_table_of_tiny_models_tells_their_costs_apart(tmp_path, capsys):
    records = [record('S6', 0.0151, 40.0), record('S3-L6', 0.0154, 45.0)]
    assert main([str(write_results(tmp_path / 'tiny', records))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines[1:3]] == ['0.01510', '0.01540']
