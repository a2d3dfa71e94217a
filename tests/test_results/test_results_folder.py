"""Results as they are read for choosing."""

from __future__ import annotations

import json
import math

import pytest

from mmsnnet.results.records import RECORDS_NAME, metric_value
from mmsnnet.results.results_folder import open_results, read_results
from tests.results_folder import record, write_results

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
    assert math.isnan(metric_value(record('S6', 1, None), 'mIoU'))
    assert math.isnan(metric_value(record('S6', 1, 3.0), 'other'))
    assert metric_value(record('S6', 1, 3.0), 'mIoU') == 3.0


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='test_all_stitches'):
        read_results(tmp_path)


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


@pytest.mark.parametrize('text', ['', '{"fingerprint"', '[]', '{"fingerprint": 1}', '[' * 10**5])
def test_a_damaged_description_of_the_run_is_refused(tmp_path, text):
    (write_results(tmp_path, RECORDS) / 'run.json').write_text(text)
    with pytest.raises(ValueError, match=r'run\.json is not the description of a run'):
        read_results(tmp_path)


def test_records_alone_are_read(tmp_path):
    (write_results(tmp_path, RECORDS) / 'run.json').unlink()
    assert read_results(tmp_path).metric == 'mIoU'


SPACE = dict(labels=['S', 'L'], depths=[6, 12], scheme=dict(max_crossings=1, directions='up'))


def with_space(folder, records, space):
    write_results(folder, records)
    run = dict(fingerprint={}, details=dict(space=space))
    (folder / 'run.json').write_text(json.dumps(run))
    return folder


def test_records_of_the_space_of_the_run_are_read_and_continued(tmp_path):
    records = [*RECORDS, record('S3-L6', 5, 1.0, 4)]
    assert len(read_results(with_space(tmp_path, records, SPACE)).records) == 3
    assert len(open_results(tmp_path, {})) == 3


@pytest.mark.parametrize(
    'foreign', [('S7', 0), ('L3-S4', 9), ('S3-L7', 4), ('S3-L6', 5), ('M6', 0)]
)
def test_a_stitch_that_the_run_has_not_is_refused(tmp_path, foreign):
    name, number = foreign
    folder = with_space(tmp_path, [RECORDS[1], record(name, 5, 1.0, number)], SPACE)
    for read in (read_results, lambda folder: open_results(folder, {})):
        with pytest.raises(ValueError, match=f'line 2, is of the stitch .{name}. with id'):
            read(folder)


@pytest.mark.parametrize('space', [1, {}, {**SPACE, 'depths': ['a', 2]}, {**SPACE, 'scheme': 'x'}])
def test_a_description_of_no_space_is_refused(tmp_path, space):
    with pytest.raises(ValueError, match=r'run\.json describes no space'):
        read_results(with_space(tmp_path, RECORDS, space))
