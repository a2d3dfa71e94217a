"""The measurement of latency as a command, and its file in use."""

from __future__ import annotations

import json

import pytest
import torch

from mmsnnet.apis import init_model
from tests.segmentors import setr_head, tiny_stitched
from tools.measure_latency import main

CONFIG = """
custom_imports = dict(imports=['mmsnnet'], allow_failed_imports=False)
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder', backbone={backbone!r}, decode_head={head!r}, train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(64, 64)))
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp('config') / 'config.py'
    path.write_text(CONFIG.format(backbone=tiny_stitched(), head=setr_head(num_classes=4)))
    return str(path)


@pytest.fixture
def threads():
    """Threads of torch, put back afterwards."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_the_file_tells_every_stitch_and_where_it_was_measured(config, tmp_path, capsys, threads):
    out = tmp_path / 'new' / 'latency.json'
    calls = ['--out', str(out), '--size', '64', '128', '--rounds', '3', '--warmup', '1']
    assert main([config, *calls, '--direct', 'anchors', '--threads', '1', '--batch', '2']) == 0
    content = json.loads(out.read_text())
    setting = content['setting']
    assert setting['image_size'] == [64, 128] and setting['batch'] == 2
    assert (setting['device'], setting['dtype'], setting['threads']) == ('cpu', 'float32', 1)
    assert content['windows'] == 2 and content['rounds'] == 3
    rows = {row['name']: row for row in content['stitches']}
    assert list(rows) == ['S2', 'L4', 'S1-L2', 'L2-S1']
    assert all(0 < row['ms'] < 1e4 and row['mb'] > row['activations_mb'] for row in rows.values())
    assert [row['name'] for row in content['check']['stitches']] == ['S2', 'L4']
    assert content['check']['memory_error']['max'] < 0.01
    text = capsys.readouterr().out
    assert 'latency error: median' in text and text.splitlines()[-1] == str(out)

    model = init_model(config, latency=out)
    limit = rows['S1-L2']['mb']
    fitting = [name for name, row in rows.items() if row['mb'] <= limit]
    flops = {one.name: one.flops for one in model.chooser.candidates}
    assert model.set_budget(mb=limit).name == max(fitting, key=flops.get)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--batch', '0'], '--batch must be 1 or more, got 0'),
        (['--size', '1', '2', '3'], 'one or two numbers'),
        (['--direct', 'S9'], "Unknown stitch 'S9'"),
        (['none.pth'], 'no checkpoint none.pth'),
        (['--rounds', '0'], '--rounds must be 1 or more, got 0'),
        (['--warmup', '-1'], '--warmup must be 0 or more, got -1'),
        (['--max-seconds', 'nan'], '--max-seconds must be positive, got nan'),
        (['--size', '0'], 'size'),
        (['--size', '64', '-64'], 'size'),
        (['--device', 'gpu'], '--device must be cpu, cuda or cuda:N, got gpu'),
        (['--device', 'cuda:x'], '--device must be cpu, cuda or cuda:N, got cuda:x'),
    ],
)
def test_what_is_not_possible_is_one_line(config, capsys, arguments, message):
    assert main([config, *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1] and captured.out == ''


def test_a_device_that_is_not_there_is_named(config, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert main([config, '--device', 'cuda:2']) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert '--device cuda:2 is not there: this machine has 2 CUDA device(s)' in line


def test_a_measurement_in_doubt_is_marked_and_said_in_one_line(config, tmp_path, capsys):
    out = tmp_path / 'latency.json'
    arguments = ['--out', str(out), '--size', '32', '--rounds', '1', '--warmup', '0']
    assert main([config, *arguments, '--direct', '0']) == 0
    content = json.loads(out.read_text())
    assert content['reliable'] is False
    doubt = '1 round(s) show no spread, 3 are needed'
    assert doubt in content['doubts']
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if 'measure_latency: not reliable' in line]) == 1
    assert doubt in lines[-1]
