"""The cost of detectors against what a prediction of MMDetection really executes."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.structures import DetDataSample

from mmsnnet.evaluation.cost.flop_counter import FlopCounter
from mmsnnet.evaluation.cost.model_cost import head_cost, model_costs
from tests.builders import shake
from tests.toy_detection import build_detector

MASK_RCNN = 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
CASCADE = 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'
RETINA = 'retinanet/retinanet_r50_fpn_1x_coco.py'
FROM_8 = dict(type='SimpleFeaturePyramid', in_channels=32, scale_factors=(2, 1, 0.5), num_outs=5)
PROPOSALS, DETECTIONS = 7, 3
TEST_CFG = dict(
    rpn=dict(nms_pre=60, max_per_img=PROPOSALS, nms=dict(iou_threshold=0.99)),
    rcnn=dict(score_thr=0.0, max_per_img=DETECTIONS, nms=dict(iou_threshold=0.99)),
)


def executed(model, size):
    """FLOPs of a prediction through MMDetection's own methods, without pasting of masks."""
    height, width = size
    sample = DetDataSample(
        metainfo=dict(
            img_shape=size, ori_shape=size, batch_input_shape=size, pad_shape=size,
            scale_factor=(1.0, 1.0), img_id=1,
        )
    )  # fmt: skip
    images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), FlopCounter() as counter:
        (result,) = model.predict(images, [sample], rescale=False)
    assert len(result.pred_instances) == DETECTIONS or not hasattr(model, 'roi_head')
    return sum(n for name, n in counter.by_operator.items() if 'grid_sampler' not in name)


@pytest.mark.parametrize(
    ('path', 'neck', 'settings'),
    [
        (MASK_RCNN, None, dict(test_cfg=TEST_CFG)),
        (
            MASK_RCNN,
            None,
            dict(
                test_cfg=TEST_CFG,
                roi_head=dict(
                    bbox_head=dict(
                        type='Shared4Conv1FCBBoxHead', norm_cfg=dict(type='LN2d', eps=1e-6)
                    )
                ),
            ),
        ),
        (CASCADE, None, dict(test_cfg=TEST_CFG)),
        (RETINA, FROM_8, {}),
    ],
    ids=['two stages', 'four convolutions', 'cascade', 'one stage'],
)
def test_costs_of_a_detector_are_what_a_prediction_runs(path, neck, settings):
    model = build_detector(path, neck, device='cpu', **settings).eval()
    shake(model)
    costs = model_costs(model, (64, 96))
    for stitch in ('S2', 'L2-S1'):
        model.backbone.set_stitch(stitch)
        assert executed(model, (64, 96)) == costs[stitch].flops


def test_parameters_are_those_of_neck_and_heads():
    model = build_detector(MASK_RCNN)
    parts = (model.neck, model.rpn_head, model.roi_head)
    expected = sum(p.numel() for part in parts for p in part.parameters())
    assert head_cost(model, 64).params == expected


def test_regions_cost_in_proportion_to_their_number():
    def cost(proposals, detections):
        test_cfg = dict(rpn=dict(max_per_img=proposals), rcnn=dict(max_per_img=detections))
        return head_cost(build_detector(MASK_RCNN, test_cfg=test_cfg), 64).flops

    box = 256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * (81 + 320)
    mask = 196 * 4 * 9 * 256 * 256 + 196 * 4 * 256 * 256 + 784 * 256 * 80
    assert cost(101, 10) - cost(100, 10) == box
    assert cost(100, 11) - cost(100, 10) == mask


def test_a_roi_head_without_an_rpn_is_refused():
    model = build_detector(MASK_RCNN)
    model.rpn_head = None
    with pytest.raises(ValueError, match='MaskRCNN has a roi_head without an rpn_head'):
        head_cost(model, 64)
