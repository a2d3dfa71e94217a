"""Weights of the published classifiers in our network and back."""

from __future__ import annotations

import argparse

import pytest
import torch

from mmsnnet.convert import from_published, to_published
from tests.builders import random_images, shake, tiny_anchor
from tests.classifiers import build
from tests.test_configs.test_classification_recipes import full_size
from tests.test_convert.published_classifier import (
    RANK,
    SHAPES,
    PublishedClassifier,
    deit3_anchor,
    published_config,
    published_shapes,
    random_classifier,
)
from tests.test_convert.segmentor import build_model, published_segmentor
from tests.test_convert.test_conversion import segments
from tools.convert_snnetv2 import main

pytest.importorskip('mmpretrain', reason='classifiers are those of mmpretrain')
UNUSED = {f'stitch_layers.0.2.transform.{name}' for name in ('weight', 'bias', 'lora_A', 'lora_B')}


def published_model(**settings):
    return build(published_config(**settings)).eval()


@torch.no_grad()
def logits(model, stitch, images):
    with model.backbone.use_stitch(stitch):
        return model(images)


@torch.no_grad()
def test_every_stitch_of_the_converted_weights_gives_the_published_logits():
    state, model = random_classifier(), published_model()
    model.load_state_dict(from_published(state, model).state)
    network, images = PublishedClassifier(state), random_images()
    assert model.backbone.is_fitted and len(model.backbone.space) == 8
    for name in model.backbone.space.names:
        theirs = network.logits(segments(model.backbone, name), images)
        assert theirs.std() > 0.3
        torch.testing.assert_close(
            logits(model, name, images), theirs, rtol=1e-4, atol=2e-5, msg=name
        )


@torch.no_grad()
def test_weights_of_ours_give_the_same_logits_in_the_published_network():
    model, images = published_model(), random_images()
    shake(model, 5)
    network = PublishedClassifier(to_published(model.state_dict(), model).state)
    for name in model.backbone.space.names:
        theirs = network.logits(segments(model.backbone, name), images)
        torch.testing.assert_close(
            logits(model, name, images), theirs, rtol=1e-4, atol=1e-4, msg=name
        )


def test_going_there_and_back_changes_nothing_but_the_layer_that_no_stitch_uses():
    state, model = random_classifier(), published_model()
    back = to_published(from_published(state, model).state, model).state
    assert back.keys() == state.keys()
    for name, value in state.items():
        expected = torch.zeros_like(value) if name in UNUSED else value
        assert torch.equal(back[name], expected), name


def test_all_of_our_weights_are_written_and_a_meta_model_serves_as_well():
    state, model = random_classifier(), published_model()
    found = from_published(state, model).state
    assert found.keys() == model.state_dict().keys()
    with torch.device('meta'):
        meta = build(published_config())
    again = from_published(state, meta).state
    assert all(torch.equal(value, again[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ('recipe', 'anchors'),
    [
        ('cls_snnetv2_s-l_in1k', ((12, 384, 6), (24, 1024, 16))),
        ('cls_snnetv2_b-l_in1k', ((12, 768, 12), (24, 1024, 16))),
        ('cls_snnetv2_s-b_in1k', ((12, 384, 6), (12, 768, 12))),
    ],
)
def test_the_recipes_are_configs_of_files_of_the_published_sizes(recipe, anchors):
    model = full_size(recipe)
    shapes = published_shapes(anchors, grid=14, rank=64, classes=1000)
    state = {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}
    found = from_published(state, model)
    assert found.state.keys() == model.state_dict().keys()


def test_files_without_the_unused_layer_behind_a_wrapper_and_in_names_of_timm_are_understood():
    state, model = random_classifier(), published_model()
    other = {
        f'module.{name}'.replace('gamma_1', 'ls1.gamma').replace('gamma_2', 'ls2.gamma'): value
        for name, value in state.items()
        if name not in UNUSED
    }
    expected, found = (from_published(one, model).state for one in (state, other))
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_an_update_that_was_merged_already_is_taken_out_again():
    state, model = random_classifier(), published_model()
    merged = dict(state)
    for name in state:
        if name.endswith('transform.weight'):
            layer = name[: -len('weight')]
            update = state[f'{layer}lora_B'] @ state[f'{layer}lora_A'] / RANK
            merged[name] = state[name] + update
    expected = from_published(state, model).state
    for name, value in from_published(merged, model, lora_merged=True).state.items():
        torch.testing.assert_close(value, expected[name], msg=name)


def test_every_weight_without_counterpart_is_named_in_one_line():
    state = random_classifier()
    for name in ('anchors.1.head.bias', 'stitch_layers.1.1.transform.bias'):
        del state[name]
    state['head.weight'] = torch.zeros(1)
    with pytest.raises(ValueError, match=r'^3 weights do not match') as raised:
        from_published(state, published_model())
    for text in (
        'head.weight has no place',
        'head.classifiers.L.bias is missing',
        'backbone.stitch_layers.L4_to_S2.bias is missing',
    ):
        assert text in str(raised.value)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    ('settings', 'problem'),
    [
        (dict(head=dict(num_classes=7)), r'classifiers\.S\.weight|head\.weight would be \(5, 32\)'),
        (
            dict(anchors=[deit3_anchor(3, 32, 2), deit3_anchor(6, 64, 4)], head='wide'),
            r'anchors of 3 x 32 and 6 x 48 \(blocks x width\), the config of 3 x 32 and 6 x 64',
        ),
        (dict(head=dict(pool='avg')), "put head.pool='token' and head.fc_norm=False"),
        (dict(lora_rank=8), r'lora_A would be \(4, 32\) where the config has \(8, 32\)'),
        (dict(scheme='one_way'), r'stitch_layers\.1\.0\.transform\.weight has no place'),
        (dict(anchors=[tiny_anchor(3, 32), tiny_anchor(6, 48)]), 'Anchor S .* is no DeiT3'),
        (
            dict(anchors=[deit3_anchor(*shape, qk_norm=True) for shape in SHAPES]),
            r'backbone\.anchors\.L\.vit\.blocks\.0\.attn\.k_norm\.bias is missing',
        ),
    ],
)
def test_a_config_for_another_classifier_is_told(settings, problem):
    if settings.get('head') == 'wide':
        settings = settings | dict(head=dict(in_channels=dict(S=32, L=64)))
    with pytest.raises(ValueError, match=problem) as raised:
        from_published(random_classifier(), published_model(**settings))
    assert '\n' not in str(raised.value)


def test_the_tasks_are_told_apart():
    with pytest.raises(ValueError, match=r'is of a published classifier, .* EncoderDecoder'):
        from_published(random_classifier(), build_model())
    with pytest.raises(ValueError, match='not of a published SN-Netv2 classifier'):
        from_published(published_segmentor(), published_model())
    state, model = random_classifier(), published_model()
    ours = from_published(state, model).state
    with pytest.raises(ValueError, match=r'not of a published SN-Netv2 classifier.*--reverse'):
        from_published(ours, model)
    with pytest.raises(ValueError, match='classifiers have no position for the class token'):
        to_published(ours, model, class_position=True)


def test_the_command_converts_a_file_of_the_authors_training(tmp_path):
    text = "custom_imports = dict(imports=['mmsnnet'])\ndefault_scope = 'mmpretrain'\n"
    (tmp_path / 'config.py').write_text(f'{text}model = {published_config()!r}', encoding='utf-8')
    content = dict(model=random_classifier(), epoch=49, args=argparse.Namespace(lora_r=RANK))
    torch.save(content, tmp_path / 'in.pth')
    files = [str(tmp_path / name) for name in ('in.pth', 'out.pth', 'back.pth', 'config.py')]
    assert main([files[0], files[1], '--config', files[3]]) == 0
    published_model().load_state_dict(torch.load(files[1])['state_dict'])
    assert main([files[1], files[2], '--config', files[3], '--reverse']) == 0
    back = torch.load(files[2])['state_dict']
    assert back.keys() == content['model'].keys()
