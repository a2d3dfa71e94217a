"""The fit before training: once, repeatable, and only where it is needed."""

from __future__ import annotations

import copy
import logging
import random
import shutil

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner

from mmsnnet.engine import StitchInitHook
from mmsnnet.engine.calibration_data import calibration_batches
from mmsnnet.models import StitchFit
from tests.toy_segmentation import (
    Probe,
    backbone_of,
    logged,
    losses,
    stitch_weights,
    toy_config,
    toy_runner,
    weights,
    write_anchor_files,
    write_images,
)

SAMPLING = dict(type='StitchSamplingHook')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'))


def config_with_files(data, work_dir, folder, **settings):
    """Config whose anchors come from files, and the images as these expect them."""
    config = toy_config(data, work_dir, **settings)
    config.model.backbone.anchors = write_anchor_files(folder)
    return config


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """A run of 6 iterations from anchor files, what it was like just before the first, its logs."""
    folder = tmp_path_factory.mktemp('trained')
    runner = Runner.from_cfg(config_with_files(data, folder / 'run', folder / 'anchors'))
    seen = {}

    def remember(runner):
        if runner.iter == 0:
            seen.update(weights=stitch_weights(backbone_of(runner)), fitted=weights(runner))

    runner.register_hook(Probe(before_train_iter=remember))
    with logged(runner, logging.INFO) as lines:
        runner.train()
    seen['lines'] = [line for line in lines if 'itt' in line]
    seen['images'] = images_of_the_fit(runner)
    return runner, seen


def images_of_the_fit(runner):
    """The 8 images of seed 0, augmented with generators of seed 0, read without the hook."""
    dataset = runner.train_dataloader.dataset
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))[:8].tolist()
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    samples = [dataset[index]['inputs'] for index in order]
    bgr = torch.stack(samples).float()
    return (bgr[:, [2, 1, 0]] - 127.5) / 127.5


def timm_features(backbone, anchors, images):
    """Tokens (images x 17, width) behind each block of each anchor, by timm's own weights."""
    tokens = {}
    for label, config in zip('SL', anchors):
        vit = copy.deepcopy(backbone.anchors[label].vit)
        state = torch.load(config['checkpoint'])
        vit.load_state_dict({name: state[name] for name in vit.state_dict()})
        vit.eval()
        with torch.no_grad():
            x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
            for number, block in enumerate(vit.blocks, start=1):
                x = block(x)
                tokens[f'{label}{number}'] = x.flatten(0, 1).double().numpy()
    return tokens


def test_stitch_layers_are_fitted_once_before_the_first_iteration(trained):
    _, seen = trained
    first, second = seen['lines']
    assert first == 'Fitting 5 stitch layers on 8 images ...'
    assert second.startswith('Fitted stitch layers on 136 tokens in ')


def test_the_fit_is_that_of_numpy_on_features_of_timm(trained, tmp_path):
    runner, seen = trained
    tokens = timm_features(backbone_of(runner), write_anchor_files(tmp_path), seen['images'])
    for source, target in (('S1', 'L2'), ('S2', 'L4'), ('S3', 'L6'), ('L2', 'S1'), ('L4', 'S2')):
        x = np.c_[tokens[source], np.ones(8 * 17)]
        solution = np.linalg.lstsq(x, tokens[target], rcond=None)[0]  # weight, then bias
        found = [seen['weights'][f'{source}_to_{target}.{kind}'] for kind in ('weight', 'bias')]
        np.testing.assert_allclose(found[0].T, solution[:-1], atol=1e-4)
        np.testing.assert_allclose(found[1], solution[-1], atol=1e-4)


def test_the_weights_stay_as_fitted_and_the_biases_learn(trained):
    runner, seen = trained
    found = stitch_weights(backbone_of(runner))
    changed = {name for name in found if not torch.equal(found[name], seen['weights'][name])}
    assert changed and all(name.endswith('.bias') for name in changed)


def test_training_sees_the_same_data_and_random_numbers_as_without_the_fit(
    trained, data, tmp_path
):
    """The other run has no StitchInitHook and is handed the fitted weights."""
    runner, seen = trained
    config = config_with_files(data, tmp_path / 'run', tmp_path / 'anchors')
    config.custom_hooks = [SAMPLING]
    other = Runner.from_cfg(config)

    def take_weights(other):
        other.model.load_state_dict(seen['fitted'])

    other.register_hook(Probe(before_train=take_weights))
    other.train()
    assert losses(other) == losses(runner)
    for name, value in weights(other).items():
        assert torch.equal(value, weights(runner)[name]), name


def test_a_resumed_run_keeps_its_stitches_and_needs_no_anchor_files(trained, data, tmp_path):
    runner, _ = trained
    shutil.copytree(runner.work_dir, tmp_path / 'run')
    (tmp_path / 'run' / 'iter_6.pth').unlink()
    (tmp_path / 'run' / 'last_checkpoint').unlink()
    config = config_with_files(data, tmp_path / 'run', tmp_path / 'anchors')
    shutil.rmtree(tmp_path / 'anchors')
    config.load_from, config.resume = str(tmp_path / 'run' / 'iter_3.pth'), True
    resumed = Runner.from_cfg(config)
    with logged(resumed, logging.INFO) as lines:
        resumed.train()
    assert any('StitchInitHook leaves them' in line for line in lines)
    assert not any('Fitting' in line or 'Loaded anchor' in line for line in lines)
    assert losses(resumed) == losses(runner)
    for name, value in weights(resumed).items():
        assert torch.equal(value, weights(runner)[name]), name


def test_resume_without_a_file_name_finds_the_checkpoint_before_the_anchors(
    trained, data, tmp_path
):
    runner, _ = trained
    shutil.copytree(runner.work_dir, tmp_path / 'run')
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(tmp_path / 'run' / 'iter_6.pth'))
    config = config_with_files(data, tmp_path / 'run', tmp_path / 'anchors', resume=True)
    shutil.rmtree(tmp_path / 'anchors')
    resumed = Runner.from_cfg(config)
    resumed.train()
    assert resumed.iter == 6
    assert losses(resumed) == losses(runner)


def test_loaded_stitches_are_kept_and_need_no_anchor_files(trained, data, tmp_path):
    runner, _ = trained
    checkpoint = str(runner.work_dir) + '/iter_6.pth'
    config = config_with_files(data, tmp_path / 'run', tmp_path / 'anchors', load_from=checkpoint)
    shutil.rmtree(tmp_path / 'anchors')
    loaded = Runner.from_cfg(config)
    seen = {}
    loaded.register_hook(
        Probe(before_train_epoch=lambda runner: seen.update(stitch_weights(backbone_of(runner))))
    )
    loaded.train()
    expected = stitch_weights(backbone_of(runner))
    assert seen.keys() == expected.keys()
    assert all(torch.equal(seen[name], expected[name]) for name in expected)


def test_a_run_from_the_start_needs_the_anchor_files(data, tmp_path):
    config = config_with_files(data, tmp_path / 'run', tmp_path / 'anchors')
    shutil.rmtree(tmp_path / 'anchors')
    with pytest.raises(FileNotFoundError, match=r'3x16\.pth'):
        Runner.from_cfg(config).train()


def test_weights_of_a_head_alone_leave_the_anchors_to_their_files(trained, data, tmp_path):
    """A checkpoint without anchors fills none, so that they load and stitches are fitted."""
    runner, seen = trained
    state = {k: v for k, v in weights(runner).items() if k.startswith('decode_head')}
    torch.save(dict(state_dict=state), tmp_path / 'head.pth')
    config = config_with_files(
        data, tmp_path / 'run', tmp_path / 'anchors', load_from=str(tmp_path / 'head.pth')
    )
    other = Runner.from_cfg(config)
    found = {}
    other.register_hook(
        Probe(before_train_epoch=lambda runner: found.update(stitch_weights(backbone_of(runner))))
    )
    other.train()
    assert all(torch.equal(found[name], value) for name, value in seen['weights'].items())


def test_a_head_of_other_channels_is_refused_before_training(data, tmp_path):
    runner = toy_runner(data, tmp_path, model=dict(decode_head=dict(in_channels=[32, 48])))
    message = r'decode_head.in_channels=\[32, 48\] of UPerHead .* put \[32, 32\]'
    with pytest.raises(ValueError, match=message):
        runner.train()
    assert runner.iter == 0 and not list(tmp_path.glob('*.pth'))


def test_another_normalisation_of_the_preprocessor_is_named_in_one_warning(data, tmp_path):
    config = config_with_files(data, tmp_path / 'run', tmp_path / 'anchors')
    config.model.data_preprocessor.merge(dict(mean=[123.675, 116.28, 103.53], std=[58.0] * 3))
    config.train_cfg.max_iters = 1
    runner = Runner.from_cfg(config)
    with logged(runner) as lines:
        runner.train()
    (line,) = [line for line in lines if 'data_preprocessor' in line]
    assert 'mean=[123.675, 116.28, 103.53], std=[58.0, 58.0, 58.0], but' in line
    assert 'pretrained with mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]' in line


def test_a_preprocessor_that_fits_is_not_warned_of(trained, data, tmp_path):
    config = config_with_files(data, tmp_path / 'run', tmp_path / 'anchors')
    config.train_cfg.max_iters = 1
    runner = Runner.from_cfg(config)
    with logged(runner) as lines:
        runner.train()
    assert not [line for line in lines if 'data_preprocessor' in line]


@pytest.mark.parametrize('stock', [True, False])
@pytest.mark.parametrize('mode', ['val', 'test'])
def test_unfitted_stitches_are_not_evaluated(data, tmp_path, mode, stock):
    loop = {f'{mode}_cfg': dict(_delete_=True)} if stock else {}
    runner = toy_runner(data, tmp_path, **loop)
    torch.save(dict(state_dict=weights(runner)), tmp_path / 'unfitted.pth')
    runner._load_from = str(tmp_path / 'unfitted.pth')
    with pytest.raises(ValueError, match='stitch layers were never fitted') as caught:
        getattr(runner, mode)()
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', ['num_images', 'batch_size'])
def test_a_fit_to_no_images_is_refused(name):
    with pytest.raises(ValueError, match=f'{name} of StitchInitHook must be 1 or more, got 0'):
        StitchInitHook(**{name: 0})


def test_more_images_than_there_are_means_all(data, tmp_path):
    hooks = [dict(type='StitchInitHook', num_images=50), SAMPLING]
    runner = toy_runner(data, tmp_path, custom_hooks=hooks, train_cfg=dict(max_iters=1))
    with logged(runner, logging.INFO) as lines:
        runner.train()
    assert 'Fitting 5 stitch layers on 12 images ...' in lines


def test_an_average_of_the_weights_holds_the_fitted_stitches(data, tmp_path):
    """EMAHook copies the model before it is fitted."""
    hooks = [dict(type='StitchInitHook', num_images=8), SAMPLING, dict(type='EMAHook')]
    runner = toy_runner(data, tmp_path / 'whole', custom_hooks=hooks)
    runner.train()
    state = torch.load(tmp_path / 'whole' / 'iter_6.pth')
    assert state['state_dict']['backbone.stitches_fitted']
    for name, value in stitch_weights(backbone_of(runner)).items():
        if name.endswith('.weight'):  # frozen, so that its average is itself
            key = f'backbone.stitch_layers.{name}'
            torch.testing.assert_close(state['state_dict'][key], value)
            assert torch.equal(state['ema_state_dict'][f'module.{key}'], value)
    half = str(tmp_path / 'whole' / 'iter_3.pth')
    resumed = toy_runner(
        data, tmp_path / 'resumed', custom_hooks=hooks, load_from=half, resume=True
    )
    resumed.train()
    assert losses(resumed) == losses(runner)
    ends = [torch.load(tmp_path / run / 'iter_6.pth') for run in ('whole', 'resumed')]
    for key in ('state_dict', 'ema_state_dict'):
        assert all(torch.equal(ends[1][key][name], value) for name, value in ends[0][key].items())


def stitches_run(runner):
    """Names of the stitches of all training forwards from now on, as they come."""
    names = []
    backbone = backbone_of(runner)
    run = backbone.run

    def spy(images, stitch):
        if backbone.training:
            names.append(stitch.name)
        return run(images, stitch)

    backbone.run = spy
    return names


def test_without_hooks_training_fits_on_its_first_batch_and_resumes_with_the_next_stitch(
    data, tmp_path
):
    settings = dict(custom_hooks=[], val_cfg=dict(_delete_=True))
    runner = toy_runner(data, tmp_path / 'whole', **settings)
    names = stitches_run(runner)
    with logged(runner) as lines:
        runner.train()
    (line,) = [line for line in lines if 'not fitted' in line]
    assert 'first training batch of 2 images' in line and "type='StitchInitHook'" in line
    backbone = backbone_of(runner)
    assert backbone.is_fitted and int(backbone.training_steps) == 6
    assert names == [backbone.sampler.sample(step).name for step in range(6)]
    assert len(set(names)) > 2
    half = str(tmp_path / 'whole' / 'iter_3.pth')
    resumed = toy_runner(data, tmp_path / 'resumed', load_from=half, resume=True, **settings)
    again = stitches_run(resumed)
    with logged(resumed) as lines:
        resumed.train()
    assert again == names[3:]
    assert not [line for line in lines if 'not fitted' in line]
    frozen = [name for name in stitch_weights(backbone) if name.endswith('.weight')]
    assert frozen
    for name in frozen:
        assert torch.equal(
            stitch_weights(backbone_of(resumed))[name], stitch_weights(backbone)[name]
        )


# -- batches as training makes them ----------------------------------------------------------


@pytest.fixture(scope='module')
def mixed(tmp_path_factory):
    """Six pictures of three sizes, which do not stack."""
    root = tmp_path_factory.mktemp('mixed')
    for number, side in enumerate((66, 72, 81)):
        write_images(root / str(side), train=2, val=1, side=side, seed=number)
        for path in sorted((root / str(side)).rglob('ADE_*')):
            other = root / path.relative_to(root / str(side))
            other.parent.mkdir(parents=True, exist_ok=True)
            path.rename(other.with_stem(f'{other.stem}_{side}'))
    return root


def whole_images(data, work_dir, **settings):
    """Config of a training on whole pictures, with a head whose norms take one of them."""
    head = dict(
        type='FCNHead', in_channels=32, in_index=1, num_convs=1, concat_input=False, channels=8,
        num_classes=4, norm_cfg=dict(type='BN'), align_corners=False,
    )  # fmt: skip
    config = toy_config(data, work_dir, train_cfg=dict(max_iters=1, val_interval=9), **settings)
    config.model.decode_head = head
    config.model.pop('auxiliary_head')
    config.model.data_preprocessor.size = None
    config.model.data_preprocessor.size_divisor = 16
    pipeline = config.train_dataloader.dataset.pipeline
    config.train_dataloader.dataset.pipeline = [p for p in pipeline if p.type != 'RandomCrop']
    return config


def fitted_batches(runner):
    """Shapes of the batches of the fit."""
    shapes = []
    with pytest.MonkeyPatch.context() as patch:
        add = StitchFit.add
        patch.setattr(
            StitchFit, 'add', lambda fit, x: (shapes.append(tuple(x.shape)), add(fit, x))[1]
        )
        runner.train()
    return shapes


def test_pictures_of_unlike_sizes_are_fitted_one_by_one_as_training_takes_them(mixed, tmp_path):
    config = whole_images(mixed, tmp_path, train_dataloader=dict(batch_size=1))
    config.custom_hooks[0].num_images = 6
    shapes = fitted_batches(Runner.from_cfg(config))
    assert sorted(shapes) == [(1, 3, side, side) for side in (80, 80, 80, 80, 96, 96)]
    batches = list(calibration_batches(config, 4))
    assert [len(batch['inputs']) for batch in batches] == [1] * 4


@FUNCTIONS.register_module()
def collate_repeated(samples, times):
    """Put every picture into a batch several times."""
    return pseudo_collate([sample for sample in samples for _ in range(times)])


def test_the_collate_function_of_training_puts_batches_together(data, tmp_path):
    loading = dict(batch_size=2, collate_fn=dict(type='collate_repeated', times=3))
    runner = toy_runner(
        data, tmp_path, train_dataloader=loading, train_cfg=dict(max_iters=1, val_interval=9)
    )
    shapes = fitted_batches(runner)
    assert [shape[0] for shape in shapes] == [6] * 4  # 8 pictures in batches of 2, thrice
    (batch,) = calibration_batches(runner.cfg, 3)
    assert len(batch['inputs']) == 6


def test_a_batch_size_of_the_hook_goes_before_that_of_training(data, tmp_path):
    hooks = [dict(type='StitchInitHook', num_images=8, batch_size=3), SAMPLING]
    runner = toy_runner(data, tmp_path, custom_hooks=hooks, train_cfg=dict(max_iters=1))
    assert [shape[0] for shape in fitted_batches(runner)] == [3, 3, 2]


def start_of(root, work_dir, match_iters):
    """Stitch layers before the first iteration, losses, and lines on matching, of a short run."""
    hooks = [dict(type='StitchInitHook', num_images=4, match_iters=match_iters), SAMPLING]
    runner = toy_runner(root, work_dir, custom_hooks=hooks, train_cfg=dict(max_iters=2))
    seen = []
    runner.register_hook(Probe(before_train_epoch=lambda runner: seen.append(weights(runner))))
    with logged(runner, logging.INFO) as lines:
        runner.train()
    layers = {name: value for name, value in seen[0].items() if 'stitch_layers' in name}
    return layers, losses(runner), [line for line in lines if line.startswith('Matched features')]


def test_matching_changes_the_layers_alike_each_time_and_falls_short_of_no_image(tmp_path):
    root = write_images(tmp_path / 'data', train=6)  # fewer images than 12 steps of 2 need
    plain, one, other = (
        start_of(root, tmp_path / str(number), iters) for number, iters in enumerate((0, 12, 12))
    )
    assert not plain[2] and len(one[2]) == 1
    assert all(torch.equal(value, other[0][name]) for name, value in one[0].items())
    assert one[1] == other[1]
    moved = {n.rpartition('.')[2] for n, v in one[0].items() if not torch.equal(v, plain[0][n])}
    assert moved == {'bias', 'lora_a', 'lora_b'}


def test_steps_and_rates_of_matching_that_are_not_possible_are_refused():
    with pytest.raises(ValueError, match='iters=-1 of match must be 0'):
        StitchInitHook(match_iters=-1)
    with pytest.raises(ValueError, match='lr=0 of match must be positive'):
        StitchInitHook(match_iters=2, match_lr=0)
