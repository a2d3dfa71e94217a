"""Results folders: what comes back, what is refused, and what a torn file costs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmsnnet.results.fingerprint import ABSENT
from mmsnnet.results.records import RECORD_KEYS, read_records
from mmsnnet.results.results_folder import open_results, read_results

RUN = {'config': 'c0ffee', 'checkpoint': 'deadbeef', 'data': {'split': 'val', 'images': 20}}


def make_record(number, **changed):
    record = {
        'id': number, 'name': f'S{number}', 'family': 'S', 'flops': 10**12 + number,
        'params': 7 * number, 'metrics': {'mIoU': 0.1 + number, 'aAcc': 1 / 3},
    }  # fmt: skip
    return {**record, **changed}


def start(folder, count):
    results = open_results(folder, RUN)
    for number in range(count):
        results.append(make_record(number))
    return results


def lines_of(folder):
    return (Path(folder) / 'stitches.jsonl').read_bytes().splitlines(keepends=True)


def test_records_come_back_as_they_went_in(tmp_path):
    results = start(tmp_path / 'a' / 'b', 3)
    expected = [make_record(number) for number in range(3)]
    assert results.records == expected == read_records(tmp_path / 'a' / 'b')
    assert open_results(tmp_path / 'a' / 'b', RUN).records == expected


def test_a_line_has_the_agreed_keys_in_the_agreed_order(tmp_path):
    shuffled = dict(reversed(make_record(1).items()))
    open_results(tmp_path, RUN).append(shuffled)
    assert tuple(json.loads(lines_of(tmp_path)[0])) == RECORD_KEYS


def test_a_folder_knows_which_stitches_are_done(tmp_path):
    results = start(tmp_path, 2)
    assert ('S1' in results, 'S2' in results, len(results)) == (True, False, 2)


def test_a_line_is_on_the_file_before_append_returns(tmp_path):
    results = open_results(tmp_path, RUN)
    for number in range(4):
        results.append(make_record(number))
        assert len(read_records(tmp_path)) == number + 1


def test_metrics_that_are_not_finite_become_null_in_valid_json(tmp_path):
    metrics = {'a': float('nan'), 'b': float('inf'), 'c': np.float32('-inf'), 'd': None, 'e': 2}
    written = open_results(tmp_path, RUN).append(make_record(1, metrics=metrics))

    def refuse(constant):
        raise AssertionError(f'{constant} is not JSON')

    parsed = json.loads(lines_of(tmp_path)[0], parse_constant=refuse)
    expected = {'a': None, 'b': None, 'c': None, 'd': None, 'e': 2.0}
    assert parsed['metrics'] == written['metrics'] == expected
    assert read_records(tmp_path)[0]['metrics'] == expected


def test_numpy_scalars_become_plain_numbers(tmp_path):
    metrics = {'f': np.float32(45.2), 'd': np.float64(0.1), 'i': np.int64(3), 'z': np.array(0.25)}
    record = make_record(np.int64(5), flops=np.int64(10**13), params=np.int32(4), metrics=metrics)
    written = open_results(tmp_path, RUN).append(record)
    assert written['metrics'] == {'f': 45.2, 'd': 0.1, 'i': 3.0, 'z': 0.25}
    assert {type(v) for v in written['metrics'].values()} == {float}
    assert (written['id'], written['flops'], written['params']) == (5, 10**13, 4)
    assert read_records(tmp_path) == [written]


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'metrics': {'mIoU': '0.5'}}, "'mIoU'.* number, got '0.5'|'0.5' of type str"),
        ({'metrics': {'mIoU': np.zeros(2)}}, 'size 1|number'),
        ({'metrics': [1]}, r"metrics of 'S1' must be a dict of numbers, got \[1\]"),
        ({'flops': 1.5}, "flops of 'S1' must be an integer, got 1.5"),
        ({'name': 3}, 'name of a record must be a text, got 3'),
        ({'latency': 3}, 'has the keys .* got .*latency'),
        ({'flops': -1}, "flops of 'S1' must be from 0"),
        ({'flops': True}, "flops of 'S1' must be an integer, got True"),
        ({'family': 'S-L'}, "'S1' is not the name of a stitch of the family 'S-L'"),
    ],
)
def test_a_malformed_record_is_refused_and_nothing_written(tmp_path, changed, message):
    results = start(tmp_path, 1)
    with pytest.raises((TypeError, ValueError), match=message):
        results.append(make_record(1, **changed))
    assert len(lines_of(tmp_path)) == 1


def test_a_second_record_of_a_stitch_is_refused(tmp_path):
    with pytest.raises(ValueError, match="record of 'S1' already"):
        start(tmp_path, 2).append(make_record(1))
    assert len(lines_of(tmp_path)) == 2


@pytest.mark.parametrize('kept', [0, 1, 25, -3, -2])
def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_append(tmp_path, kept):
    start(tmp_path, 3)
    *whole, last = lines_of(tmp_path)
    (tmp_path / 'stitches.jsonl').write_bytes(b''.join(whole) + last[:kept])
    size = (tmp_path / 'stitches.jsonl').stat().st_size

    results = open_results(tmp_path, RUN)
    assert [r['name'] for r in results.records] == ['S0', 'S1']
    assert len(read_records(tmp_path)) == 2
    assert (tmp_path / 'stitches.jsonl').stat().st_size == size  # reading changes nothing

    results.append(make_record(2))
    assert lines_of(tmp_path) == [*whole, last]
    results.append(make_record(3))
    assert [r['id'] for r in read_records(tmp_path)] == [0, 1, 2, 3]


def test_a_whole_last_line_that_lacks_its_newline_is_a_record(tmp_path):
    start(tmp_path, 3)
    path = tmp_path / 'stitches.jsonl'
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    results = open_results(tmp_path, RUN)
    expected = [make_record(number) for number in range(3)]
    assert results.records == read_records(tmp_path) == expected
    results.append(make_record(3))
    assert path.read_bytes().startswith(content)
    assert read_records(tmp_path) == [*expected, make_record(3)]


#: What a record may not say, as text of JSON, and what is said of it.
DAMAGES = {
    'a negative cost': ({'flops': '-1'}, 'flops .* from 0'),
    'NaN as cost': ({'flops': 'NaN'}, 'NaN is not a number'),
    'a cost of 400 digits': ({'flops': '9' * 400}, 'is too large'),
    'a cost of 5000 digits': ({'flops': '9' * 5000}, 'is too large'),
    'true as cost': ({'params': 'true'}, 'integer, got True'),
    'NaN as metric': ({'metrics': '{"mIoU": NaN}'}, 'NaN is not a number'),
    'a metric beyond floats': ({'metrics': '{"mIoU": 1e999}'}, 'too large'),
    'a metric of 400 digits': ({'metrics': '{"mIoU": %s}' % ('1' * 400)}, 'too large'),
    'true as metric': ({'metrics': '{"mIoU": true}'}, 'number, got True'),
    'a metric twice': ({'metrics': '{"a": 1, "a": 2}'}, "the key 'a' twice"),
    'no family': ({'family': 'null'}, 'family .* text, got None'),
    'the family of another': ({'family': '"S-L"'}, "not the name .* family 'S-L'"),
    'a negative id': ({'id': '-1'}, 'id of .* from 0'),
    'brackets without end': ({'metrics': '[' * 10**5 + ']' * 10**5}, 'too deeply|number'),
}


@pytest.mark.parametrize('last', [True, False])
@pytest.mark.parametrize('damage', DAMAGES)
def test_a_record_that_cannot_be_is_refused_by_line_wherever_it_is_read(tmp_path, damage, last):
    changed, reason = DAMAGES[damage]
    start(tmp_path, 1)
    texts = {key: json.dumps(value) for key, value in make_record(1).items()} | changed
    line = '{' + ', '.join(f'"{key}": {text}' for key, text in texts.items()) + '}'
    with open(tmp_path / 'stitches.jsonl', 'a') as file:
        # Without a newline a line must end like others to be told from a torn one.
        file.write(line if last and len(line) < 4000 else line + '\n')
    for call in (
        lambda: open_results(tmp_path, RUN),
        lambda: read_records(tmp_path),
        lambda: read_results(tmp_path),
    ):
        with pytest.raises(ValueError, match=f'stitches.jsonl, line 2, .*({reason})') as error:
            call()
        assert '\n' not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize('damage', [b'{"id": 1, "na\n', b'\n', b'[]\n', b'{"id": 1}\n', b'\xff\n'])
def test_a_corrupt_line_in_the_middle_is_refused_by_number(tmp_path, damage):
    start(tmp_path, 3)
    first, _, last = lines_of(tmp_path)
    (tmp_path / 'stitches.jsonl').write_bytes(first + damage + last)
    for call in (lambda: open_results(tmp_path, RUN), lambda: read_records(tmp_path)):
        with pytest.raises(ValueError, match=r'stitches.jsonl, line 2, is not .* --overwrite'):
            call()


def test_a_repeated_line_is_refused_by_number_and_name(tmp_path):
    start(tmp_path, 2)
    first, second = lines_of(tmp_path)
    (tmp_path / 'stitches.jsonl').write_bytes(first + second + first)
    with pytest.raises(ValueError, match=r"line 3, repeats the stitch 'S0'.* --overwrite"):
        open_results(tmp_path, RUN)


def test_two_writers_at_once_are_noticed_before_harm_is_done(tmp_path):
    one, other = open_results(tmp_path, RUN), open_results(tmp_path, RUN)
    one.append(make_record(0))
    with pytest.raises(ValueError, match='changed by another process'):
        other.append(make_record(1))
    assert read_records(tmp_path) == [make_record(0)]


def test_results_of_another_run_are_refused_with_each_difference(tmp_path):
    start(tmp_path, 1)
    other = {'checkpoint': 'beef', 'data': {'split': 'val', 'images': 30}, 'config': 'c0ffee'}
    with pytest.raises(ValueError) as error:
        open_results(tmp_path, {**other, 'code': '1.0'})
    text = str(error.value)
    assert 'checkpoint: deadbeef there, beef now' in text
    assert 'data.images: 20 there, 30 now' in text
    assert f'code: {ABSENT} there, 1.0 now' in text
    assert '--overwrite' in text
    assert 'c0ffee' not in text and 'val' not in text and '\n' not in text


def test_details_are_stored_for_readers_and_not_compared(tmp_path):
    open_results(tmp_path, RUN, details={'config_path': 'a.py'})
    open_results(tmp_path, RUN, details={'config_path': 'b.py'})
    stored = json.loads((tmp_path / 'run.json').read_text())
    assert stored == {'fingerprint': RUN, 'details': {'config_path': 'a.py'}}


def test_values_that_json_stores_otherwise_still_compare_equal(tmp_path):
    run = {'size': (512, 512), 'seed': np.int64(3), 'config': tmp_path / 'x.py'}
    open_results(tmp_path, run)
    assert len(open_results(tmp_path, run)) == 0


def test_overwrite_discards_records_fingerprint_and_report(tmp_path):
    start(tmp_path, 2)
    (tmp_path / 'pareto.csv').write_text('old')
    (tmp_path / 'notes.txt').write_text('mine')
    results = open_results(tmp_path, {'config': 'new'}, overwrite=True)
    assert len(results) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ['notes.txt', 'run.json']
    assert len(open_results(tmp_path, {'config': 'new'})) == 0


def test_records_without_a_run_description_are_refused(tmp_path):
    start(tmp_path, 1)
    (tmp_path / 'run.json').unlink()
    with pytest.raises(ValueError, match=r'no run.json.* --overwrite'):
        open_results(tmp_path, RUN)


@pytest.mark.parametrize('content', ['', '{"fingerprint"', '[]', '{}'])
def test_a_damaged_run_description_is_refused(tmp_path, content):
    (tmp_path / 'run.json').write_text(content)
    with pytest.raises(ValueError, match=r'run.json is not the description.* --overwrite'):
        open_results(tmp_path, RUN)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / 'out').write_text('')
    with pytest.raises(ValueError, match='out is a file'):
        open_results(tmp_path / 'out', RUN)


def test_reading_a_folder_without_results_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match='no results of a sweep'):
        read_records(tmp_path)
