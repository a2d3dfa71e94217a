"""What is said about detectors whose necks and heads do not fit the backbone."""

from __future__ import annotations

import pytest

pytest.importorskip('mmdet')

from mmsnnet.models.host.head_check import check_channels
from mmsnnet.models.host.lookup import is_detector
from tests.segmentors import build_segmentor, setr_head
from tests.toy_detection import build_detector

MASK_RCNN = 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
CASCADE = 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'
RETINA = 'retinanet/retinanet_r50_fpn_1x_coco.py'
PYRAMID = dict(type='SimpleFeaturePyramid', in_channels=32)
#: What RetinaNet's strides of 8 to 128 need of it.
FROM_8 = dict(PYRAMID, scale_factors=(2, 1, 0.5), num_outs=5)


@pytest.mark.parametrize(
    ('path', 'neck'), [(MASK_RCNN, PYRAMID), (CASCADE, PYRAMID), (RETINA, FROM_8)]
)
def test_detectors_on_the_pyramid_pass(path, neck):
    check_channels(build_detector(path, neck))


@pytest.mark.parametrize(
    ('path', 'strides', 'pyramid'),
    [
        (MASK_RCNN, '4, 8, 16, 32, 64', r'num_outs=5\)'),
        (CASCADE, '4, 8, 16, 32, 64', r'num_outs=5\)'),
        (RETINA, '8, 16, 32, 64, 128', r'num_outs=5, scale_factors=\(2, 1, 0\.5\)\)'),
    ],
)
def test_a_detector_with_fpn_is_told_the_pyramid_to_put(path, strides, pyramid):
    fpn = dict(type='FPN', in_channels=[32], out_channels=256, num_outs=5)
    with pytest.raises(ValueError, match=rf'has the neck FPN.* read strides \[{strides}\]') as told:
        check_channels(build_detector(path, fpn))
    put = r"put neck=dict\(_delete_=True, type='SimpleFeaturePyramid', in_channels=32, .*"
    assert told.match('.*' + put + pyramid) and '\n' not in str(told.value)


def test_a_detector_without_a_neck_is_told_the_pyramid_to_put():
    model = build_detector(MASK_RCNN)
    model.neck = None
    told = r"MaskRCNN has no neck, but its heads read strides .*put neck=dict\(type='Simple"
    with pytest.raises(ValueError, match=told):
        check_channels(model)


def test_heads_without_anchors_name_their_own_strides():
    model = build_detector('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', PYRAMID)
    message = r'^bbox_head\.strides=\[8, 16, 32, 64, 128\] of FCOSHead does not'
    with pytest.raises(ValueError, match=message):
        check_channels(model)


@pytest.mark.parametrize(
    ('neck', 'settings', 'message'),
    [
        (dict(in_channels=48), {}, r'neck\.in_channels=48 .*put 32'),
        (dict(num_outs=4), {}, r'rpn_head\.anchor_generator\.strides=\[4, 8, 16, 32, 64\] .*'),
        (
            dict(scale_factors=(2, 1, 0.5)),
            {},
            r'delivers 5 maps of 256 channels at strides \[8, 16, 32, 64, 128\]',
        ),
        (
            dict(out_channels=64),
            {},
            r'rpn_head\.in_channels=256 .* delivers 5 maps of 64 channels .*: put 64',
        ),
        (
            {},
            dict(roi_head=dict(bbox_roi_extractor=dict(out_channels=128))),
            r'roi_head\.bbox_roi_extractor\.out_channels=128 .*put 256',
        ),
        (
            {},
            dict(roi_head=dict(bbox_head=dict(in_channels=128))),
            r'roi_head\.bbox_head\.in_channels=128 .*put 256',
        ),
        (
            {},
            dict(roi_head=dict(mask_head=dict(in_channels=64))),
            r'roi_head\.mask_head\.in_channels=64 .*put 256',
        ),
        (
            {},
            dict(roi_head=dict(mask_roi_extractor=dict(featmap_strides=[8, 16, 32, 64]))),
            r'roi_head\.mask_roi_extractor\.featmap_strides=\[8, 16, 32, 64\] .*put \[4, 8,',
        ),
    ],
)
def test_what_does_not_fit_is_named_with_the_value_to_put(neck, settings, message):
    model = build_detector(MASK_RCNN, dict(PYRAMID, **neck), **settings)
    with pytest.raises(ValueError, match=message) as caught:
        check_channels(model)
    assert '\n' not in str(caught.value)


def test_segmentors_are_no_detectors():
    assert not is_detector(build_segmentor(setr_head(), device='meta'))
    assert is_detector(build_detector(RETINA, FROM_8))
