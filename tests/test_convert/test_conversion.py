"""Weights of the published layout in our network and back."""

from __future__ import annotations

import re

import pytest
import torch

from mmsnnet.convert import from_published, to_published
from mmsnnet.models import StitchedViT
from tests.builders import random_images, shake, tiny_anchor
from tests.segmentors import build
from tests.test_convert.published_network import RANK, SHAPES, PublishedNetwork, random_state
from tests.test_convert.segmentor import (
    build_model,
    published_anchor,
    published_segmentor,
    segmentor_config,
)


def segments(backbone: StitchedViT, name: str) -> list[tuple[int, int, int]]:
    """(anchor, start, stop) from the name of a stitch; 3 blocks stand beside 6."""
    found, end = [], 0.0  # end in blocks of the small anchor
    for label, count in re.findall(r'([SL])(\d+)', name):
        scale = 1 if label == 'S' else 2
        start = int(end * scale)
        found.append((int(label == 'L'), start, start + int(count)))
        end += int(count) / scale
    return found


@torch.no_grad()
@pytest.mark.parametrize('class_position', [False, True])
def test_every_route_of_the_converted_weights_gives_the_published_maps(class_position):
    state, model = random_state(class_position=class_position), build_model()
    published = {f'backbone.{name}': value for name, value in state.items()}
    found = from_published(published, model, allow=['decode_head.*', 'auxiliary_head.*'])
    model.load_state_dict(found.state, strict=False)
    backbone, network, images = model.backbone, PublishedNetwork(state), random_images()
    assert backbone.is_fitted and len(backbone.space) == 8
    for name in backbone.space.names:
        ours, theirs = backbone.run(images, name), network.run(segments(backbone, name), images)
        assert len(ours) == len(theirs) == 3
        for a, b in zip(ours, theirs):
            assert b.std() > 0.3
            torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5, msg=name)


def test_weights_of_heads_keep_their_names_and_values():
    state, model = published_segmentor(), build_model()
    found = from_published(state, model)
    heads = [name for name in state if not name.startswith('backbone.')]
    assert len(heads) > 10 and any(name.startswith('auxiliary_head.0.') for name in heads)
    assert all(torch.equal(found.state[name], state[name]) for name in heads)
    assert not found.unmatched and not found.missing
    assert set(found.state) == set(model.state_dict())


def test_a_model_on_the_meta_device_serves_as_well():
    state = published_segmentor()
    expected = from_published(state, build_model()).state
    found = from_published(state, build(segmentor_config(), 'meta')).state
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_going_there_and_back_changes_nothing_but_the_key_bias():
    state, model = published_segmentor(), build_model()
    back = to_published(from_published(state, model).state, model).state
    assert back.keys() == state.keys()
    for name, value in state.items():
        if name.endswith('qkv.bias'):
            query, key, value_bias = back[name].chunk(3)
            assert not key.any()
            assert torch.equal(query, value.chunk(3)[0])
            assert torch.equal(value_bias, value.chunk(3)[2])
        else:
            assert torch.equal(back[name], value), name


@torch.no_grad()
def test_weights_of_ours_give_the_same_maps_in_the_published_network():
    model = build_model()
    shake(model, 5)
    state = to_published(model.state_dict(), model).state
    network = PublishedNetwork(
        {name[9:]: value for name, value in state.items() if name.startswith('backbone.')}
    )
    images = random_images()
    for name in ('S3', 'L6', 'S1-L4', 'L4-S1', 'L2-S1-L2', 'S1-L2-S1'):
        theirs = network.run(segments(model.backbone, name), images)
        for a, b in zip(model.backbone.run(images, name), theirs):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=name)


def test_an_update_that_was_merged_already_is_taken_out_again():
    state, model = published_segmentor(), build_model()
    merged = dict(state)
    for name in state:
        if name.endswith('transform.weight'):
            layer = name[: -len('weight')]
            update = state[f'{layer}lora_B'] @ state[f'{layer}lora_A'] / RANK
            merged[name] = state[name] + update
    expected = from_published(state, model).state
    for name, value in from_published(merged, model, lora_merged=True).state.items():
        torch.testing.assert_close(value, expected[name], msg=name)
    wrong = from_published(merged, model).state
    key = 'backbone.stitch_layers.S1_to_L2.weight'
    assert (wrong[key] - expected[key]).abs().max() > 0.01


def test_a_backbone_alone_may_stand_without_its_prefix():
    allow = ['decode_head.*', 'auxiliary_head.*']
    found = from_published(random_state(), build_model(), allow)
    assert all(name.startswith('backbone.') for name in found.state)
    assert len(found.missing) > 10 and not found.unmatched


def test_every_weight_without_counterpart_is_named():
    state = published_segmentor()
    for name in ('backbone.stitch_layers.0.1.transform.bias', 'decode_head.conv_seg.bias'):
        del state[name]
    state['backbone.anchors.0.ln1.weight'] = torch.zeros(32)
    state['neck.conv.weight'] = torch.zeros(1)
    with pytest.raises(ValueError, match=r'^4 weights do not match') as raised:
        from_published(state, build_model())
    for text in (
        'backbone.anchors.0.ln1.weight has no place',
        'neck.conv.weight has no place',
        'backbone.stitch_layers.S2_to_L4.bias is missing',
        'decode_head.conv_seg.bias is missing',
    ):
        assert text in str(raised.value)
    assert '\n' not in str(raised.value)


def test_what_is_allowed_is_left_out_and_told():
    state = published_segmentor()
    del state['decode_head.conv_seg.bias']
    state['neck.conv.weight'] = torch.zeros(1)
    with pytest.raises(ValueError, match=r'^1 weights do not match.*decode_head\.conv_seg\.bias'):
        from_published(state, build_model(), ['neck.*'])
    found = from_published(state, build_model(), ['neck.*', 'decode_head.conv_seg.bias'])
    assert list(found.unmatched) == ['neck.conv.weight']
    assert found.missing == ('decode_head.conv_seg.bias',)


def test_a_head_for_other_classes_is_named_with_both_shapes():
    state = published_segmentor()
    state['decode_head.conv_seg.weight'] = torch.zeros(150, 16, 1, 1)
    text = r'conv_seg\.weight would be \(150, 16, 1, 1\) where the config has \(5, 16, 1, 1\)'
    with pytest.raises(ValueError, match=text):
        from_published(state, build_model())


@pytest.mark.parametrize(
    ('backbone', 'problem'),
    [
        (
            dict(anchors=[published_anchor(3, 32, 2), published_anchor(6, 64, 4)]),
            r'anchors of 3 x 32 and 6 x 48 \(blocks x width\), the config of 3 x 32 and 6 x 64',
        ),
        (dict(anchors=[published_anchor(6, 48, 3)]), 'anchors of 3 x 32 and 6 x 48.*of 6 x 48'),
        (dict(img_size=96), r'pos_embed would be \(1, 17, 32\) where the config has \(1, 37, 32\)'),
        (dict(lora_rank=8), r'lora_A would be \(4, 32\) where the config has \(8, 32\)'),
        (dict(lora_rank=0), 'lora_A has no place'),
        (dict(scheme='one_way'), r'stitch_layers\.1\.0\.transform\.weight has no place'),
        (dict(final_norm=True), 'no final norm: set final_norm=False'),
        (
            dict(anchors=[tiny_anchor(3, 32), tiny_anchor(6, 48)]),
            "no relative position bias in each block.*model_name='beit_base_patch16_224'",
        ),
        (
            dict(anchors=[tiny_anchor(3, 32, 'shared table'), tiny_anchor(6, 48)]),
            'no relative position bias in each block',
        ),
    ],
)
def test_a_config_for_another_backbone_is_told(backbone, problem):
    with pytest.raises(ValueError, match=problem) as raised:
        from_published(published_segmentor(), build_model(**backbone))
    assert '\n' not in str(raised.value)


def test_three_anchors_have_no_published_layout():
    shapes = ((2, 32, 2), *SHAPES)
    model = build_model(anchors=[published_anchor(*shape) for shape in shapes])
    with pytest.raises(ValueError, match=r'Published checkpoints have two anchors, .* 3 '):
        to_published(model.state_dict(), model)


def test_each_direction_refuses_the_layout_of_the_other():
    state, model = published_segmentor(), build_model()
    with pytest.raises(ValueError, match=r'not of this StitchedViT: it has no backbone\.anchors'):
        to_published(state, model)
    with pytest.raises(ValueError, match=r'not of a published SN-Netv2.*--reverse'):
        from_published(model.state_dict(), model)


def test_another_numbering_of_relative_positions_is_refused():
    state = published_segmentor()
    key = 'backbone.anchors.0.layers.0.attn.relative_position_index'
    state[key] = state[key].T.clone()
    with pytest.raises(ValueError, match='another order'):
        from_published(state, build_model())


def timm_spelling(name: str) -> str:
    for theirs, timms in (
        ('.layers.', '.blocks.'),
        ('.ffn.blocks.0.0', '.mlp.fc1'),
        ('.ffn.blocks.1', '.mlp.fc2'),
        ('.ln1.', '.norm1.'),
        ('.ln2.', '.norm2.'),
        ('.projection.', '.proj.'),
    ):
        name = name.replace(theirs, timms)
    return name


def separate_biases(state):
    separate = {}
    for name, value in state.items():
        if name.endswith('qkv.bias'):
            query, _, of_value = value.chunk(3)
            separate[name.replace('qkv.bias', 'q_bias')] = query
            separate[name.replace('qkv.bias', 'v_bias')] = of_value
        else:
            separate[name] = value
    return separate


SPELLINGS = {
    'wrapped for several processes': lambda s: {f'module.{k}': v for k, v in s.items()},
    'timm': lambda s: {timm_spelling(k): v for k, v in s.items()},
    'DeiT3 of today': lambda s: {
        timm_spelling(k).replace('.gamma_1', '.ls1.gamma').replace('.gamma_2', '.ls2.gamma'): v
        for k, v in s.items()
    },
    'separate biases': separate_biases,
    'without indices': lambda s: {k: v for k, v in s.items() if 'position_index' not in k},
}


@pytest.mark.parametrize('spelling', SPELLINGS)
def test_other_spellings_of_the_published_layout_give_the_same_weights(spelling):
    state, model = published_segmentor(), build_model()
    given = SPELLINGS[spelling](state)
    assert given.keys() != state.keys()
    expected, found = from_published(state, model).state, from_published(given, model).state
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_a_wrapped_backbone_alone_is_converted_too():
    given = {f'module.{name}': value for name, value in random_state().items()}
    allow = ['decode_head.*', 'auxiliary_head.*']
    expected = from_published(random_state(), build_model(), allow).state
    assert from_published(given, build_model(), allow).state.keys() == expected.keys()


def test_a_row_for_the_class_token_is_kept_on_the_way_back_on_request():
    model = build_model()
    state = published_segmentor()
    for number, width in enumerate((32, 48)):
        state[f'backbone.anchors.{number}.pos_embed'] = torch.randn(1, 17, width)
    ours = from_published(state, model).state
    back = to_published(ours, model, class_position=True).state
    for number, label in enumerate('SL'):
        for name in ('cls_token', 'pos_embed'):
            key = f'backbone.anchors.{number}.{name}'
            assert torch.equal(back[key], state[key])
            assert torch.equal(ours[f'backbone.anchors.{label}.vit.{name}'], state[key])
    folded = to_published(ours, model).state
    assert folded['backbone.anchors.0.pos_embed'].shape == (1, 16, 32)
    key = 'backbone.anchors.0.cls_token'
    assert torch.equal(folded[key], state[key] + state['backbone.anchors.0.pos_embed'][:, :1])


def test_weights_of_ours_wrapped_for_several_processes_go_back_too():
    model = build_model()
    wrapped = {f'module.{name}': value for name, value in model.state_dict().items()}
    assert to_published(wrapped, model).state.keys() == published_segmentor().keys()


def test_anchors_without_class_token_are_told_by_its_name():
    state = published_segmentor()
    del state['backbone.anchors.0.cls_token']
    with pytest.raises(ValueError, match=r'anchors\.S\.vit\.cls_token is missing'):
        from_published(state, build_model())
