"""The list of stitches of a config."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmsnnet.evaluation.cost.model_cost import model_costs
from tests.segmentors import build_segmentor, head, multi_level_neck, tiny_stitched
from tools.list_stitches import main

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
custom_imports = dict(imports=['mmsnnet'{more}], allow_failed_imports=False)
model = dict(type='EncoderDecoder', backbone={backbone!r}, neck={neck!r}, decode_head={head!r})
"""


def write_config(folder, backbone=None, neck=None, decode_head=None, more=''):
    path = folder / 'config.py'
    parts = dict(
        backbone=backbone or tiny_stitched(),
        neck=neck or multi_level_neck(),
        head=decode_head or head('UPerHead', 32),
    )
    path.write_text(CONFIG.format(more=more, **parts), encoding='utf-8')
    return str(path)


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path)


@pytest.fixture(scope='module')
def model():
    return build_segmentor(head('UPerHead', 32), multi_level_neck())


def expected_rows(model, size):
    costs = model_costs(model, size)
    return [
        dict(
            id=stitch.id,
            name=stitch.name,
            family=stitch.family,
            flops=costs[stitch].flops,
            params=costs[stitch].params,
        )
        for stitch in model.backbone.space
    ]


def test_the_published_anchors_are_listed_in_full_as_pure_json(tmp_path):
    uper = head('UPerHead', 256, channels=256, num_classes=150)
    path = write_config(tmp_path, dict(type='StitchedViT'), multi_level_neck(1024, 256), uper)
    run = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / 'list_stitches.py'), path, '--format', 'json'],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = {row['name']: row for row in json.loads(run.stdout)}
    assert len(rows) == 134
    uper_flops, lift = 68_169_786_368, 1025 * 384 * 1024
    # The published ADE20K figures less their SETR head, and with the two lifts they leave out.
    assert rows['S12']['flops'] == 33_522_505_728 - 920_125_440 + 2 * lift + uper_flops
    assert rows['L24']['flops'] == 363_157_291_008 - 920_125_440 + uper_flops
    assert [row['id'] for row in rows.values()] == list(range(134))


def test_json_holds_a_row_a_stitch_with_the_costs_of_the_whole_model(config, model, capsys):
    assert main([config, '--format', 'json']) == 0
    assert json.loads(capsys.readouterr().out) == expected_rows(model, 64)


def test_csv_holds_the_same_as_json(config, model, capsys):
    assert main([config, '--format', 'csv']) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows == [{k: str(v) for k, v in row.items()} for row in expected_rows(model, 64)]


@pytest.mark.parametrize(('size', 'pixels'), [(['48', '80'], (48, 80)), (['96'], (96, 96))])
def test_size_sets_height_and_width(config, model, capsys, size, pixels):
    assert main([config, '--format', 'json', '--size', *size]) == 0
    assert json.loads(capsys.readouterr().out) == expected_rows(model, pixels)


def test_the_table_is_aligned_and_says_what_was_counted(config, model, capsys):
    assert main([config, '--size', '48', '80']) == 0
    header, first, *_, note = capsys.readouterr().out.splitlines()
    assert header.split() == ['id', 'name', 'family', 'GFLOPs', 'M', 'params']
    row = expected_rows(model, (48, 80))[0]
    gflops, params = f'{row["flops"] / 1e9:.5f}', f'{row["params"] / 1e6:.4f}'
    assert 0.01 < row['flops'] / 1e9 < 0.1 and first.split() == ['0', 'S2', 'S', gflops, params]
    assert len(first) == len(header)
    assert note.startswith('4 of 4 stitches, images of 48 x 80 pixels; of the whole model')


@pytest.mark.parametrize(
    ('choice', 'names'),
    [
        ('anchors', ['S2', 'L4']),
        ('L2-S1,S2', ['S2', 'L2-S1']),
        ('3, anchors, S2', ['S2', 'L4', 'L2-S1']),
    ],
)
def test_stitches_are_chosen_by_name_id_and_group(config, capsys, choice, names):
    assert main([config, '--format', 'json', '--stitches', choice]) == 0
    assert [row['name'] for row in json.loads(capsys.readouterr().out)] == names


def test_options_of_the_config_can_be_overridden(config, capsys):
    options = ['--cfg-options', 'model.backbone.scheme=one_way']
    assert main([config, '--format', 'json', *options]) == 0
    names = [row['name'] for row in json.loads(capsys.readouterr().out)]
    assert names == ['S2', 'L4', 'S1-L2']


def test_what_a_config_imports_and_prints_is_kept_out_of_the_rows(tmp_path, capsys, monkeypatch):
    (tmp_path / 'my_head.py').write_text(
        'from mmseg.models import UPerHead\n'
        'from mmsnnet.registry import MODELS\n'
        "print('loading my head')\n"
        "@MODELS.register_module(name='MyHead')\n"
        'class MyHead(UPerHead):\n'
        '    pass\n',
        encoding='utf-8',
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write_config(tmp_path, decode_head=head('MyHead', 32), more=", 'my_head'")
    assert main([path, '--format', 'json']) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)) == 4
    assert 'loading my head' in captured.err


def test_no_random_number_is_drawn(config, capsys):
    state = torch.get_rng_state()
    main([config])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--size', '0'], r'must be positive, got (0, 0)'),
        (['--size', '1', '2', '3'], 'one or two numbers, got 3'),
        (['--stitches', 'S1-L3'], "Unknown stitch 'S1-L3'"),
        (['--stitches', '99'], 'Unknown stitch id 99'),
        (['--cfg-options', 'model.neck.in_channels=8,8,8,8'], 'put [64, 64, 64, 64]'),
        (['--cfg-options', 'model.backbone.out_indices=9'], 'blocks 0 to 3'),
        (['--cfg-options', 'model.backbone.type=ResNet', 'model.backbone._delete_=True'], 'ResNet'),
        (['--cfg-options', 'model.decode_head.type=NoHead'], 'NoHead'),
    ],
)
def test_a_mistake_is_one_clear_line(config, capsys, arguments, message):
    assert main([config, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    last = captured.err.splitlines()[-1]
    assert last.startswith('list_stitches: error: ')
    assert message in last


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'There is no config'),
        ('x = 1', 'has no model'),
        ("model = dict(type='FCNHead'", 'was never closed'),
        ("custom_imports = dict(imports=['no_such_module'])\nmodel = dict()", 'no_such_module'),
        ("model = dict(type='UPerHead', in_channels=[8], in_index=[0], channels=8, "
         "num_classes=2)", 'UPerHead has 0 StitchedViT'),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_used_is_one_clear_line(tmp_path, capsys, text, message):
    path = tmp_path / 'config.py'
    if text is not None:
        path.write_text(text, encoding='utf-8')
    assert main([str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    last = captured.err.splitlines()[-1]
    assert last.startswith('list_stitches: error: ')
    assert message in last


def test_a_size_that_is_no_number_is_refused_by_the_command_line(config, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([config, '--size', 'big'])
    assert exit_.value.code == 2
    assert "list_stitches: error: argument --size: invalid int value: 'big'" in (
        capsys.readouterr().err
    )
