"""Inferencers of the hosts on stitched models and on stitches taken out of them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import MMSegInferencer, inference_model

from mmsnnet.apis import init_model
from mmsnnet.deploy.description import describe
from mmsnnet.deploy.extraction import CONFIG_NAME, WEIGHTS_NAMES, extract, load, save_extracted
from mmsnnet.evaluation.cost.model_cost import model_costs
from tests.toy_detection import toy_config
from tests.trained_segmentor import Trained

STITCH = 'S1-L4'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    found = Trained(tmp_path_factory.mktemp('trained'))
    config = Config.fromfile(found.config)
    # The inferencer requires it; every config on mmseg's default_runtime.py has one.
    config.visualizer = dict(type='SegLocalVisualizer', name='inferencer')
    config.dump(found.config)
    return found


@pytest.fixture(scope='module')
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp('picture') / 'a.png'
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture(scope='module')
def model(trained):
    return init_model(trained.config, trained.checkpoint, results=trained.results)


def labels_of(model, picture):
    return inference_model(model, cv2.imread(str(picture))).pred_sem_seg.data[0].numpy()


def infer(config, weights, picture, stitch=None):
    """Labels by mmseg's inferencer."""
    inferencer = MMSegInferencer(str(config), weights=str(weights), device='cpu')
    if stitch is not None:
        inferencer.model.backbone.set_stitch(stitch)
    return inferencer(str(picture), show=False)['predictions']


@pytest.mark.parametrize('stitch', ['S3', STITCH])
def test_the_inferencer_of_mmseg_gives_what_the_stitched_model_gives(
    trained, model, picture, stitch
):
    model.select_stitch(stitch)
    found = infer(trained.config, trained.checkpoint, picture, stitch)
    assert np.array_equal(found, labels_of(model, picture))


@pytest.mark.parametrize('weights', list(WEIGHTS_NAMES))
def test_an_extracted_folder_runs_in_mmsegs_inferencer_and_by_itself(
    trained, model, picture, tmp_path, weights
):
    extracted, fixed = extract(model, Config.fromfile(trained.config), STITCH)
    metadata = describe(model, [STITCH], model_costs(model, 64), (64, 64), model.chooser)
    folder = save_extracted(tmp_path / 'out', extracted, fixed, metadata, weights)
    model.select_stitch(STITCH)
    expected = labels_of(model, picture)
    assert np.array_equal(labels_of(load(folder), picture), expected)
    found = infer(folder / CONFIG_NAME, folder / WEIGHTS_NAMES[weights], picture)
    assert np.array_equal(found, expected)


def test_the_inferencer_of_mmdet_gives_what_the_stitched_detector_gives(tmp_path, picture):
    from mmdet.apis import DetInferencer, inference_detector

    config = tmp_path / 'detector.py'
    toy_config(tmp_path / 'data', tmp_path).dump(config)
    model = init_model(config)
    checkpoint = tmp_path / 'weights.pth'
    meta = dict(dataset_meta=dict(classes=('a', 'b'), palette=[(0, 0, 0), (9, 9, 9)]))
    model.backbone.mark_fitted()
    torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
    inferencer = DetInferencer(
        str(config), weights=str(checkpoint), device='cpu', show_progress=False
    )
    for stitch in list(model.backbone.space.names)[:3:2]:
        model.select_stitch(stitch)
        inferencer.model.backbone.set_stitch(stitch)
        expected = inference_detector(model, cv2.imread(str(picture))).pred_instances
        (found,) = inferencer(str(picture), return_datasamples=True)['predictions']
        assert len(expected) > 0
        assert torch.equal(found.pred_instances.bboxes, expected.bboxes)
        assert torch.equal(found.pred_instances.scores, expected.scores)
