"""Report files and table against the records they were made from."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import subprocess
import sys

import pytest

from mmsnnet.evaluation.report.pareto_report import (
    Volume,
    is_anchor,
    print_table,
    summarise,
    to_csv,
    to_points,
    write_report,
)


def make_records(count=40, seed=4):
    """Two anchors and random stitches; rmse is missing for number 5 and null for number 6."""
    rng = random.Random(seed)
    records = []
    for i in range(count):
        name = ['S12', 'L24'][i] if i < 2 else f'S{i}-L{count - i}'
        flops = [int(30e9), int(400e9)][i] if i < 2 else rng.randrange(int(60e9), int(390e9))
        metrics = {'mIoU': rng.uniform(30, 50), 'rmse': rng.uniform(0.3, 0.9)}
        if i == 5:
            del metrics['rmse']
        if i == 6:
            metrics['rmse'] = None
        family = name[0] if i < 2 else 'S-L'
        records.append(
            dict(id=i, name=name, family=family, flops=flops, params=10**8 + i, metrics=metrics)
        )
    rng.shuffle(records)
    return records


def brute_front(records, metric, sign):
    """Names of the front by pairwise comparison, from cheap to costly."""
    usable = [r for r in records if r['metrics'].get(metric) is not None]
    kept = [
        r
        for r in usable
        if not any(
            q['flops'] <= r['flops'] and sign * q['metrics'][metric] > sign * r['metrics'][metric]
            for q in usable
        )
    ]
    return [r['name'] for r in sorted(kept, key=lambda r: r['flops'])]


BOTH = pytest.mark.parametrize(
    ('metric', 'direction', 'sign'), [('mIoU', 'greater', 1), ('rmse', 'less', -1)]
)


@BOTH
def test_the_json_lists_the_front_with_its_figures(tmp_path, metric, direction, sign):
    records = make_records()
    path = write_report(records, metric, tmp_path, direction)['json']
    summary = json.loads(path.read_text())
    assert [row['name'] for row in summary['front']] == brute_front(records, metric, sign)
    by_name = {record['name']: record for record in records}
    for row in summary['front'] + summary['anchors']:
        record = by_name[row.pop('name')]
        assert row.pop('value') == record['metrics'][metric]
        assert row == {key: record[key] for key in ('id', 'family', 'flops', 'params')}
    assert (summary['metric'], summary['direction']) == (metric, direction)


def test_the_json_counts_stitches(tmp_path):
    records = make_records()
    summary = summarise(records, 'rmse', 'less')
    front = len(summary['front'])
    assert (summary['num_stitches'], summary['num_without_metric']) == (40, 2)
    assert summary['num_dominated'] == 40 - front
    assert [row['name'] for row in summary['anchors']] == ['S12', 'L24']


def test_the_hypervolume_is_measured_against_the_given_bounds():
    pairs = [(20, 40), (50, 60), (100, 90)]
    records = [
        dict(id=i, name=f'S{i}', family='S', flops=c, params=1, metrics={'m': q})
        for i, (c, q) in enumerate(pairs)
    ]
    assert summarise(records, 'm')['hypervolume'] is None
    summary = summarise(records, 'm', volume=Volume(max_cost=100, worst=0, best=100))
    assert summary['hypervolume'] == pytest.approx(0.3 * 0.4 + 0.5 * 0.6)


def test_bounds_against_the_direction_are_refused():
    with pytest.raises(ValueError, match="direction 'less' contradicts worst=0 and best=100"):
        summarise(make_records(), 'mIoU', 'less', Volume(4e11, 0, 100))


@BOTH
def test_the_csv_holds_every_stitch_and_marks_the_front(tmp_path, metric, direction, sign):
    records = make_records()
    path = write_report(records, metric, tmp_path, direction)['csv']
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 40 and [int(row['flops']) for row in rows] == sorted(
        record['flops'] for record in records
    )
    marked = [row['name'] for row in rows if row['on_front'] == 'true']
    assert marked == brute_front(records, metric, sign)
    assert {row['on_front'] for row in rows} == {'true', 'false'}


def test_the_csv_keeps_every_digit_and_leaves_missing_metrics_empty():
    records = make_records()
    rows = {row['name']: row for row in csv.DictReader(io.StringIO(to_csv(records, 'mIoU')))}
    for record in records:
        row = rows[record['name']]
        assert float(row['mIoU']) == record['metrics']['mIoU']
        rmse = record['metrics'].get('rmse')
        assert row['rmse'] == ('' if rmse is None else repr(rmse))
        assert (int(row['id']), int(row['params'])) == (record['id'], record['params'])


@pytest.mark.parametrize('value', [math.nan, math.inf, None])
def test_a_value_that_is_not_finite_never_reaches_front_or_files(tmp_path, value):
    records = make_records()
    cheapest = min(records, key=lambda record: record['flops'])
    cheapest['metrics']['mIoU'] = value
    paths = write_report(records, 'mIoU', tmp_path)
    summary = json.loads(paths['json'].read_text(), parse_constant=pytest.fail)
    assert cheapest['name'] not in [row['name'] for row in summary['front']]
    assert summary['anchors'][0]['value'] is None
    assert 'nan' not in paths['csv'].read_text() and 'inf' not in paths['csv'].read_text()


def test_points_keep_the_order_of_the_records():
    records = make_records()
    points = to_points(records, 'mIoU')
    assert [(p.name, p.cost, p.quality) for p in points] == [
        (r['name'], r['flops'], r['metrics']['mIoU']) for r in records
    ]


def test_an_unknown_metric_is_named_with_the_closest_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"the metric 'miou'; there are 2, such as mIoU"):
        write_report(make_records(), 'miou', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_no_records_are_refused(tmp_path):
    with pytest.raises(ValueError, match='no records to report'):
        write_report([], 'mIoU', tmp_path)


def test_an_unknown_direction_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'greater' or 'less', got 'up'"):
        write_report(make_records(), 'mIoU', tmp_path, 'up')


def test_former_reports_are_replaced_and_no_litter_stays(tmp_path):
    write_report(make_records(seed=1), 'mIoU', tmp_path)
    paths = write_report(make_records(seed=2), 'mIoU', tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(paths.values())
    assert json.loads(paths['json'].read_text()) == summarise(make_records(seed=2), 'mIoU')


def table_rows(text):
    """Cells of the body of a plain table."""
    lines = [line for line in text.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[1:]]


@BOTH
def test_the_table_shows_front_and_anchors_from_cheap_to_costly(metric, direction, sign):
    records, text = make_records(), io.StringIO()
    print_table(records, metric, direction, file=text)
    front = brute_front(records, metric, sign)
    shown = [r for r in records if r['name'] in front or is_anchor(r)]
    rows = table_rows(text.getvalue())
    assert [row[1] for row in rows] == [r['name'] for r in sorted(shown, key=lambda r: r['flops'])]
    assert [row[1] for row in rows if row[-1] == '*'] == front
    assert f'{len(front)} of 40 stitches' in text.getvalue()


def test_the_table_of_all_has_the_values_of_every_record():
    records, text = make_records(), io.StringIO()
    print_table(records, 'rmse', 'less', rows='all', file=text)
    by_name = {row[1]: row for row in table_rows(text.getvalue())}
    assert len(by_name) == 40
    for record in records:
        number, _, family, gflops, params, value, _ = by_name[record['name']]
        assert (int(number), family) == (record['id'], record['family'])
        assert float(gflops) == pytest.approx(record['flops'] / 1e9, abs=0.05)
        assert float(params) == pytest.approx(record['params'] / 1e6, abs=0.05)
        expected = record['metrics'].get('rmse')
        assert value == '-' if expected is None else abs(float(value) - expected) <= 5e-5


def test_the_table_of_tiny_models_still_tells_their_costs_apart():
    records = make_records()
    for record in records:
        record['flops'] //= 10_000
    text = io.StringIO()
    print_table(records, 'mIoU', rows='all', file=text)
    assert len({row[3] for row in table_rows(text.getvalue())}) >= 38


def test_the_table_is_plain_ascii_off_a_terminal_and_takes_brackets_literally():
    records, text = make_records(), io.StringIO()
    for record in records:
        record['metrics']['[bold]mIoU'] = record['metrics'].pop('mIoU')
    print_table(records, '[bold]mIoU', file=text)
    assert text.getvalue().isascii() and '\x1b' not in text.getvalue()
    assert '[bold]mIoU' in text.getvalue()


def test_an_unknown_choice_of_rows_is_refused():
    with pytest.raises(ValueError, match="'front' or 'all', got 'some'"):
        print_table(make_records(), 'mIoU', rows='some')


def test_matplotlib_and_rich_are_not_imported_before_they_are_needed():
    code = (
        'import sys, types\n'
        'for name in ("mmsnnet", "mmsnnet.evaluation"):\n'
        '    sys.modules[name] = types.ModuleType(name)\n'
        '    sys.modules[name].__path__ = [name.replace(".", "/")]\n'
        'import mmsnnet.evaluation.report.pareto_report\n'
        'print([m for m in ("matplotlib", "rich", "torch", "numpy") if m in sys.modules])\n'
    )
    import mmsnnet.evaluation.report.pareto_report as module

    root = module.__file__.rsplit('mmsnnet', 1)[0]
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == '[]'
