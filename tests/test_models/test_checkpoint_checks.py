"""Checkpoints and arguments that are handed to a backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.runner import load_checkpoint
from torch import nn

from mmsnnet.models import StitchedViT, checkpoint_checks
from mmsnnet.models.argument_checks import check_inherited_arguments
from mmsnnet.models.checkpoint_checks import differences
from tests.builders import random_images, tiny_anchor, tiny_backbone


class Model(nn.Module):
    """What a segmentor is to a checkpoint: a backbone and a head."""

    def __init__(self, backbone: StitchedViT) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(4, 2)


def save(model: nn.Module, folder: Path) -> str:
    path = folder / 'model.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, path)
    return str(path)


def load(model: nn.Module, path: str) -> None:
    load_checkpoint(model, path, map_location='cpu', strict=False)


def test_a_checkpoint_of_equal_anchors_is_loaded(tmp_path):
    trained, fresh = Model(tiny_backbone()), Model(tiny_backbone(seed=1, fitted=False))
    load(fresh, save(trained, tmp_path))
    for name, value in trained.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value)
    assert fresh.backbone.is_fitted


@pytest.mark.parametrize(
    ('other', 'problem'),
    [
        (dict(shape=((6, 32), (12, 96))), r'shapes differ, e\.g\. anchors\.S\.vit\.cls_token'),
        (dict(shape=((3, 48), (12, 96))), r'weights are missing, e\.g\. anchors\.S\.vit\.blocks'),
        (dict(shape=((12, 48), (12, 96))), 'weights have no place here'),
        (dict(shape=((12, 96),)), r'weights are missing, e\.g\. anchors\.L'),
        (dict(kind='registers'), 'have no place here'),
        (dict(lora_rank=4), r'shapes differ, e\.g\. stitch_layers\.\w+\.lora_'),
        (dict(lora_rank=0), r'weights are missing, e\.g\. stitch_layers\.\w+\.lora_'),
        (dict(scheme='one_way'), r'weights are missing, e\.g\. stitch_layers\.L'),
        (dict(final_norm=True), 'have no place here, e.g. stitch_layers.lift'),
    ],
)
def test_a_checkpoint_of_another_backbone_is_refused_though_not_strict(tmp_path, other, problem):
    path = save(Model(tiny_backbone(**other)), tmp_path)
    model = Model(tiny_backbone(seed=1))
    message = rf'of another backbone than this StitchedViT \(S: 6 x 48, L: 12 x 96\): .*{problem}'
    with pytest.raises(ValueError, match=message) as raised:
        load(model, path)
    assert '\n' not in str(raised.value) and 'Use the anchors, scheme' in str(raised.value)


def test_a_checkpoint_of_the_head_alone_leaves_the_backbone(tmp_path):
    trained, model = Model(tiny_backbone()), Model(tiny_backbone(seed=1))
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    state = {f'head.{name}': value for name, value in trained.head.state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'head.pth')
    load(model, str(tmp_path / 'head.pth'))
    assert torch.equal(model.head.weight, trained.head.weight)
    assert all(torch.equal(v, before[n]) for n, v in model.backbone.state_dict().items())


@pytest.mark.parametrize('kind', ['class token', 'no_embed_class', 'registers'])
def test_a_checkpoint_of_another_image_size_is_resampled_as_timm_does(tmp_path, kind):
    trained = tiny_backbone(kind=kind, img_size=64)
    model = Model(tiny_backbone(kind=kind, img_size=(96, 48), seed=1))
    load(model, save(Model(trained), tmp_path))
    for label, anchor in trained.anchors.items():
        anchor.vit.set_input_size((96, 48))
        assert torch.equal(model.backbone.anchors[label].vit.pos_embed, anchor.vit.pos_embed)
    images = random_images(1, 96, 48)
    assert torch.equal(model.backbone(images)[0], trained(images)[0])


def test_a_checkpoint_of_an_oblong_size_that_does_not_say_its_grid_is_refused(tmp_path):
    model = Model(tiny_backbone(img_size=(32, 48)))
    state = {k: v for k, v in model.state_dict().items() if 'position_grid' not in k}
    path = str(tmp_path / 'model.pth')
    torch.save({'state_dict': state}, path)
    with pytest.raises(ValueError, match=r'e\.g\. anchors\.S\.vit\.pos_embed is \(1, 25, 48\)'):
        load(Model(tiny_backbone(img_size=64)), path)


def test_the_state_dict_that_is_given_to_torch_alone_is_checked_too():
    with pytest.raises(ValueError, match='of another backbone'):
        tiny_backbone().load_state_dict(tiny_backbone(((3, 48), (12, 96))).state_dict())


def test_loading_does_not_change_the_given_state_dict_of_torch():
    state = tiny_backbone(img_size=64).state_dict()
    shape = state['anchors.S.vit.pos_embed'].shape
    tiny_backbone(img_size=96).load_state_dict(state)
    assert state['anchors.S.vit.pos_embed'].shape == shape


def test_anchor_files_are_not_mistaken_for_a_backbone(tmp_path):
    model = Model(tiny_backbone())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save({'state_dict': {'blocks.0.norm1.weight': torch.ones(1)}}, tmp_path / 'vit.pth')
    load(model, str(tmp_path / 'vit.pth'))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_inherited_arguments_are_accepted_only_if_they_say_nothing():
    check_inherited_arguments({})
    check_inherited_arguments(dict(pretrained=None))
    with pytest.raises(ValueError, match=r'anchors=\[dict\(model_name=\.\.\.'):
        check_inherited_arguments(dict(pretrained='jx_vit.pth'))
    with pytest.raises(TypeError, match='does not take depth, width'):
        check_inherited_arguments(dict(width=1, depth=2))


def test_a_misspelt_argument_is_named():
    with pytest.raises(TypeError, match='StitchedViT does not take lora_rnak'):
        StitchedViT(anchors=[tiny_anchor(3, 48)], out_indices=(2,), lora_rnak=4)


def test_a_checkpoint_with_stitches_that_were_never_fitted_is_named(monkeypatch):
    given, lines = tiny_backbone(fitted=False).state_dict(), []
    monkeypatch.setattr(checkpoint_checks, 'print_log', lambda text, **_: lines.append(text))
    backbone = tiny_backbone()
    backbone.load_state_dict(tiny_backbone().state_dict())
    assert lines == []
    backbone.load_state_dict(given)
    assert len(lines) == 1 and 'were never fitted' in lines[0]


def test_equal_state_dicts_have_no_difference():
    state = nn.Linear(2, 3).state_dict()
    assert differences(state, dict(state)) == ''


def test_each_way_to_differ_is_counted_with_an_example():
    own = {'a': torch.zeros(2), 'b': torch.zeros(2), 'c': torch.zeros(2)}
    given = {'b': torch.zeros(3), 'c': torch.zeros(2), 'd': torch.zeros(1), 'e': torch.zeros(1)}
    assert differences(own, given) == (
        '1 shapes differ, e.g. b is (3,) there and (2,) here; 1 weights are missing, e.g. a; '
        '2 weights have no place here, e.g. d'
    )
    assert differences({'c': own['c']}, given, may_have_more=True) == ''


def test_a_part_can_be_loaded_by_those_who_ask_for_it():
    backbone, other = tiny_backbone(), tiny_backbone(seed=3)
    part = {k: v for k, v in other.state_dict().items() if k.startswith('anchors.S')}
    told = backbone.load_state_dict({**part, 'head.weight': torch.zeros(1)}, strict=False)
    assert all(torch.equal(backbone.state_dict()[name], part[name]) for name in part)
    assert any(name.startswith('anchors.L') for name in told.missing_keys)
    assert told.unexpected_keys == ['head.weight'] and not backbone.was_loaded


def test_a_part_of_another_shape_is_refused_even_so():
    part = {'anchors.S.vit.cls_token': torch.zeros(1, 1, 7)}
    with pytest.raises(ValueError, match=r'1 shapes differ, e\.g\. anchors\.S\.vit\.cls_token'):
        tiny_backbone().load_state_dict(part, strict=False)


def test_mmengine_still_refuses_a_part(tmp_path):
    state = tiny_backbone().state_dict()
    torch.save({k: v for k, v in state.items() if 'blocks.3' not in k}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='weights are missing'):
        load_checkpoint(tiny_backbone(), str(tmp_path / 'a.pth'))
