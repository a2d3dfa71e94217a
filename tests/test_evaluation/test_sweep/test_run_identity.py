"""What makes results those of another run, and what does not."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS, DefaultScope

from mmsnnet.evaluation.sweep import run_identity
from mmsnnet.evaluation.sweep.config_identity import ConfigReader
from mmsnnet.evaluation.sweep.run_identity import run_fingerprint
from mmsnnet.results.fingerprint import differences
from tests.toy_segmentation import SHAPE, anchor, toy_config, write_images

ANCHORS = [anchor(*shape) for shape in SHAPE]


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / 'data')


@pytest.fixture
def checkpoint(tmp_path):
    torch.save(dict(state_dict=dict(weight=torch.ones(3))), tmp_path / 'weights.pth')
    return tmp_path / 'weights.pth'


@pytest.fixture
def fingerprint(data, checkpoint, tmp_path):
    """Fingerprint of the toy config, changed by settings."""

    def run(**settings):
        cfg = toy_config(data, tmp_path / 'run', **settings)
        with DefaultScope.overwrite_default_scope('mmseg'):
            dataset = DATASETS.build(cfg.test_dataloader.dataset)
        return run_fingerprint(cfg, str(checkpoint), dataset)

    return run


def changed(before, after):
    return set(differences(before, after))


def test_the_same_run_has_the_same_fingerprint(fingerprint):
    assert fingerprint() == fingerprint()


@pytest.mark.parametrize(
    'settings',
    [
        dict(test_dataloader=dict(num_workers=4, persistent_workers=True, pin_memory=True)),
        dict(test_dataloader=dict(prefetch_factor=4)),
        dict(train_cfg=dict(max_iters=100)),
        dict(optim_wrapper=dict(optimizer=dict(lr=1.0))),
        dict(log_level='INFO', custom_hooks=[]),
        dict(test_cfg=dict(stitches='all', metric='aAcc')),
        dict(custom_hooks=[dict(type='StitchInitHook', num_images=3)]),
        dict(model=dict(backbone=dict(stitch='S3'))),
        dict(model=dict(backbone=dict(anchors=[{**a, 'checkpoint': 'a.pth'} for a in ANCHORS]))),
    ],
)
def test_what_changes_no_score_changes_no_fingerprint(fingerprint, settings):
    assert fingerprint(**settings) == fingerprint()


@pytest.mark.parametrize(
    'settings',
    [
        dict(model=dict(test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(32, 32)))),
        dict(model=dict(backbone=dict(final_norm=True))),
        dict(model=dict(data_preprocessor=dict(mean=[0.0] * 3))),
        dict(test_evaluator=dict(iou_metrics=['mDice'])),
        dict(test_dataloader=dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile')]))),
        dict(test_cfg=dict(fp16=True)),
        dict(custom_hooks=[dict(type='EMAHook')]),
        dict(model=dict(backbone=dict(anchors=[ANCHORS[0], {**ANCHORS[1], 'label': 'M'}]))),
    ],
)
def test_what_changes_scores_in_the_config_is_told_as_the_config(fingerprint, settings):
    assert changed(fingerprint(), fingerprint(**settings)) == {'config'}


def test_one_other_weight_is_told_as_the_checkpoint(fingerprint, checkpoint):
    before = fingerprint()
    content = torch.load(checkpoint)
    content['state_dict']['weight'][1] += 1e-3
    torch.save(content, checkpoint)
    assert changed(before, fingerprint()) == {'checkpoint'}


def test_a_copy_of_the_checkpoint_is_the_same(fingerprint, checkpoint):
    before = fingerprint()
    checkpoint.write_bytes(checkpoint.read_bytes())
    assert fingerprint() == before


def test_an_image_more_is_told_as_the_data(fingerprint, data):
    before = fingerprint()
    write_images(data, val=5)
    assert changed(before, fingerprint()) == {'data.images', 'data.files'}


@pytest.mark.parametrize('kind', ['images', 'annotations'])
def test_another_file_of_the_same_name_is_told_as_the_data(fingerprint, data, kind):
    before = fingerprint()
    path = sorted((data / kind / 'validation').iterdir())[2]
    path.write_bytes(path.read_bytes() + b'more')
    assert changed(before, fingerprint()) == {'data.files'}


@pytest.mark.parametrize('kind', ['images', 'annotations'])
def test_another_content_of_the_same_size_is_told_as_the_data(fingerprint, data, kind):
    before = fingerprint()
    path = sorted((data / kind / 'validation').iterdir())[2]
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    assert changed(before, fingerprint()) == {'data.files'}


@pytest.mark.parametrize('owner', ['dataset', 'evaluator'])
def test_other_annotations_in_the_same_file_are_told_as_the_data(checkpoint, tmp_path, owner):
    """As of COCO, whose images do not tell their boxes."""
    path = tmp_path / 'instances.json'

    class Pictures(list):
        ann_file = str(path) if owner == 'dataset' else ''

    evaluator = [dict(type='CocoMetric', ann_file=str(path) if owner == 'evaluator' else None)]
    runs = []
    for text in ('[1, 2]', '[1, 3]'):
        path.write_text(text)
        cfg = Config(dict(test_evaluator=evaluator))
        runs.append(run_fingerprint(cfg, str(checkpoint), Pictures('ab')))
    assert changed(*runs) == {'data.files'}


def test_other_head_statistics_in_the_same_file_are_told_as_the_data(fingerprint, tmp_path):
    path = tmp_path / 'head_statistics.pth'
    hooks = [dict(type='HeadStatisticsHook', statistics=str(path))]
    path.write_bytes(b'one')
    before = fingerprint(custom_hooks=hooks)
    path.write_bytes(b'two')
    assert changed(before, fingerprint(custom_hooks=hooks)) == {'data.files'}


def test_a_training_image_does_not_matter(fingerprint, data):
    before = fingerprint()
    next((data / 'images' / 'training').iterdir()).unlink()
    assert fingerprint() == before


def test_a_data_set_without_files_is_known_by_its_length(checkpoint, data, tmp_path):
    cfg = toy_config(data, tmp_path / 'run')
    runs = [run_fingerprint(cfg, str(checkpoint), [0] * length) for length in (3, 4)]
    assert changed(*runs) == {'data.images'}


def test_another_version_of_the_code_is_told(fingerprint, monkeypatch):
    before = fingerprint()
    assert '+' in before['code']['mmsnnet']
    monkeypatch.setattr(run_identity, '_CODE', ('stitching',))
    assert changed(before, fingerprint()) == {'code.mmsnnet'}


@pytest.mark.parametrize('package', ['mmengine', 'mmsegmentation', 'timm', 'torch'])
def test_another_version_of_a_host_is_told(fingerprint, monkeypatch, package):
    before = fingerprint()
    real = run_identity.installed
    monkeypatch.setattr(
        run_identity, 'installed', lambda name: '0.0' if name == package else real(name)
    )
    assert changed(before, fingerprint()) == {f'code.{package}'}


def test_a_host_that_is_not_used_does_not_matter(fingerprint):
    assert not {'mmdet', 'mmpretrain'} & set(fingerprint()['code'])


def with_classes(node):
    """A config whose types are classes, as pure-Python configs write them."""
    if isinstance(node, (list, tuple)):
        return [with_classes(child) for child in node]
    if not isinstance(node, dict):
        return node
    node = {key: with_classes(value) for key, value in node.items()}
    kind = node.get('type')
    for registry in (DATASETS, TRANSFORMS, METRICS, MODELS, HOOKS):
        with registry.switch_scope_and_registry('mmseg') as found:
            if isinstance(kind, str) and found.get(kind) is not None:
                node['type'] = found.get(kind)
    return node


@pytest.mark.parametrize('kind', ['classes', 'scopes', 'alias'])
def test_the_same_config_written_otherwise_is_the_same(
    fingerprint, checkpoint, data, tmp_path, kind
):
    cfg = toy_config(data, tmp_path / 'run').to_dict()
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(cfg['test_dataloader']['dataset'])
    if kind == 'classes':
        for key in ('model', 'test_dataloader', 'test_evaluator', 'custom_hooks'):
            cfg[key] = with_classes(cfg.get(key))
        assert cfg['model']['type'].__name__ == 'EncoderDecoder'
        assert isinstance(cfg['model']['decode_head']['norm_cfg']['type'], type)
    elif kind == 'scopes':
        cfg['model']['decode_head']['type'] = 'mmseg.UPerHead'
    else:
        cfg['model']['backbone'].update(type='StitchedViTBackbone', stitch='S3')
    found = run_fingerprint(Config(cfg), str(checkpoint), dataset)
    assert found == fingerprint()


def test_a_copy_of_the_data_elsewhere_is_the_same(fingerprint, checkpoint, data, tmp_path):
    before = fingerprint()
    shutil.copytree(data, tmp_path / 'copy')
    cfg = toy_config(tmp_path / 'copy', tmp_path / 'run')
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    assert run_fingerprint(cfg, str(checkpoint), dataset) == before


def test_code_of_the_user_is_told_when_it_changes(checkpoint, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / 'own_metric_of_a_user.py'
    path.write_text('class Own:\n    pass\n')
    cfg = Config(dict(test_evaluator=dict(type=importlib.import_module(path.stem).Own)))
    before = run_fingerprint(cfg, str(checkpoint), [0])
    assert before == run_fingerprint(cfg, str(checkpoint), [0])
    path.write_text('class Own:\n    other = 1\n')
    assert changed(before, run_fingerprint(cfg, str(checkpoint), [0])) == {'code.custom'}


@pytest.mark.parametrize(
    ('file', 'matters'),
    [
        ('stitching/cost.py', True),
        ('models/stitched_vit.py', True),
        ('engine/one_pass.py', True),
        ('evaluation/sweep/one_pass_sweep.py', True),
        ('evaluation/sweep/bn_recalibration.py', True),
        ('evaluation/cost/model_cost.py', True),
        ('evaluation/report/pareto_report.py', False),
        ('evaluation/sweep/progress.py', False),
        ('engine/hooks/stitch_init_hook.py', False),
        ('models/losses/sig_loss.py', False),
        ('apis/init_model.py', False),
    ],
)
def test_code_that_decides_results_matters_and_no_other(
    fingerprint, monkeypatch, tmp_path, file, matters
):
    package = Path(run_identity.version.__file__).parent
    copy = tmp_path / 'mmsnnet'
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns('__pycache__', '.mim'))
    monkeypatch.setattr(run_identity.version, '__file__', str(copy / 'version.py'))
    before = fingerprint()
    (copy / file).write_text((copy / file).read_text() + '\n# more')
    assert changed(before, fingerprint()) == ({'code.mmsnnet'} if matters else set())


def test_what_is_left_out_of_the_code_exists():
    package = Path(run_identity.version.__file__).parent
    assert [name for name in run_identity._NO_CODE if not (package / name).exists()] == []


def test_an_object_in_a_config_is_the_same_in_every_run():
    class Thing:
        pass

    texts = [ConfigReader(None).read(dict(thing=Thing())) for _ in range(2)]
    assert texts[0] == texts[1] and 'Thing object' in texts[0]['thing']
