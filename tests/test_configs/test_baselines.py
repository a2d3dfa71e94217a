"""The baselines in the style of SN-Net: in what they differ from the recipes, and in no more."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

import mmsnnet
from mmsnnet.models import build_sampler, find_stitched_backbone
from mmsnnet.registry import MODELS

BASELINES = {
    'setr_snnetv1_s-l_ade20k': 'setr_snnetv2_s-l_ade20k',
    'setr_snnetv1_s-l_coco-stuff10k': 'setr_snnetv2_s-l_coco-stuff10k',
    'upernet_snnetv1_s-l_ade20k': 'upernet_snnetv2_ade20k',
    'upernet_snnetv1_s-l_coco-stuff10k': 'upernet_snnetv2_s-l_coco-stuff10k',
    'dpt_snnetv1_s-l_nyuv2': 'dpt_snnetv2_s-l_nyuv2',
    'mask-rcnn_snnetv1_s-l_coco': 'mask-rcnn_snnetv2_s-l_coco',
}


def recipe(name):
    return Config.fromfile(mmsnnet.config_path(f'{name}.py'))


@pytest.mark.parametrize('name', BASELINES)
def test_a_baseline_differs_in_scheme_lora_and_sampler_alone(name):
    baseline, other = recipe(name).to_dict(), recipe(BASELINES[name]).to_dict()
    backbone = baseline['model']['backbone']
    assert backbone.pop('scheme') == 'one_way' and backbone.pop('lora_rank') == 0
    other['model']['backbone'].pop('lora_rank', None)
    (init, sampling), (other_init, _) = baseline.pop('custom_hooks'), other.pop('custom_hooks')
    assert init == other_init
    assert sampling['sampler'] == dict(type='UniformStitchSampler')
    assert baseline == other


@pytest.mark.parametrize('name', ['dpt_snnetv1_s-l_nyuv2', 'mask-rcnn_snnetv1_s-l_coco'])
def test_a_baseline_builds_with_whole_layers_from_cheap_to_costly(name):
    config = recipe(name)
    scope = DefaultScope.overwrite_default_scope(config.default_scope)
    with scope, torch.device('meta'):
        backbone = find_stitched_backbone(MODELS.build(config.model))
    assert [*backbone.space.families] == ['S', 'L', 'S-L'] and len(backbone.space) == 13
    assert all(layer.weight.requires_grad for layer in backbone.stitch_layers.values())
    sampler = build_sampler(backbone, config.custom_hooks[1].sampler)
    assert {sampler.sample(step).name for step in range(200)} == {*backbone.space.names}
