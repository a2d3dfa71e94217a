"""The check that neck and heads take what the backbone delivers."""

from __future__ import annotations

import re

import pytest
from torch import nn

from mmsnnet.models.host.head_check import check_channels
from tests.segmentors import (
    build_segmentor,
    head,
    multi_level_neck,
    setr_head,
    single_head,
    tiny_stitched,
)

PYRAMID = dict(type='Feature2Pyramid', embed_dim=64, norm_cfg=dict(type='BN'))


@pytest.mark.parametrize(
    'parts',
    [
        dict(head=setr_head()),
        dict(head=setr_head(in_index=-1)),
        dict(head=head('SegformerHead')),
        dict(head=head('FCNHead', input_transform='resize_concat')),
        dict(head=head('UPerHead', 32), neck=multi_level_neck()),
        dict(head=head('UPerHead'), neck=PYRAMID),
        dict(head=setr_head(), auxiliary=[single_head('FCNHead')]),
        dict(head=[single_head('FCNHead'), single_head('OCRHead', ocr_channels=8)],
             type='CascadeEncoderDecoder', num_stages=2),
    ],
)  # fmt: skip
def test_parts_that_fit_pass_and_run(parts):
    check_channels(build_segmentor(**parts))


class ReadsValues(nn.Module):
    """A neck that cannot run on shapes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(64, 16, 1)

    def forward(self, maps):
        maps = [self.project(item) for item in maps]
        return [item / item.abs().max().item() for item in maps]


def test_a_neck_that_needs_data_is_passed_over_with_the_heads_behind_it():
    model = build_segmentor(head=setr_head(16))
    model.neck = ReadsValues()
    check_channels(model)
    # The same neck would be refused for what it declares.
    model.neck.in_channels = [32] * 4
    with pytest.raises(ValueError, match=r'neck\.in_channels=\[32, 32, 32, 32\] of ReadsValues'):
        check_channels(model)


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        (
            dict(head=setr_head(768)),
            'decode_head.in_channels=768 of SETRUPHead does not fit the backbone, which delivers 4 '
            'maps of 64 channels at stride 8: put 64.',
        ),
        (
            dict(head=head('UPerHead', 48)),
            'decode_head.in_channels=[48, 48, 48, 48] of UPerHead does not fit the backbone, which '
            'delivers 4 maps of 64 channels at stride 8: put [64, 64, 64, 64].',
        ),
        (
            dict(head=head('FCNHead', 48, input_transform='resize_concat')),
            'put [64, 64, 64, 64].',
        ),
        (
            dict(head=head('UPerHead', 32), neck=multi_level_neck(768, 32)),
            'neck.in_channels=[768, 768, 768, 768] of MultiLevelNeck does not fit the backbone, '
            'which delivers 4 maps of 64 channels at stride 8: put [64, 64, 64, 64].',
        ),
        (
            dict(head=head('UPerHead', 32), neck=multi_level_neck() | dict(in_channels=[64] * 3)),
            'neck.in_channels=[64, 64, 64] of MultiLevelNeck',
        ),
        (
            dict(head=head('UPerHead', 64), neck=multi_level_neck()),
            'decode_head.in_channels=[64, 64, 64, 64] of UPerHead does not fit the neck '
            'MultiLevelNeck, which delivers 4 maps of 32 channels at strides [2, 4, 8, 16]: put '
            '[32, 32, 32, 32].',
        ),
        (
            dict(head=head('UPerHead', 48), neck=PYRAMID | dict(embed_dim=48)),
            'neck.embed_dim=48 of Feature2Pyramid does not fit the backbone, which delivers 4 maps '
            'of 64 channels at stride 8: put 64.',
        ),
        (
            dict(head=setr_head(in_index=4)),
            'decode_head.in_index=4 does not fit: the backbone delivers 4 maps, numbered 0 to 3.',
        ),
        (
            dict(head=setr_head(), auxiliary=single_head('FCNHead', 32)),
            'auxiliary_head.in_channels=32 of FCNHead does not fit the backbone, which delivers 4 '
            'maps of 64 channels at stride 8: put 64.',
        ),
        (
            dict(head=setr_head(), auxiliary=[single_head('FCNHead', n) for n in (64, 48)]),
            'auxiliary_head[1].in_channels=48',
        ),
        (
            dict(
                head=head(
                    *('DPTHead', 64),
                    **dict(embed_dims=48, post_process_channels=[8, 8, 8, 8]),
                    input_transform='multiple_select',
                ),
                backbone=tiny_stitched(output_cls_token=True),
            ),
            'decode_head.embed_dims=48 of DPTHead does not fit the backbone, which delivers 4 maps '
            'of 64 channels at stride 8: put 64.',
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_the_value_to_put(parts, message):
    model = build_segmentor(**parts)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        check_channels(model)
    assert '\n' not in str(caught.value)


def test_a_neck_for_another_number_of_maps_is_refused():
    model = build_segmentor(head('UPerHead'), PYRAMID | dict(rescales=[4, 2, 1]))
    with pytest.raises(ValueError, match='neck Feature2Pyramid does not take the 4 maps of 64'):
        check_channels(model)


def test_a_head_that_declares_nothing_is_passed_over():
    model = build_segmentor(setr_head(48))
    model.decode_head.in_index = None
    check_channels(model)


def test_a_layer_of_a_head_that_declares_nothing_is_named():
    model = build_segmentor(setr_head())
    model.decode_head.up_convs[0][0].conv = nn.Conv2d(48, 256, 1)
    with pytest.raises(ValueError, match='takes 48 channels and is given 64') as caught:
        check_channels(model)
    message = str(caught.value)
    assert message.startswith('decode_head SETRUPHead does not fit the backbone, which delivers 4')
    assert 'its layer decode_head.up_convs.0.0.conv (Conv2d)' in message and '\n' not in message


class Mixing(nn.Module):
    """A neck that keeps no argument."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(48, 48)

    def forward(self, maps):
        return [self.mix(item.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for item in maps]


def test_a_layer_of_a_neck_that_declares_nothing_is_named():
    model = build_segmentor(setr_head())
    model.neck = Mixing()
    with pytest.raises(ValueError, match=r'its layer neck\.mix \(Linear\) takes 48 .* given 64'):
        check_channels(model)


def test_no_hook_stays_on_a_layer():
    model = build_segmentor(**dict(head=head('UPerHead', 32), neck=multi_level_neck()))
    before = [len(module._forward_pre_hooks) for module in model.modules()]
    check_channels(model)
    assert [len(module._forward_pre_hooks) for module in model.modules()] == before
