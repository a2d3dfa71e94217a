"""The recipes of detection at an eighth of their size: real steps with their own pipelines."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

pytest.importorskip('mmdet')

import mmsnnet
from mmsnnet.models import find_stitched_backbone
from tests.small_recipes import small_anchor
from tests.toy_detection import write_coco_rooms

#: Pixels of images and channels of anchors and heads, each with what replaces it.
SMALL = {1024: 128, 256: 16}
RECIPES = {
    'mask-rcnn_snnetv2_s-l_coco': ('S4', 'L8'),
    'mask-rcnn_snnetv2_b-l_coco': ('B4', 'L8'),
    'mask-rcnn_snnetv1_s-l_coco': ('S4', 'L8'),
}


def shrink(value):
    """A config with all its numbers of ``SMALL`` replaced."""
    if isinstance(value, dict):
        return {key: shrink(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(shrink(item) for item in value)
    return SMALL.get(value, value) if type(value) is int else value


def small_recipe(name, rooms, work_dir):
    """A recipe with its own pipelines and schedule, for one iteration."""
    config = Config.fromfile(mmsnnet.config_path(f'{name}.py')).to_dict()
    model = shrink(config['model'])
    anchors = [small_anchor(anchor) for anchor in model['backbone']['anchors']]
    model['backbone'].update(
        anchors=anchors, out_indices=(7,), window_size=3, global_blocks=(1, 3, 5, 7)
    )
    model['neck']['in_channels'] = anchors[-1]['model_kwargs']['embed_dim']
    model['test_cfg']['rcnn']['score_thr'] = 0.0
    for split in ('train', 'val', 'test'):
        loader = shrink(config[f'{split}_dataloader'])
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader['dataset']['data_root'] = f'{rooms}/'
        config[f'{split}_dataloader'] = loader
    for split in ('val', 'test'):
        config[f'{split}_evaluator']['ann_file'] = f'{rooms}/annotations/instances_val2017.json'
    config['custom_hooks'][0]['num_images'] = 4
    config.update(
        model=model,
        train_cfg=dict(config['train_cfg'], max_iters=1, val_interval=2),
        work_dir=str(work_dir),
        experiment_name=name,
        log_level='WARNING',
        randomness=dict(seed=0),
    )
    return Config(config)


@pytest.mark.slow
@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_trains_and_tests_on_rooms(name, tmp_path):
    rooms = write_coco_rooms(tmp_path / 'rooms')
    with DefaultScope.overwrite_default_scope('mmdet'):
        runner = Runner.from_cfg(small_recipe(name, rooms, tmp_path / 'run'))
        backbone = find_stitched_backbone(runner.model)
        before = {n: p.detach().clone() for n, p in runner.model.named_parameters()}
        runner.train()
        assert runner.iter == 1 and backbone.is_fitted
        after = dict(runner.model.named_parameters())
        moved = {n.split('.')[0] for n in before if not torch.equal(before[n], after[n])}
        assert {'backbone', 'neck', 'rpn_head', 'roi_head'} <= moved
        metrics = runner.test()
    for anchor in RECIPES[name]:
        for kind in ('bbox', 'segm'):
            assert -1 <= metrics[f'{anchor}/coco/{kind}_mAP'] <= 1
