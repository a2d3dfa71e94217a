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
from tests.builders import shake
from tests.toy_detection import toy_config
from tests.trained_segmentor import Trained

STITCH, CLASSES = 'S1-L4', ('a', 'b')


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


class Detector:
    """A small detector with config and weights on disk.

    Attributes:
        config, checkpoint: Files.
        model: It, loaded from them.
    """

    def __init__(self, folder):
        self.config, self.checkpoint = folder / 'detector.py', folder / 'weights.pth'
        toy_config(folder / 'data', folder).dump(self.config)
        model = init_model(self.config)
        shake(model.backbone)
        model.backbone.mark_fitted()
        meta = dict(dataset_meta=dict(classes=CLASSES, palette=[(9, 9, 9)] * len(CLASSES)))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), self.checkpoint)
        self.model = init_model(self.config, self.checkpoint)


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    return Detector(tmp_path_factory.mktemp('detector'))


def detections_of(model, picture):
    from mmdet.apis import inference_detector

    return inference_detector(model, cv2.imread(str(picture))).pred_instances


def inferred(inferencer, picture):
    (found,) = inferencer(str(picture), return_datasamples=True)['predictions']
    return found.pred_instances


def inferencer_of(config, weights):
    from mmdet.apis import DetInferencer

    return DetInferencer(str(config), weights=str(weights), device='cpu', show_progress=False)


def assert_same(found, expected, close=False):
    assert len(expected) == len(found) > 0
    assert torch.equal(found.labels, expected.labels)
    for key in ('bboxes', 'scores'):
        if close:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-4)
        else:
            assert torch.equal(found[key], expected[key])


def test_the_inferencer_of_mmdet_gives_what_the_stitched_detector_gives(detector, picture):
    inferencer = inferencer_of(detector.config, detector.checkpoint)
    scores = []
    for stitch in ('S2', 'L2-S1'):
        detector.model.select_stitch(stitch)
        inferencer.model.backbone.set_stitch(stitch)
        found = inferred(inferencer, picture)
        assert_same(found, detections_of(detector.model, picture))
        scores.append(found.scores)
    assert not torch.equal(*scores)


@pytest.mark.parametrize('weights', list(WEIGHTS_NAMES))
def test_an_extracted_detector_runs_in_mmdets_inferencer_and_by_itself(
    detector, picture, tmp_path, weights
):
    """Its merged stitch layers round otherwise."""
    stitch, config = 'L2-S1', Config.fromfile(detector.config)
    extracted, fixed = extract(detector.model, config, stitch)
    metadata = describe(detector.model, [stitch], model_costs(detector.model, 64), (64, 64))
    folder = save_extracted(tmp_path / 'out', extracted, fixed, metadata, weights)
    detector.model.select_stitch(stitch)
    expected = detections_of(detector.model, picture)
    assert_same(detections_of(load(folder), picture), expected, close=True)
    inferencer = inferencer_of(folder / CONFIG_NAME, folder / WEIGHTS_NAMES[weights])
    assert_same(inferred(inferencer, picture), expected, close=True)
    assert tuple(inferencer.visualizer.dataset_meta['classes']) == CLASSES
