"""Classifiers of anchors in mmpretrain's ImageClassifier, against timm's own models."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from mmsnnet.models import heads
from mmsnnet.models.host.classifier_weights import check_filled, fill_classifiers
from mmsnnet.models.host.head_check import check_channels
from mmsnnet.models.stitch_network import AnchorTokens
from tests.builders import random_images, shake, tiny_anchor
from tests.classifiers import NUM_CLASSES, SHAPE, build, classifier

pytest.importorskip('mmpretrain', reason='StitchedClsHead extends a head of mmpretrain')

#: Models of timm that classify in each of the ways there are: name, arguments, settings of ours.
WAYS = {
    'ViT by its class token': ('vit_tiny_patch16_224', {}, {}, {}),
    'DeiT3': ('deit3_small_patch16_224', {}, {}, {}),
    'ViT by its mean, normed': (
        'vit_tiny_patch16_224',
        dict(global_pool='avg'),
        dict(pool='avg', fc_norm=True),
        dict(final_norm=False),
    ),
    'ViT by the mean of normed tokens': (
        'vit_tiny_patch16_224',
        dict(global_pool='avg', fc_norm=False),
        dict(pool='avg'),
        {},
    ),
    'BEiT': ('beit_base_patch16_224', {}, dict(pool='avg', fc_norm=True), dict(final_norm=False)),
    'EVA-02': (
        'eva02_tiny_patch14_224',
        {},
        dict(pool='avg', fc_norm=True),
        dict(final_norm=False),
    ),
}


def timm_vit(name: str, depth: int, width: int, classes: int = NUM_CLASSES, **more) -> nn.Module:
    """A classifier of timm with random weights, in eval mode."""
    arguments = dict(patch_size=8, depth=depth, embed_dim=width, num_heads=width // 16)
    vit = timm.create_model(name, img_size=64, num_classes=classes, **arguments, **more)
    shake(vit, depth)
    return vit.eval()


def stitched(tmp_path, way: str, classes: int = NUM_CLASSES, **head):
    """A stitched classifier from files of timm's models, and these models."""
    name, arguments, ours, backbone = WAYS[way]
    vits, anchors = [], []
    for depth, width in SHAPE:
        vit = timm_vit(name, depth, width, classes, **arguments)
        file = tmp_path / f'{width}.pth'
        torch.save(vit.state_dict(), file)
        anchor = dict(tiny_anchor(depth, width), model_name=name, checkpoint=str(file))
        anchor['model_kwargs'] = {**anchor['model_kwargs'], **arguments}
        vits.append(vit)
        anchors.append(anchor)
    model = build(classifier(head=ours | head, anchors=anchors, **backbone))
    check_channels(model)
    model.init_weights()
    return model.eval(), vits


@pytest.mark.parametrize('way', WAYS)
@torch.no_grad()
def test_each_anchor_alone_returns_the_logits_of_timm_bit_for_bit(tmp_path, way):
    model, vits = stitched(tmp_path, way)
    lines = map(str, fill_classifiers(model))
    assert [line.split(' starts ')[0] for line in lines] == [
        'Classifier of anchor S', 'Classifier of anchor L',
    ]  # fmt: skip
    images = random_images(3)
    for name, vit in zip(('S3', 'L6'), vits):
        with model.backbone.use_stitch(name):
            assert torch.equal(model(images), vit(images))


@torch.no_grad()
@pytest.mark.parametrize('pool', [dict(pool='avg'), dict(pool='avg', fc_norm=True)])
def test_anchors_that_were_trained_alone_as_classifiers_bring_their_classifier(tmp_path, pool):
    anchors, alone = [], []
    for label, (depth, width) in zip('SL', SHAPE):
        anchor = dict(tiny_anchor(depth, width), label=label)
        config = classifier(
            head=dict(pool, in_channels={label: width}), anchors=[anchor], out_indices=depth - 1
        )
        model = build(config).eval()
        shake(model, depth)
        file = str(tmp_path / f'{label}.pth')
        torch.save(dict(state_dict=model.state_dict(), meta={}), file)
        prefix = f'backbone.anchors.{label}.vit.'
        anchors.append(dict(anchor, checkpoint=file, checkpoint_prefix=prefix))
        alone.append(model)
    model = build(classifier(head=pool, anchors=anchors)).eval()
    model.init_weights()
    check_filled(model, fill_classifiers(model))
    for name, one in zip(('S3', 'L6'), alone):
        with model.backbone.use_stitch(name):
            assert torch.equal(model(random_images(3)), one(random_images(3)))


@torch.no_grad()
def test_a_stitch_is_classified_by_the_anchor_it_ends_in(tmp_path):
    model, (small, _) = stitched(tmp_path, 'ViT by its class token')
    fill_classifiers(model)
    (found,) = model.backbone.run(random_images(), 'L2-S2')
    with model.backbone.use_stitch('L2-S2'):
        logits = model(random_images())
    assert torch.equal(logits, small.head(found.tokens[:, 0]))


def test_classifiers_of_another_number_of_classes_stay_and_are_named(tmp_path):
    model, _ = stitched(tmp_path, 'DeiT3', classes=7)
    before = model.head.classifiers['S'].weight.clone()
    lines = [str(start) for start in fill_classifiers(model)]
    assert len(lines) == 2
    told = 'has 7 classes and head.num_classes=5'
    assert all('at random' in line and told in line for line in lines)
    assert torch.equal(model.head.classifiers['S'].weight, before)


@pytest.mark.parametrize(
    ('way', 'head', 'reason'),
    [
        ('BEiT', dict(fc_norm=False), 'normalises what it pools: put head.fc_norm=True'),
        ('DeiT3', dict(fc_norm=True), 'does not normalise what it pools: put head.fc_norm=False'),
    ],
)
def test_classifiers_behind_another_pooling_stay_and_say_what_to_put(tmp_path, way, head, reason):
    model, _ = stitched(tmp_path, way, **head)
    assert all(reason in str(start) for start in fill_classifiers(model))


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (lambda state: (state.pop('head.weight'), state.pop('head.bias')), 'holds no classifier'),
        (lambda state: state.update({'head_dist.weight': torch.zeros(5, 32)}), 'two classifiers'),
        (lambda state: state.pop('head.bias'), r'does not fit: .*head\.bias'),
    ],
)
def test_files_without_one_classifier_are_named_and_refused_where_it_was_asked_for(
    tmp_path, change, reason
):
    model, _ = stitched(tmp_path, 'DeiT3')
    state = torch.load(tmp_path / '32.pth', weights_only=True)
    change(state)
    torch.save(state, tmp_path / '32.pth')
    model.backbone.init_weights()
    with pytest.raises(ValueError, match=rf'32\.pth .*{reason}') as raised:
        check_filled(model, fill_classifiers(model))
    assert '48.pth' not in str(raised.value) and '\n' not in str(raised.value)


def test_pretrained_classifiers_are_asked_of_all_anchors_and_of_their_own_head():
    model = build(classifier())
    with pytest.raises(ValueError, match='anchor S loads no weights; anchor L loads no weights'):
        check_filled(model, fill_classifiers(model))
    other = build(other_head(lift_taps=True))
    with pytest.raises(ValueError, match=r'fills a StitchedClsHead, .* has LinearClsHead'):
        check_filled(other, fill_classifiers(other))


def test_filling_twice_changes_nothing_the_second_time(tmp_path):
    model, _ = stitched(tmp_path, 'DeiT3')
    fill_classifiers(model)
    shake(model.head)
    before = model.head.classifiers['L'].weight.clone()
    assert fill_classifiers(model) == []
    assert torch.equal(model.head.classifiers['L'].weight, before)


def test_weights_by_name_are_asked_of_timm_with_their_classifier(monkeypatch):
    asked, create = [], timm.create_model

    def offline(name, pretrained=False, **arguments):
        if pretrained:
            asked.append(arguments)
        return create(name, pretrained=False, **arguments)

    monkeypatch.setattr(timm, 'create_model', offline)
    anchors = [dict(tiny_anchor(*one), pretrained=True) for one in SHAPE]
    model = build(classifier(anchors=anchors, head=dict(num_classes=1000)))
    model.init_weights()
    assert len(asked) == 2 and not any('num_classes' in item for item in asked)
    assert all('starts from timm vit_tiny' in str(start) for start in fill_classifiers(model))


def test_weights_are_named_by_label():
    head = build(classifier(head=dict(fc_norm=True))).head
    assert set(head.state_dict()) == {
        f'{part}.{label}.{name}'
        for part in ('classifiers', 'fc_norms')
        for label in 'SL'
        for name in ('weight', 'bias')
    }


@pytest.mark.parametrize(
    ('head', 'backbone', 'message'),
    [
        (dict(in_channels=dict(S=32, L=64)), {}, r'in_channels=.* put dict\(S=32, L=48\)'),
        (dict(in_channels=dict(A=32, B=48)), {}, r'put dict\(S=32, L=48\)'),
        ({}, dict(final_norm=False), r'put backbone\.final_norm=True'),
        ({}, dict(lift_taps=True), r'lift_taps=False and backbone\.out_indices=\(5,\)'),
        ({}, dict(lift_taps=True, output_cls_token=True), 'output_cls_token=True delivers pairs'),
    ],
)
def test_a_head_for_another_backbone_is_refused(head, backbone, message):
    with pytest.raises(ValueError, match=message):
        check_channels(build(classifier(head=head, **backbone)))


def test_a_class_token_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"needs a class token, anchors have none: put 'avg'"):
        check_channels(build(classifier('no class token', final_norm=False)))


def other_head(**backbone):
    config = classifier(**backbone)
    config['head'] = dict(type='LinearClsHead', num_classes=NUM_CLASSES, in_channels=48)
    config['neck'] = dict(type='GlobalAveragePooling')
    return config


def test_heads_of_one_set_of_weights_are_refused_where_nothing_is_lifted():
    with pytest.raises(ValueError, match='LinearClsHead has one set of weights'):
        check_channels(build(other_head()))


def test_heads_of_mmpretrain_are_checked_against_the_lifted_width():
    config = other_head(lift_taps=True)
    check_channels(build(config))
    config['head']['in_channels'] = 32
    with pytest.raises(ValueError, match=r'head LinearClsHead does not fit .*48'):
        check_channels(build(config))


def test_a_neck_before_the_head_is_refused():
    config = dict(classifier(), neck=dict(type='GlobalAveragePooling'))
    with pytest.raises(ValueError, match='put neck=None'):
        check_channels(build(config))


@pytest.mark.parametrize(
    ('settings', 'error', 'message'),
    [
        (dict(pool='max'), ValueError, "pool='max' .* 'token', 'avg'"),
        (dict(num_classes=0), ValueError, 'num_classes of StitchedClsHead must be 1 or more'),
        (dict(in_channels=384), TypeError, r'such as dict\(S=384, L=1024\), got 384'),
        (dict(in_channels=dict(S='wide')), TypeError, 'S of StitchedClsHead must be an integer'),
        (dict(fc_norm='yes'), TypeError, 'fc_norm of StitchedClsHead must be True or False'),
    ],
)
def test_arguments_that_are_not_possible_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        heads.build_stitched_cls_head(**(dict(num_classes=3, in_channels=dict(S=8)) | settings))


def test_maps_in_place_of_tokens_are_refused():
    head = heads.build_stitched_cls_head(num_classes=3, in_channels=dict(S=8))
    with pytest.raises(TypeError, match='put lift_taps=False into StitchedViT'):
        head((torch.zeros(1, 8, 4, 4),))
    assert head((AnchorTokens(torch.zeros(1, 5, 8), 'S', 1),)).shape == (1, 3)
