"""MMPretrain's functions for inference on stitched classifiers."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config

from mmsnnet.apis import init_model
from tests.classifiers import KINDS, save_classifier, write_pictures

mmpretrain = pytest.importorskip('mmpretrain', reason='classifiers are those of mmpretrain')


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp('classifier')
    write_pictures(folder, 0, 2)
    return (*save_classifier(folder), str(folder / 'val' / 'kind1' / '0001.png'))


@torch.no_grad()
def test_a_loaded_classifier_is_what_the_function_and_the_inferencer_of_mmpretrain_take(saved):
    config, checkpoint, picture = saved
    model = init_model(config, checkpoint)
    inferencer = mmpretrain.ImageClassificationInferencer(model)
    fresh = mmpretrain.ImageClassificationInferencer(config, pretrained=checkpoint)
    scores = []
    for stitch in ('S3', 'L2-S2'):
        model.select_stitch(stitch)
        fresh.model.backbone.set_stitch(stitch)
        found = mmpretrain.inference_model(model, picture)
        (same,), (other,) = inferencer(picture), fresh(picture)
        assert found['pred_class'] == KINDS[found['pred_label']]
        assert (found['pred_scores'] == same['pred_scores']).all()
        assert (found['pred_scores'] == other['pred_scores']).all()
        scores.append(found['pred_scores'])
    assert abs(scores[0] - scores[1]).max() > 1e-3


def test_a_loaded_classifier_says_its_config_and_classes(saved):
    config, checkpoint, _ = saved
    model = init_model(config, checkpoint)
    assert model.cfg.model.head == Config.fromfile(config).model.head
    assert tuple(model.dataset_meta['classes']) == KINDS
