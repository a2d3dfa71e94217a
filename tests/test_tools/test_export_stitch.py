"""The export of stitches as a command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rooms import RoomsSpec, write_rooms

from mmsnnet.deploy import load
from mmsnnet.models import find_stitched_backbone
from tests import toy_segmentation
from tests.builders import random_images
from tests.test_deploy.models import (
    SIZE,
    depth_config,
    depth_rooms_config,
    save_checkpoint,
    segmentation_config,
    setr_config,
    trained,
)
from tools.export_stitch import main


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Config and weights of a segmentor with SETR's head."""
    config = setr_config()
    return save_checkpoint(trained(config), config, tmp_path_factory.mktemp('checkpoint'))


def lines_of(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_a_stitch_becomes_a_folder_that_says_what_it_is(
    checkpoint: tuple, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / 'new' / 'S1-L2'
    assert main([*checkpoint, '--stitch', 'S1-L2', '--out', str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {'config.py', 'model.safetensors',
                                                     'stitch.json'}
    said = json.loads((out / 'stitch.json').read_text())
    assert [one['name'] for one in said['stitches']] == ['S1-L2']
    assert said['checks']['agreement']['relative'] <= 1e-5
    assert said['source']['checkpoint'] == 'weights.pth'
    model = load(out)
    assert model.backbone.stitch.name == 'S1-L2'
    params = sum(one.numel() for one in model.parameters())
    assert said['stitches'][0]['params'] == params
    assert f'{params / 1e6:.4g} M parameters' in capsys.readouterr().out


def test_a_budget_takes_the_best_stitch_within_it(checkpoint: tuple, tmp_path: Path) -> None:
    config = setr_config()
    costs = find_stitched_backbone(trained(config)).costs
    assert main([*checkpoint, '--gflops', '1e6', '--out', str(tmp_path / 'out')]) == 0
    costliest = max(costs.flops, key=costs.flops.get)
    assert load(tmp_path / 'out').backbone.stitch.name == costliest


def test_the_checkpoint_may_be_of_mmengines_format(checkpoint: tuple, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    assert main([*checkpoint, '--stitch', 'S2', '--out', str(out), '--format', 'mmengine']) == 0
    content = torch.load(out / 'model.pth', weights_only=True)
    assert tuple(content['meta']['dataset_meta']['classes']) == toy_segmentation.CLASSES
    assert load(out).backbone.stitch.name == 'S2'


def with_existing(folder: Path) -> None:
    (folder / 'out').mkdir()
    (folder / 'out' / 'mine.txt').write_text('kept')


@pytest.mark.parametrize(('options', 'message'), [
    (['--stitch', 'S9-L9'], 'S9-L9'),
    ([], 'Say which stitch'),
    (['--stitch', 'S2', '--gflops', '1'], 'Say which stitch'),
    (['--gflops', '1e-9'], 'GFLOPs'),
    (['--ms', '5'], 'latency'),
    (['--stitch', 'S2', '--size', '60', '64', '--onnx'], 'multiples of the patch'),
    (['--stitch', 'S2', '--size', '64', '64', '64', '--onnx'], '--size takes a height and a width'),
    (['--stitch', 'S2', '--stitches', 'front'], 'a file of --all-stitches'),
    (['--stitch', 'S2', '--with-preprocessing'], 'ask for one of --onnx'),
    (['--stitch', 'S2', '--onnx', '--dynamic-size', '--with-preprocessing'], 'Leave out one'),
    (['--all-stitches', '--dynamic-size'], 'one stitch'),
    (['--all-stitches', '--stitches', 'S7'], 'S7'),
    (['--stitch', 'S2', '--onnx', '--check-data', '2'], 'test_dataloader'),
    (['--stitch', 'S2', '--results', 'nowhere'], 'nowhere'),
])
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    checkpoint: tuple, tmp_path: Path, capsys: pytest.CaptureFixture, options: list, message: str
) -> None:
    assert main([*checkpoint, *options, '--out', str(tmp_path / 'out')]) == 2
    errors = lines_of(capsys.readouterr().err, 'export_stitch: error:')
    assert len(errors) == 1 and message in errors[0]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists_is_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with_existing(tmp_path)
    arguments = ['no.py', 'no.pth', '--stitch', 'S2', '--out', str(tmp_path / 'out')]
    assert main(arguments) == 2
    assert '--overwrite' in capsys.readouterr().err
    assert (tmp_path / 'out' / 'mine.txt').read_text() == 'kept'


def test_a_checkpoint_that_was_never_fitted_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = setr_config()
    files = save_checkpoint(trained(config, fitted=False), config, tmp_path / 'weights')
    assert main([*files, '--stitch', 'S1-L2', '--out', str(tmp_path / 'out')]) == 2
    assert 'fit' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_weights_of_another_model_are_refused(
    checkpoint: tuple, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = depth_config()
    other = save_checkpoint(trained(config), config, tmp_path / 'weights')
    assert main([checkpoint[0], other[1], '--stitch', 'S2', '--out', str(tmp_path / 'out')]) == 2
    assert len(lines_of(capsys.readouterr().err, 'export_stitch: error:')) == 1
    assert not (tmp_path / 'out').exists()


def test_a_missing_library_is_named_with_what_to_install(
    checkpoint: tuple, tmp_path: Path, capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    out = str(tmp_path / 'out')
    assert main([*checkpoint, '--stitch', 'S2', '--onnx', '--out', out]) == 2
    assert 'pip install "mmsnnet[deploy]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_files_are_checked_scored_and_timed_on_data(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason='needs the extra [deploy]')
    from mmsnnet.runtime.session import StitchSession

    root = toy_segmentation.write_images(tmp_path / 'data', train=1, val=4)
    config = segmentation_config(root)
    files, out = save_checkpoint(trained(config), config, tmp_path / 'weights'), tmp_path / 'out'
    options = ['--stitch', 'S2-L2', '--onnx', '--int8', '--check-data', '3']
    assert main([*files, *options, '--out', str(out)]) == 0
    for name in ('model.onnx', 'model.int8.onnx'):
        checks = StitchSession(out / name).metadata.checks
        found = checks['data']['S2-L2']
        assert found['images'] == 3 and found['ms'] > 0 and found['ms_of_fp32'] > 0
        assert np.isfinite(found['metrics']['mIoU'])
        assert abs(found['metrics']['mIoU'] - found['metrics_in_torch']['mIoU']) <= 0.3
    assert checks['agreement']['images'] == 3
    assert len(lines_of(capsys.readouterr().out, 'model.int8.onnx under S2-L2')) == 1


@pytest.mark.slow
def test_depth_in_lower_precision_stays_close_and_keeps_its_error(tmp_path: Path) -> None:
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason='needs the extra [deploy]')
    from mmsnnet.runtime.session import StitchSession

    write_rooms(tmp_path / 'rooms', RoomsSpec(1, 3, (64, 64), 3, ('nyu',)), workers=1)
    config = depth_rooms_config(tmp_path / 'rooms')
    files, out = save_checkpoint(trained(config), config, tmp_path / 'weights'), tmp_path / 'out'
    options = ['--stitch', 'L2-S1', '--fp16', '--int8', '--check-data', '3']
    assert main([*files, *options, '--out', str(out)]) == 0
    images = random_images(3, seed=5)
    with torch.no_grad():
        expected = load(out).encode_decode(images, [dict(img_shape=SIZE)] * 3).numpy()
    for name, bar in (('fp16', 0.005), ('int8', 0.05)):
        session = StitchSession(out / f'model.{name}.onnx')
        apart = session(images.numpy()) - expected
        assert 0 < np.linalg.norm(apart) / np.linalg.norm(expected) <= bar
        checks = session.metadata.checks
        assert checks['agreement']['labels'] is None and checks['agreement']['rmse'] <= bar
        found = checks['data']['L2-S1']
        assert found['metrics']['rmse'] <= 1.02 * found['metrics_in_torch']['rmse']


@pytest.mark.slow
def test_a_front_of_stitches_becomes_one_file(checkpoint: tuple, tmp_path: Path) -> None:
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason='needs the extra [deploy]')
    from mmsnnet.runtime.session import StitchSession

    out = tmp_path / 'out'
    options = ['--all-stitches', '--stitches', 'anchors,S1-L2', '--with-preprocessing']
    assert main([*checkpoint, *options, '--out', str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {'all_stitches.onnx', 'stitch.json'}
    session = StitchSession(out / 'all_stitches.onnx')
    assert session.stitches == ('S2', 'L4', 'S1-L2')
    session.set_budget(gflops=1e6)
    pictures = np.zeros((1, 30, 40, 3), np.uint8)
    assert session(pictures).shape == (1, 30, 40)
