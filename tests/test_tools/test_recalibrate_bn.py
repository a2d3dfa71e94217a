"""A sweep with head statistics of each stitch, and who else uses them."""

from __future__ import annotations

import json

import pytest
import torch

from mmsnnet.apis import init_model
from mmsnnet.models.host.head_statistics import HeadStatistics, attached_statistics
from mmsnnet.results.records import read_records
from tests.toy_segmentation import toy_config, toy_runner, write_images
from tools.test_all_stitches import main

STITCHES = 'S3,S1-L4,L6'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Config and checkpoint of a short training, and its data."""
    folder = tmp_path_factory.mktemp('trained')
    data = write_images(folder / 'data', train=6, val=2)
    runner = toy_runner(data, folder / 'run', train_cfg=dict(max_iters=2, val_interval=99))
    runner.train()
    runner.save_checkpoint(str(folder), 'weights.pth')
    config = toy_config(data, folder / 'run')
    config.dump(folder / 'config.py')
    return [str(folder / 'config.py'), str(folder / 'weights.pth')], data


@pytest.fixture(scope='module')
def swept(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp('sweep') / 'own'
    calls = ['--stitches', STITCHES, '--recalibrate-bn', '4']
    assert main([*trained[0], *calls, '--out', str(out)]) == 0
    return out


def metrics(folder):
    return {record['name']: record['metrics'] for record in read_records(folder)}


def test_one_pass_and_one_by_one_give_the_same(trained, swept, tmp_path):
    calls = ['--stitches', STITCHES, '--recalibrate-bn', '4', '--one-by-one']
    assert main([*trained[0], *calls, '--out', str(tmp_path)]) == 0
    assert metrics(tmp_path) == metrics(swept)
    told = [json.loads((folder / 'run.json').read_text()) for folder in (tmp_path, swept)]
    assert told[0]['fingerprint'] == told[1]['fingerprint']
    assert told[0]['fingerprint']['head_statistics']['images'] == 4


def test_a_test_with_the_hook_gives_the_same(trained, swept, tmp_path):
    runner = toy_runner(
        trained[1], tmp_path, load_from=trained[0][1], test_cfg=dict(stitches=STITCHES.split(',')),
        custom_hooks=[
            dict(type='HeadStatisticsHook', statistics=str(swept / 'head_statistics.pth'))
        ],
    )  # fmt: skip
    scores = runner.test()
    for name, values in metrics(swept).items():
        for key, value in values.items():
            assert scores[f'{name}/{key}'] == pytest.approx(value, nan_ok=True)
    assert attached_statistics(runner.model) is None


def test_a_loaded_model_has_the_statistics_that_its_results_were_scored_with(trained, swept):
    model = init_model(*trained[0], results=swept)
    statistics = attached_statistics(model)
    assert statistics.names == ('S3', 'L6', 'S1-L4') and statistics.num_images == 4
    model.set_budget(gflops=1e3)
    plain = init_model(*trained[0])
    plain.backbone.set_stitch(model.stitch)
    images = torch.randn(2, 3, 64, 64)
    meta = [dict(img_shape=(64, 64))] * 2
    with torch.no_grad():
        assert not torch.equal(model.encode_decode(images, meta), plain.encode_decode(images, meta))
        statistics.bake(plain, model.stitch)
        assert torch.equal(model.encode_decode(images, meta), plain.encode_decode(images, meta))


ONE_COPY = """
_base_ = '{base}'
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(64, 64), keep_ratio=False)],
            [dict(type='LoadAnnotations', reduce_zero_label=True)],
            [dict(type='PackSegInputs')],
        ],
    ),
]
"""


def test_an_augmented_test_with_one_copy_as_it_is_gives_the_same(trained, swept, tmp_path):
    config = tmp_path / 'augmented.py'
    config.write_text(ONE_COPY.format(base=trained[0][0]))
    calls = ['--stitches', STITCHES, '--recalibrate-bn', '4', '--tta', '--out', str(tmp_path / 'a')]
    assert main([str(config), trained[0][1], *calls]) == 0
    assert metrics(tmp_path / 'a') == metrics(swept)
    statistics = [HeadStatistics.load(f / 'head_statistics.pth') for f in (tmp_path / 'a', swept)]
    assert statistics[0].digest == statistics[1].digest


def test_further_stitches_are_measured_and_added(trained, swept, tmp_path):
    out = str(tmp_path)
    calls = [*trained[0], '--recalibrate-bn', '4', '--out', out]
    assert main([*calls, '--stitches', 'S3']) == 0
    assert main([*calls, '--stitches', STITCHES]) == 0
    assert metrics(tmp_path) == metrics(swept)
    mine = HeadStatistics.load(tmp_path / 'head_statistics.pth')
    other = HeadStatistics.load(swept / 'head_statistics.pth')
    for name, tables in mine.tables.items():
        rows = [other.names.index(stitch) for stitch in mine.names]
        assert torch.equal(tables[0], other.tables[name][0][rows])


def test_results_with_and_without_are_not_mixed(trained, swept, capsys):
    assert main([*trained[0], '--stitches', STITCHES, '--out', str(swept)]) == 2
    assert 'head_statistics.images: 4 there, (absent) now' in capsys.readouterr().err


def test_one_image_is_too_few(trained, tmp_path, capsys):
    assert main([*trained[0], '--recalibrate-bn', '1', '--out', str(tmp_path)]) == 2
    assert 'needs 2 or more images' in capsys.readouterr().err
