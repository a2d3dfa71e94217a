"""tools/plan_training.py."""

from __future__ import annotations

import json

import pytest

from mmsnnet import config_path
from tools import plan_training

ROOMS = str(config_path('upernet_snnetv2_rooms.py'))


def test_the_table_and_json_say_the_same_and_name_the_largest_batch(capsys):
    arguments = [ROOMS, '--stitches', 'S6,L12', '--batch-size', '2', '--memory', '1', '--gpus', '8']
    assert plan_training.main([*arguments, '--format', 'json']) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [row['name'] for row in plan['stitches']] == ['S6', 'L12']
    assert plan_training.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    for row in plan['stitches']:
        line = next(line.split() for line in lines if line.split()[:1] == [row['name']])
        assert line[2] == f'{row["device_bytes"] / 1e9:.3g}'
        assert line[-1] == str(row['largest_batch'])
    assert any('each of 8 processes sends' in line for line in lines)


def test_recomputing_blocks_and_frozen_anchors_take_less(capsys):
    arguments = [ROOMS, '--stitches', 'L12', '--batch-size', '8', '--variants', '--format', 'json']
    assert plan_training.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)['variants']
    peaks = {name: row['peak'] for name, row in found.items()}
    assert peaks['with_cp=True'] < peaks['as planned']
    assert peaks['anchors frozen'] < peaks['as planned']
    assert found['with mixed precision']['activations'] < found['as planned']['activations']


@pytest.mark.slow
def test_several_configs_make_a_table_of_one_row_each(capsys):
    other = str(config_path('cls_snnetv2_rooms.py'))
    assert plan_training.main([ROOMS, other, '--batch-size', '2', '--gpus', '8']) == 0
    header, rule, *rows = (line.split(' | ') for line in capsys.readouterr().out.splitlines())
    assert [row[0] for row in rows] == ['| `upernet_snnetv2_rooms`', '| `cls_snnetv2_rooms`']
    assert {len(header), *map(len, rows)} == {len(rule)}
    for row in rows:
        cheapest, middling, costliest, recomputed = map(float, row[2:6])
        assert 0 < cheapest <= middling <= costliest and recomputed <= costliest


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['nowhere.py'], 'nowhere.py'),
        ([ROOMS, '--stitches', 'S7'], 'S7'),
        ([ROOMS, ROOMS, '--format', 'json'], '--format json and --stitches take one config'),
        ([ROOMS, '--gpus', '0'], 'The number of GPUs must be 1 or more, got 0'),
        ([ROOMS, '--size', '1', '2', '3'], '--size takes one or two numbers'),
    ],
)
def test_what_cannot_be_planned_is_one_line(arguments, said, capsys):
    assert plan_training.main(arguments) == 2
    found = capsys.readouterr().err.splitlines()
    assert len([line for line in found if 'error' in line]) == 1
    assert said in found[-1]
