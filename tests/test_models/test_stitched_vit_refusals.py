"""What the stitched backbone refuses, and how it says so."""

from __future__ import annotations

import math

import pytest
from mmengine import ConfigDict
from mmengine.registry import MODELS, init_default_scope

from mmsnnet.models import StitchedViT
from tests.builders import tiny_anchor, tiny_backbone


def make(**settings) -> StitchedViT:
    settings.setdefault('anchors', [tiny_anchor(3, 48), tiny_anchor(6, 96)])
    return StitchedViT(**{'img_size': 64, 'out_indices': (5,), **settings})


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(anchors=['vit_tiny_patch17']), "no model 'vit_tiny_patch17'; closest names"),
        (dict(anchors=['swin_tiny_patch4_window7_224']), 'is of class SwinTransformer'),
        (dict(anchors=[]), 'Cannot label 0 anchors: 1 to 26 are possible'),
        (
            dict(anchors=[tiny_anchor(6, 48), tiny_anchor(3, 96)]),
            r'S and L cannot be stitched: the cheaper one has the larger depth \(6 > 3\)',
        ),
        (
            dict(anchors=[tiny_anchor(1, 96), tiny_anchor(12, 48)]),
            r'the cheaper one has the larger width \(96 > 48\)',
        ),
        (
            dict(anchors=[tiny_anchor(3, 48), 'vit_small_patch16_224']),
            'patch sizes 8 and 16 differ',
        ),
        (
            dict(anchors=[tiny_anchor(3, 48), tiny_anchor(6, 96, 'registers')]),
            'they have 1 and 5 class and register tokens',
        ),
        (
            dict(anchors=[tiny_anchor(3, 48, label='keys'), tiny_anchor(6, 96)]),
            "Anchor label 'keys' is a word of torch; choose another",
        ),
        (
            dict(anchors=[tiny_anchor(3, 48, label='S1'), tiny_anchor(6, 96)]),
            "Anchor label 'S1' is not allowed: use letters only",
        ),
        (
            dict(anchors=[tiny_anchor(3, 48, label='L'), tiny_anchor(6, 96)]),
            r"Anchor labels \['L', 'L'\] are not unique",
        ),
        (dict(out_indices=(5, 6)), r'out_indices \(5, 6\) hold 6, but .* blocks 0 to 5'),
        (dict(out_indices=(-1,)), 'hold -1'),
        (dict(out_indices=(3, 2)), r'out_indices \(3, 2\) must increase strictly'),
        (dict(out_indices=(3, 3)), 'must increase strictly'),
        (dict(out_indices=()), 'No out_indices given'),
        (dict(scheme='three_way'), "Unknown scheme 'three_way'; choose one of"),
        (dict(scheme=dict(max_crosings=1)), r"Unknown scheme fields \['max_crosings'\]"),
        (dict(stitch='S9'), "Unknown stitch 'S9'"),
        (dict(lora_rank=-1), r'lora_rank must be 0 \(no LoRA\) or more'),
        (dict(frozen_stages=7), 'frozen_stages=7 is not possible'),
        (dict(img_size=0), 'image size must be positive'),
        (dict(img_size=7), r'img_size=\(7, 7\) is smaller than a patch of the anchors, 8 x 8'),
        (dict(img_size=(64, 5)), r'img_size=\(64, 5\) is smaller than a patch'),
        (dict(lora_alpha=math.nan), 'lora_alpha must be a finite number, got nan'),
        (dict(lora_alpha=math.inf), 'lora_alpha must be a finite number, got inf'),
        (dict(lora_alpha=-1), 'lora_alpha must be positive, got -1'),
        (dict(lora_alpha=0), 'lora_alpha must be positive, got 0'),
        (dict(drop_path_rate=math.nan), 'drop_path_rate=nan is not possible'),
        (dict(pretrained='weights.pth'), r"pretrained='weights\.pth' .* model\.pretrained=None"),
    ],
)
def test_values_that_are_not_possible_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as raised:
        make(**settings)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(embed_dims=768, num_layers=12), r'embed_dims, num_layers.*_delete_=True'),
        (dict(anchors=[3]), 'timm model name or a dict with model_name, got int'),
        (dict(out_indices=(1.5,)), r'out_indices must be integers, got 1\.5'),
        (dict(img_size='large'), 'one integer or a pair'),
        (dict(anchors=None), 'anchors must be a list of timm names or dicts, got None'),
        (dict(lora_rank=1.5), r'lora_rank must be an integer, got 1\.5'),
        (dict(scheme=3), 'scheme must be a name or a dict, got int'),
        (dict(lora_rank=True), 'lora_rank must be an integer, got True'),
        (dict(lora_alpha='1'), "lora_alpha must be a number, got '1'"),
        (dict(frozen_stages=1.5), r'frozen_stages must be an integer, got 1\.5'),
        (dict(frozen_stages=True), 'frozen_stages must be an integer, got True'),
        (dict(frozen_stages='all'), "frozen_stages must be an integer, got 'all'"),
        (dict(with_cp='x'), "with_cp must be True or False, got 'x'"),
        (dict(output_cls_token=1), 'output_cls_token must be True or False, got 1'),
        (dict(final_norm='x'), "final_norm must be True or False, got 'x'"),
        (dict(drop_path_rate='0.1'), "drop_path_rate must be a number .* got '0.1'"),
        (dict(drop_path_rate=False), 'drop_path_rate must be a number .* got False'),
        (dict(out_indices=None), 'out_indices must be integers, .* got None'),
        (dict(out_indices=1.5), r'out_indices must be integers, .* got 1\.5'),
        (dict(out_indices='5'), "out_indices must be integers, .* got '5'"),
        (dict(out_indices=(1, True)), 'out_indices must be integers, got True'),
        (dict(stitch=1.5), r'given by name or id, got 1\.5'),
        (dict(sampler='UniformStitchSampler'), "must be None or a dict with type.*got 'Uniform"),
        (dict(sampler=dict(seed=1)), r"must be None or a dict with type.*got \{'seed': 1\}"),
    ],
)
def test_values_of_another_type_are_refused_in_one_line(settings, message):
    with pytest.raises(TypeError, match=message) as raised:
        make(**settings)
    assert '\n' not in str(raised.value)


def test_an_old_backbone_merged_into_the_new_one_is_told_how_to_be_replaced():
    # What mmseg's own ViT configs leave behind when _delete_=True is forgotten.
    left = dict(patch_size=16, embed_dims=768, num_heads=12, interpolate_mode='bicubic')
    with pytest.raises(TypeError, match=r"backbone=dict\(_delete_=True, type='StitchedViT', "):
        make(**left)


def test_pretrained_none_of_a_segmentor_is_accepted():
    assert len(make(pretrained=None).space) == len(make().space)


def test_pretrained_of_a_segmentor_is_refused_inside_it():
    init_default_scope('mmseg')
    head = dict(type='FCNHead', in_channels=96, channels=8, num_convs=1, num_classes=5)
    backbone = dict(type='StitchedViT', anchors=[tiny_anchor(3, 48)], out_indices=(2,))
    config = dict(type='EncoderDecoder', pretrained='x.pth', backbone=backbone, decode_head=head)
    with pytest.raises(ValueError, match=r"pretrained='x\.pth' of the model cannot serve"):
        MODELS.build(ConfigDict(config))


def test_anchors_are_ordered_by_cost_whatever_their_order():
    anchors = [tiny_anchor(6, 96), tiny_anchor(3, 48)]
    backbone = make(anchors=anchors)
    assert [a.width for a in backbone.space.anchors] == [48, 96]
    assert list(backbone.anchors) == ['S', 'L']


def test_labels_of_the_config_name_the_stitches():
    anchors = [tiny_anchor(6, 96, label='Big'), tiny_anchor(3, 48, label='Ti')]
    backbone = make(anchors=anchors)
    assert backbone.space.names[:3] == ('Ti3', 'Big6', 'Ti1-Big4')
    assert set(backbone.anchors) == {'Ti', 'Big'}


@pytest.mark.parametrize('rate', [-0.1, 1.0, 1.5, math.inf])
def test_a_rate_of_stochastic_depth_outside_of_0_to_1_is_refused(rate):
    with pytest.raises(ValueError, match=rf'drop_path_rate={rate} is not possible'):
        tiny_backbone(drop_path_rate=rate)
