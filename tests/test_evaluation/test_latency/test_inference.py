"""Inferences on noise take the same of every stitch."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip('mmdet')

from mmsnnet.evaluation.latency.inference import inference_on_noise, keep_all_boxes
from tests.builders import shake
from tests.segmentors import build_segmentor, head
from tests.toy_detection import build_detector

MASK_RCNN = 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
TEST_CFG = dict(
    rpn=dict(nms_pre=60, max_per_img=7, nms=dict(iou_threshold=0.99)),
    rcnn=dict(score_thr=0.9, max_per_img=3, nms=dict(iou_threshold=0.99)),
)


@pytest.fixture
def detector():
    model = build_detector(MASK_RCNN, None, device='cpu', test_cfg=TEST_CFG).eval()
    shake(model)
    with torch.no_grad():  # no class is likelier than the background
        model.roi_head.bbox_head.fc_cls.bias[-1] += 50
    return model


def counts(model):
    """Boxes that are kept under each of some stitches."""
    infer, kept = inference_on_noise(model, (64, 96)), []
    for stitch in ('S2', 'L2-S1'):
        with model.backbone.use_stitch(stitch):
            kept.append(len(infer()[0].pred_instances))
    return kept


def test_few_boxes_pass_the_threshold_of_a_detector(detector):
    assert counts(detector) == [0, 0]


def test_all_boxes_that_the_settings_allow_are_kept_on_request(detector):
    keep_all_boxes(detector)
    assert counts(detector) == [3, 3]


def test_a_segmentor_is_left_as_it_is():
    model = build_segmentor(head('UPerHead', pool_scales=(1, 2)))
    before = dict(model.test_cfg or {})
    keep_all_boxes(model)
    assert dict(model.test_cfg or {}) == before
