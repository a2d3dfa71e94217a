"""Neck and heads that start from those of another training."""

from __future__ import annotations

import pytest
import torch

from mmsnnet.models.host.head_weights import load_head_weights
from tests.segmentors import build_segmentor, head, multi_level_neck, single_head
from tests.toy_segmentation import Probe, toy_runner, write_images

PARTS = ('decode_head', 'auxiliary_head')


def heads_of(state):
    return {name: value for name, value in state.items() if name.startswith(PARTS)}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """A run of 6 iterations, and the file that holds its weights."""
    runner = toy_runner(data, tmp_path_factory.mktemp('trained') / 'run')
    runner.train()
    return runner, f'{runner.work_dir}/iter_6.pth'


def first_weights(data, work_dir, **settings):
    """Weights of a run just before its first iteration, and the runner."""
    seen = {}

    def remember(runner):
        seen.setdefault('state', {k: v.clone() for k, v in runner.model.state_dict().items()})

    runner = toy_runner(data, work_dir, **settings)
    runner.register_hook(Probe(before_train_iter=lambda runner, **_: remember(runner)))
    runner.train()
    return seen['state'], runner


def hooks(file):
    return [
        dict(type='StitchInitHook', num_images=8, head_checkpoint=file),
        dict(type='StitchSamplingHook'),
    ]


def test_training_begins_with_the_heads_of_the_file(data, trained, tmp_path):
    runner, file = trained
    state, _ = first_weights(data, tmp_path, custom_hooks=hooks(file))
    expected = heads_of(runner.model.state_dict())
    found = heads_of(state)
    assert found.keys() == expected.keys() and found
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_backbone_is_not_that_of_the_file(data, trained, tmp_path):
    _, file = trained
    state, _ = first_weights(data, tmp_path / 'with', custom_hooks=hooks(file))
    plain, _ = first_weights(data, tmp_path / 'without')
    backbone = {name: value for name, value in plain.items() if name.startswith('backbone.')}
    assert all(torch.equal(state[name], value) for name, value in backbone.items())


def test_a_resumed_run_does_not_read_the_file(data, trained, tmp_path):
    _, file = trained
    settings = dict(resume=True, load_from=file, train_cfg=dict(max_iters=7))
    runner = toy_runner(data, tmp_path, custom_hooks=hooks('gone.pth'), **settings)
    runner.train()
    assert runner.iter == 7


def test_a_missing_file_is_refused_before_the_fit(data, tmp_path):
    runner = toy_runner(data, tmp_path, custom_hooks=hooks('nowhere.pth'))
    with pytest.raises(FileNotFoundError, match=r'nowhere\.pth'):
        runner.train()
    assert not runner.model.backbone.is_fitted


NECK, HEAD = multi_level_neck(), head('UPerHead', 32, pool_scales=(1, 2))


@pytest.fixture
def model():
    return build_segmentor(HEAD, NECK)


def saved(model, folder, without=''):
    """File of a model's weights, less those whose names contain ``without``."""
    state = model.state_dict()
    state = {name: value for name, value in state.items() if not without or without not in name}
    torch.save({'state_dict': state}, folder / 'model.pth')
    return str(folder / 'model.pth')


def test_neck_and_head_are_filled_and_named(model, tmp_path):
    other = build_segmentor(HEAD, NECK)
    assert load_head_weights(model, saved(other, tmp_path)) == ['neck', 'decode_head']
    for name, value in other.state_dict().items():
        same = torch.equal(model.state_dict()[name], value)
        assert same or name.startswith('backbone.')


def test_an_auxiliary_head_of_the_file_alone_is_left_out(model, tmp_path):
    auxiliary = single_head('FCNHead', 32, num_convs=1, concat_input=False)
    other = build_segmentor(HEAD, NECK, auxiliary)
    assert load_head_weights(model, saved(other, tmp_path)) == ['neck', 'decode_head']


def test_a_file_that_lacks_weights_is_refused_with_the_first(model, tmp_path):
    file = saved(model, tmp_path, without='conv_seg')
    with pytest.raises(ValueError, match=r'2 weights are missing, e\.g\. decode_head\.conv_seg'):
        load_head_weights(model, file)


def test_a_file_of_a_wider_head_is_refused_and_nothing_is_filled(model, tmp_path):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wider = build_segmentor(head('UPerHead', 32, pool_scales=(1, 2), channels=24), NECK)
    with pytest.raises(ValueError, match='is \\(5, 24, 1, 1\\) there and \\(5, 16, 1, 1\\) here'):
        load_head_weights(model, saved(wider, tmp_path))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
