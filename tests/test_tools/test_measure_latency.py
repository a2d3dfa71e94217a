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
    ],
)
def test_what_is_not_possible_is_one_line(config, capsys, arguments, message):
    assert main([config, *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1] and captured.out == ''
