"""The command that converts published checkpoints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.test_convert.segmentor import build_model, published_segmentor, segmentor_config
from tools.convert_snnetv2 import main

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
custom_imports = dict(imports=['mmsnnet'], allow_failed_imports=False)
model = {model!r}
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with a config and a published checkpoint as MMEngine writes it."""
    (tmp_path / 'config.py').write_text(CONFIG.format(model=segmentor_config()), encoding='utf-8')
    meta = dict(iter=160000, dataset_meta=dict(classes=('wall', 'floor')), cfg='model = 1')
    content = dict(meta=meta, state_dict=published_segmentor(), optimizer=dict(state={}))
    torch.save(content, tmp_path / 'in.pth')
    return tmp_path


def run(folder, *more, source='in.pth', target='out.pth', config='config.py'):
    files = [str(folder / name) for name in (source, target, config)]
    return main([*files[:2], '--config', files[2], *more])


def refused(folder, capsys, *more, **names):
    """The one line on standard error of a run that must fail without a trace."""
    before = sorted(os.listdir(folder))
    assert run(folder, *more, **names) == 2
    assert sorted(os.listdir(folder)) == before
    output = capsys.readouterr()
    assert not output.out
    lines = output.err.strip().splitlines()
    assert lines[-1].startswith('convert_snnetv2: error: ')
    assert not any('Traceback' in line for line in lines)
    return lines[-1]


def test_a_converted_checkpoint_loads_strictly_and_says_that_it_is_fitted(folder, capsys):
    assert run(folder) == 0
    content = torch.load(folder / 'out.pth', weights_only=True)
    model = build_model(stitch='S1-L4')
    model.load_state_dict(content['state_dict'])
    assert model.backbone.is_fitted
    assert content.keys() == {'meta', 'state_dict'}
    assert content['meta'] == dict(iter=160000, dataset_meta=dict(classes=('wall', 'floor')))
    assert f'wrote {len(content["state_dict"])} weights' in capsys.readouterr().out


def test_the_way_back_gives_the_published_names(folder):
    assert run(folder) == 0
    assert run(folder, '--reverse', source='out.pth', target='back.pth') == 0
    back = torch.load(folder / 'back.pth', weights_only=True)['state_dict']
    given = torch.load(folder / 'in.pth', weights_only=True)['state_dict']
    assert back.keys() == given.keys()
    key = 'backbone.anchors.1.layers.5.ffn.layers.1.weight'
    assert torch.equal(back[key], given[key])


def test_what_was_left_out_is_told(folder, capsys):
    content = torch.load(folder / 'in.pth', weights_only=True)
    content['state_dict']['backbone.extra'] = torch.zeros(1)
    torch.save(content, folder / 'in.pth')
    assert 'backbone.extra has no place' in refused(folder, capsys)
    assert run(folder, '--allow', 'backbone.ex*') == 0
    assert 'left out: backbone.extra' in capsys.readouterr().out


def test_a_merged_checkpoint_is_converted_otherwise(folder):
    assert run(folder) == 0 and run(folder, '--lora-merged', target='unmerged.pth') == 0
    states = [torch.load(folder / name)['state_dict'] for name in ('out.pth', 'unmerged.pth')]
    different = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
    assert different == {
        f'backbone.stitch_layers.{name}.weight'
        for name in ('S1_to_L2', 'S2_to_L4', 'S3_to_L6', 'L2_to_S1', 'L4_to_S2')
    }


def test_options_of_the_config_are_taken(folder, capsys):
    text = refused(folder, capsys, '--cfg-options', 'model.backbone.lora_rank=8')
    assert 'where the config has (8, 32)' in text


def test_a_truncated_file_is_refused(folder, capsys):
    whole = (folder / 'in.pth').read_bytes()
    (folder / 'in.pth').write_bytes(whole[: len(whole) // 2])
    assert 'in.pth cannot be read: ' in refused(folder, capsys)


@pytest.mark.parametrize(
    ('more', 'names', 'problem'),
    [
        ((), dict(source='nowhere.pth'), 'There is no checkpoint'),
        ((), dict(config='nowhere.py'), 'There is no config'),
        ((), dict(target='deep/out.pth'), 'There is no folder'),
        ((), dict(target='in.pth'), 'OUT is IN'),
        (('--reverse',), {}, 'not of this StitchedViT'),
        (('--reverse', '--lora-merged'), {}, 'leave it out with --reverse'),
        (('--cfg-options', 'model.backbone.type=ResNet'), {}, 'ResNet'),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line_and_nothing_is_written(
    folder, capsys, more, names, problem
):
    assert problem in refused(folder, capsys, *more, **names)


@pytest.mark.slow
def test_it_runs_as_a_command(folder):
    command = [sys.executable, ROOT / 'tools/convert_snnetv2.py', 'in.pth', 'out.pth']
    done = subprocess.run(
        [*command, '--config', 'config.py'], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('wrote ') and (folder / 'out.pth').is_file()
