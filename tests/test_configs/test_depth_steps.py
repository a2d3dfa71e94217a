"""The recipes of depth at full picture size: one real step and test each, with small anchors."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from rooms import RoomsSpec, write_rooms

import mmsnnet
from mmsnnet.models import find_stitched_backbone
from tests.small_recipes import small_anchor

RECIPES = {
    'dpt_snnetv2_s-l_nyuv2': ('S4', 'L8'),
    'dpt_snnetv2_s-l_nyuv2_as-released': ('S4', 'L8'),
    'dpt_snnetv2_b-l_nyuv2': ('B4', 'L8'),
    'dpt_snnetv1_s-l_nyuv2': ('S4', 'L8'),
}


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Two rooms to train on and one to test on, of NYUv2's size and in its layout."""
    folder = tmp_path_factory.mktemp('nyu')
    write_rooms(folder, RoomsSpec(2, 1, (480, 640), layouts=('nyu',)), workers=1)
    return folder


def small_recipe(name, pictures, work_dir):
    """A recipe with its own pipelines, schedule and test, for one iteration of a small model."""
    config = Config.fromfile(mmsnnet.config_path(f'{name}.py')).to_dict()
    backbone = config['model']['backbone']
    backbone['anchors'] = [small_anchor(anchor) for anchor in backbone['anchors']]
    backbone['out_indices'] = tuple(tap // 3 for tap in backbone['out_indices'])
    width = backbone['anchors'][-1]['model_kwargs']['embed_dim']
    config['model']['decode_head'].update(
        in_channels=[width] * 4, channels=16, post_process_channels=[8, 16, 24, 32]
    )
    for split in ('train', 'val', 'test'):
        loader = config[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader['dataset']['data_root'] = str(pictures)
    config['custom_hooks'][0].update(num_images=2)
    config.update(
        train_cfg=dict(config['train_cfg'], max_iters=1, val_interval=2),
        work_dir=str(work_dir),
        experiment_name=name,
        log_level='WARNING',
        randomness=dict(seed=0),
    )
    return Config(config)


@pytest.mark.slow
@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_trains_and_tests_on_rooms(name, pictures, tmp_path):
    with DefaultScope.overwrite_default_scope('mmseg'):
        runner = Runner.from_cfg(small_recipe(name, pictures, tmp_path))
        backbone = find_stitched_backbone(runner.model)
        before = {n: p.detach().clone() for n, p in runner.model.named_parameters()}
        runner.train()
        assert runner.iter == 1 and backbone.is_fitted
        after = dict(runner.model.named_parameters())
        moved = {n.split('.')[0] for n in before if not torch.equal(before[n], after[n])}
        assert moved == {'backbone', 'decode_head'}
        metrics = runner.test()
    for anchor in RECIPES[name]:
        assert 0 < metrics[f'{anchor}/rmse'] < 10
        assert 0 <= metrics[f'{anchor}/d1'] <= metrics[f'{anchor}/d3'] <= 1
