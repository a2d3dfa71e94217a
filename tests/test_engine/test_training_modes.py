"""Trainings that leave the anchors as they are, through MMEngine's Runner and on to deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmsnnet.deploy.extraction import extract
from mmsnnet.deploy.switched import SwitchedBackbone
from mmsnnet.models.host.loaded_model import set_loaded_attributes
from mmsnnet.results.fingerprint import fingerprint_file
from tests.toy_segmentation import (
    NAMES,
    backbone_of,
    toy_config,
    toy_runner,
    weights,
    write_anchor_files,
    write_images,
)


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp('blocks'))


def mode_settings(folder: Path, training: str, **settings: Any) -> dict[str, Any]:
    backbone = dict(anchors=write_anchor_files(folder / 'anchors'), training=training)
    optimizer = dict(type='AdamW', lr=1e-2, weight_decay=0.5)
    return dict(
        model=dict(backbone=backbone),
        optim_wrapper=dict(type='OptimWrapper', optimizer=optimizer),
        default_hooks=dict(checkpoint=dict(interval=3, save_param_scheduler=True)),
        **settings,
    )


def anchors_in(state: dict[str, torch.Tensor], prefix: str = 'backbone.') -> dict[str, Any]:
    place = f'{prefix}anchors.'
    return {k[len(prefix):]: v for k, v in state.items() if k.startswith(place)}


def test_anchors_of_a_run_stay_bit_identical_under_decay_and_moving_averages(data, tmp_path):
    settings = mode_settings(tmp_path, 'stitches')
    runner = toy_runner(data, tmp_path / 'run', **settings)
    runner.register_hook(dict(type='EMAHook', momentum=0.3), priority='NORMAL')
    runner.train()
    saved = torch.load(tmp_path / 'run/iter_6.pth', weights_only=False)
    averaged = anchors_in(saved['ema_state_dict'], 'module.backbone.')
    trained = anchors_in(saved['state_dict'])
    fresh = toy_runner(data, tmp_path / 'fresh', **settings)
    backbone_of(fresh).init_weights()
    started = backbone_of(fresh).state_dict()
    for name in trained:
        assert torch.equal(trained[name], started[name])
        assert torch.equal(averaged[name], started[name])
    moved = [n for n, v in saved['state_dict'].items() if n.startswith('backbone.stitch_layers.')
             and n.endswith('lora_b') and v.any()]  # fmt: skip
    assert moved


def test_a_run_of_stitches_resumes_exactly(data, tmp_path):
    settings = mode_settings(tmp_path, 'stitches')
    whole = toy_runner(data, tmp_path / 'run', **settings)
    whole.train()
    (tmp_path / 'run/last_checkpoint').write_text(str(tmp_path / 'run/iter_3.pth'))
    resumed = toy_runner(data, tmp_path / 'run', resume=True, **settings)
    resumed.train()
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name])


def test_a_training_whose_frozen_anchors_have_no_weights_is_refused_before_the_fit(data, tmp_path):
    runner = toy_runner(data, tmp_path / 'run', model=dict(backbone=dict(training='stitches')))
    with pytest.raises(ValueError, match='nothing pretrained was loaded into S and L'):
        runner.train()
    assert not backbone_of(runner).is_fitted


def test_low_precision_leaves_frozen_anchors_and_learns(data, tmp_path):
    runner = toy_runner(data, tmp_path / 'run', **mode_settings(tmp_path, 'stitches'))
    backbone = backbone_of(runner)
    backbone.init_weights()
    backbone.train().set_training_stitch('S1-L4')
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = sum(f.float().square().mean() for f in backbone(torch.randn(1, 3, 64, 64)))
    loss.backward()
    learned = {n.split('.')[0] for n, p in backbone.named_parameters() if p.grad is not None}
    assert learned == {'stitch_layers'}


@pytest.fixture(scope='module')
def lora(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Runner after a training by low-rank updates, and its config."""
    pytest.importorskip('peft')
    folder = tmp_path_factory.mktemp('lora')
    settings = mode_settings(folder, 'lora', test_cfg=dict(stitches='all'))
    runner = toy_runner(data, folder / 'run', **settings)
    runner.train()
    return runner, toy_config(data, folder / 'run', **settings)


def test_a_run_of_lora_moves_updates_and_leaves_the_weights_below(lora):
    runner, _ = lora
    state = anchors_in(weights(runner))
    anchors = {name: value for name, value in state.items() if 'lora_' not in name}
    backbone_of(runner).init_weights()
    for name, value in anchors_in(weights(runner)).items():
        assert 'lora_' in name or torch.equal(value, anchors[name])
    runner.load_checkpoint(f'{runner.work_dir}/iter_6.pth')
    assert all(v.any() for n, v in anchors_in(weights(runner)).items() if '.lora_B.' in n)


def test_a_sweep_scores_lora_as_it_scores_its_merged_checkpoint(lora, data, tmp_path):
    runner, config = lora
    runner.load_checkpoint(f'{runner.work_dir}/iter_6.pth')
    scored = runner.test()
    backbone = dict(training='full', anchors=config.model.backbone.anchors)
    merged = toy_runner(data, tmp_path / 'merged', model=dict(backbone=backbone),
                        test_cfg=dict(stitches='all'), load_from=f'{runner.work_dir}/iter_6.pth')
    assert {name.split('/')[0] for name in scored} >= set(NAMES)
    assert merged.test() == pytest.approx(scored, abs=0.2)


def test_extraction_and_graphs_of_all_stitches_merge_lora(lora):
    runner, config = lora
    runner.load_checkpoint(f'{runner.work_dir}/iter_6.pth')
    model, images = runner.model.eval(), torch.randn(1, 3, 64, 64)
    set_loaded_attributes(model, config)
    switched = SwitchedBackbone(model.backbone, NAMES, (64, 64)).eval()
    assert not [name for name, _ in switched.named_parameters() if 'lora' in name]
    for number, name in enumerate(NAMES):
        with model.backbone.use_stitch(name), torch.no_grad():
            expected = model.backbone(images)
            logits = model(images)
        extracted, fixed = extract(model, config, name)
        assert 'training' not in fixed.model.backbone
        assert not [key for key in extracted.state_dict() if 'lora' in key]
        torch.testing.assert_close(extracted(images), logits, rtol=1e-4, atol=1e-4)
        for one, other in zip(switched(images, torch.tensor(number)), expected):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


NAMED = [dict(type='StitchAnchorFilesHook')]


def with_files(folder: Path, **settings: Any) -> dict[str, Any]:
    """Settings of a training of stitches whose checkpoints leave the anchors out."""
    hooks = toy_config(folder, folder).custom_hooks
    return mode_settings(folder, 'stitches', custom_hooks=[*hooks, *NAMED], **settings)


@pytest.fixture(scope='module')
def named(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Folder and weights of a run whose checkpoints name the anchors' files."""
    folder = tmp_path_factory.mktemp('named')
    runner = toy_runner(data, folder / 'run', **with_files(folder))
    runner.register_hook(dict(type='EMAHook', momentum=0.3), priority='NORMAL')
    runner.train()
    return folder, weights(runner)


def test_a_checkpoint_without_anchors_loads_as_the_whole_one_by_whichever_way(named, data):
    folder, whole = named
    saved = torch.load(folder / 'run/iter_6.pth', weights_only=True)
    for key in ('state_dict', 'ema_state_dict'):
        assert not [name for name in saved[key] if '.anchors.' in name]
    assert any(name.endswith('anchor_files') for name in saved['ema_state_dict'])
    runner = toy_runner(data, folder / 'test', load_from=str(folder / 'run/iter_6.pth'),
                        **with_files(folder))  # fmt: skip
    runner.load_or_resume()
    assert backbone_of(runner).was_loaded
    for name, value in anchors_in(weights(runner)).items():
        assert torch.equal(value, whole[f'backbone.{name}'])
    elsewhere = toy_runner(data, folder / 'elsewhere')  # its config names no files
    elsewhere.model.load_state_dict(saved['state_dict'])
    for name, value in anchors_in(weights(elsewhere)).items():
        assert torch.equal(value, whole[f'backbone.{name}'])


def test_a_run_whose_checkpoints_lack_the_anchors_resumes_exactly(data, tmp_path):
    whole = toy_runner(data, tmp_path / 'run', **with_files(tmp_path))
    whole.train()
    (tmp_path / 'run/last_checkpoint').write_text(str(tmp_path / 'run/iter_3.pth'))
    resumed = toy_runner(data, tmp_path / 'run', resume=True, **with_files(tmp_path))
    resumed.train()
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name])


def test_a_changed_or_missing_file_is_named_with_its_hash(named, data, tmp_path):
    folder, _ = named
    settings = with_files(tmp_path, load_from=str(folder / 'run/iter_6.pth'))
    path = Path(settings['model']['backbone']['anchors'][1]['checkpoint'])
    known = fingerprint_file(path)
    state = torch.load(path)
    state['cls_token'] += 1
    torch.save(state, path)
    runner = toy_runner(data, tmp_path / 'run', **settings)
    with pytest.raises(ValueError, match=f'{path.name} of anchor L is not the one') as caught:
        runner.load_or_resume()
    assert fingerprint_file(path) in str(caught.value) and known in str(caught.value)
    assert '\n' not in str(caught.value)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf'leaves out anchor L, whose file .*{known}'):
        toy_runner(data, tmp_path / 'run', **settings).load_or_resume()


@pytest.mark.parametrize('case', ['learning', 'no file', 'other weights'])
def test_anchors_that_no_file_gives_again_are_not_left_out(data, tmp_path, case):
    settings = with_files(tmp_path)
    if case == 'learning':
        settings['model']['backbone']['training'] = 'full'
    if case == 'no file':
        settings['model']['backbone'].pop('anchors')
    runner = toy_runner(data, tmp_path / 'run', **settings)
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == 'StitchAnchorFilesHook')
    backbone_of(runner).init_weights()
    if case == 'other weights':
        backbone_of(runner).load_state_dict(backbone_of(runner).state_dict() | {
            'anchors.L.vit.cls_token': torch.ones(1, 1, 32)
        })
    said = {'learning': "set training='stitches'", 'no file': 'anchor S, whose weights come from '
            'no file', 'other weights': 'anchor L: 1 of its weights, e.g. cls_token'}  # fmt: skip
    before = weights(runner)
    with pytest.raises(ValueError, match=said[case]):
        hook.before_train(runner)
    assert all(torch.equal(value, before[name]) for name, value in weights(runner).items())
