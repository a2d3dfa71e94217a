"""Results and latency as they are read for choosing."""

from __future__ import annotations

import json
import math

import pytest

from mmsnnet.results.records import open_results
from mmsnnet.results.result_files import RECORDS_NAME, read_latency, read_results, value_of
from tests.results_folder import record, write_latency, write_results

RECORDS = [record('S6', 1, 40.0, 0, rmse=0.9), record('L12', 9, 50.0, 1, rmse=0.6)]


def test_what_a_sweep_writes_is_read(tmp_path):
    details = dict(test_loop=dict(metric='rmse', rule='less', metric_range=(1, 0)))
    folder = open_results(tmp_path, dict(config='x'), details=details)
    for one in RECORDS:
        folder.append(one)
    results = read_results(tmp_path)
    assert list(results.records) == RECORDS
    assert (results.metric, results.rule) == ('rmse', 'less')


@pytest.mark.parametrize(
    ('loop', 'asked', 'expected'),
    [
        ({}, {}, ('mIoU', 'greater')),
        ({}, dict(metric='rmse'), ('rmse', 'less')),
        ({}, dict(metric='rmse', rule='greater'), ('rmse', 'greater')),
        (dict(metric='mIoU', rule='less'), {}, ('mIoU', 'less')),
        (dict(metric='mIoU', rule='greater'), dict(metric='rmse'), ('rmse', 'less')),
        (dict(metric='rmse', rule='less'), dict(metric='mIoU'), ('mIoU', 'greater')),
        (dict(metric=None, rule='less'), {}, ('mIoU', 'less')),
    ],
)
def test_metric_and_rule_are_those_asked_for_then_those_of_the_run(
    tmp_path, loop, asked, expected
):
    results = read_results(write_results(tmp_path, RECORDS, loop), **asked)
    assert (results.metric, results.rule) == expected


def test_a_torn_last_line_is_left_out(tmp_path):
    write_results(tmp_path, RECORDS)
    with open(tmp_path / RECORDS_NAME, 'a') as file:
        file.write('{"id": 2, "na')
    assert list(read_results(tmp_path).records) == RECORDS


def test_a_missing_metric_is_nan():
    assert math.isnan(value_of(record('S6', 1, None), 'mIoU'))
    assert math.isnan(value_of(record('S6', 1, 3.0), 'other'))
    assert value_of(record('S6', 1, 3.0), 'mIoU') == 3.0


def test_latency_is_read_by_name(tmp_path):
    rows = {'S6': (1.5, 20.0), 'L12': (9.25, 80.0)}
    assert read_latency(write_latency(tmp_path / 'l.json', rows)) == rows


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='test_all_stitches'):
        read_results(tmp_path)
    with pytest.raises(FileNotFoundError, match='measure_latency'):
        read_latency(tmp_path / 'none.json')


@pytest.mark.parametrize('text', ['', '[]', '{"stitches": [{"name": "S6"}]}', '{"x": 1}'])
def test_another_file_is_no_latency(tmp_path, text):
    (tmp_path / 'l.json').write_text(text)
    with pytest.raises(ValueError, match='is not a measurement'):
        read_latency(tmp_path / 'l.json')


def test_damaged_and_empty_results_are_refused(tmp_path):
    write_results(tmp_path, [])
    with pytest.raises(ValueError, match='holds no results yet'):
        read_results(tmp_path)
    (tmp_path / RECORDS_NAME).write_text('{"id": 1}\n')
    with pytest.raises(ValueError, match='line 1, is not a record'):
        read_results(tmp_path)
    write_results(tmp_path, RECORDS)
    with pytest.raises(ValueError, match="no metric 'IoU'; it has mIoU, rmse"):
        read_results(tmp_path, 'IoU')
    with pytest.raises(ValueError, match="rule='more' is not possible"):
        read_results(tmp_path, rule='more')


def test_a_measurement_in_doubt_is_read_with_a_warning(tmp_path):
    path = write_latency(tmp_path / 'l.json', {'S6': (1.5, 20.0)})
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(content, reliable=False, doubts=['S6 spreads by 90%'])))
    with pytest.warns(UserWarning, match=r'l\.json is marked as not reliable \(S6 spreads by 90%'):
        assert read_latency(path) == {'S6': (1.5, 20.0)}
