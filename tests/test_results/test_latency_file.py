"""The file of measured costs."""

from __future__ import annotations

import json

import pytest

from mmsnnet.results import latency_file
from mmsnnet.results.latency_file import read_latency
from tests.results_folder import write_latency


def test_latency_is_read_by_name(tmp_path):
    rows = {'S6': (1.5, 20.0), 'L12': (9.25, 80.0)}
    assert read_latency(write_latency(tmp_path / 'l.json', rows)) == rows


def test_what_is_written_is_read(tmp_path):
    rows = [dict(name='S6', ms=1.5, mb=2, spread_ms=0.1), dict(name='L12', ms=3, mb=4.0)]
    path = latency_file.write_latency(tmp_path / 'new' / 'l.json', dict(stitches=rows, rounds=3))
    assert read_latency(path) == {'S6': (1.5, 2.0), 'L12': (3.0, 4.0)}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='measure_latency'):
        read_latency(tmp_path / 'none.json')


ROW = '{"name": "S6", "ms": 1, "mb": 1}'


@pytest.mark.parametrize(
    'text',
    [
        '',
        '[]',
        '{"x": 1}',
        '{"stitches": 3}',
        '{"stitches": [{"name": "S6"}]}',
        '{"stitches": [{"name": "S6", "ms": -1, "mb": 1}]}',
        '{"stitches": [{"name": "S6", "ms": NaN, "mb": 1}]}',
        '{"stitches": [{"name": "S6", "ms": 1e999, "mb": 1}]}',
        '{"stitches": [{"name": "S6", "ms": "1", "mb": 1}]}',
        '{"stitches": [{"name": "S6", "ms": 1, "mb": true}]}',
        '{"stitches": [{"name": 6, "ms": 1, "mb": 1}]}',
        f'{{"stitches": [{ROW}, {ROW}]}}',
        '[' * 10**5,
        '{"stitches": [{"name": "S6", "ms": %s, "mb": 1}]}' % ('9' * 400),
    ],
)  # fmt: skip
def test_another_file_is_no_latency(tmp_path, text):
    (tmp_path / 'l.json').write_text(text)
    with pytest.raises(ValueError, match=r'l\.json is not a meas.*; measure again') as error:
        read_latency(tmp_path / 'l.json')
    assert '\n' not in str(error.value) and len(str(error.value)) < 300


def test_a_measurement_in_doubt_is_read_with_a_warning(tmp_path):
    path = write_latency(tmp_path / 'l.json', {'S6': (1.5, 20.0)})
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(content, reliable=False, doubts=['S6 spreads by 90%'])))
    with pytest.warns(UserWarning, match=r'l\.json is marked as not reliable \(S6 spreads by 90%'):
        assert read_latency(path) == {'S6': (1.5, 20.0)}
