"""Loading pretrained weights into rotary and relative-bias anchors."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from mmsnnet.models import AnchorConfig, AnchorViT, build_anchor
from mmsnnet.models.anchors.anchor_weights import load_anchor_weights
from tests.builders import shake, tiny_anchor, tiny_vit

pytestmark = pytest.mark.filterwarnings(r'ignore:::timm\.layers\.interpolate')


def make_state(kind: str, img_size: int = 64) -> dict[str, Tensor]:
    vit = tiny_vit(3, 48, kind, img_size)
    shake(vit, 1)
    return vit.state_dict()


def load(path: Path | str, kind: str, img_size: int = 64, **settings) -> AnchorViT:
    config = AnchorConfig.parse(tiny_anchor(3, 48, kind, checkpoint=str(path), **settings))
    anchor = build_anchor(config, (img_size, img_size))
    load_anchor_weights(anchor)
    return anchor


def assert_equal(anchor: AnchorViT, state: dict[str, Tensor]) -> None:
    own = anchor.vit.state_dict()
    assert own and all(torch.equal(own[name], state[name]) for name in own)


@pytest.mark.parametrize('kind', ['EVA-02', 'DINOv3', 'mixed rotary', 'BEiT', 'shared table'])
def test_a_local_file_is_loaded(tmp_path, kind):
    state = make_state(kind)
    torch.save({'model': state}, tmp_path / 'vit.pth')
    assert_equal(load(tmp_path / 'vit.pth', kind), state)


@pytest.mark.parametrize('kind', ['EVA-02', 'BEiT', 'published', 'shared table'])
def test_positions_of_another_image_size_are_resampled_as_timm_does(tmp_path, kind):
    state = make_state(kind)
    torch.save(state, tmp_path / 'vit.pth')
    vit = tiny_vit(3, 48, kind)
    vit.load_state_dict(state)
    vit.set_input_size((96, 96))
    expected = vit.state_dict()
    assert any(expected[name].shape != state[name].shape for name in state)
    assert_equal(load(tmp_path / 'vit.pth', kind, 96), expected)


def test_published_names_of_eva_02_are_understood(tmp_path):
    state = make_state('EVA-02')
    names = (
        ('mlp.fc1_g', 'mlp.w1'),
        ('mlp.fc1_x', 'mlp.w2'),
        ('mlp.fc2', 'mlp.w3'),
        ('mlp.norm', 'mlp.ffn_ln'),
        ('q_proj.bias', 'q_bias'),
        ('v_proj.bias', 'v_bias'),
    )
    published = {}
    for name, value in state.items():
        for ours, theirs in names:
            name = name.replace(ours, theirs)
        published[name] = value
    assert not any('fc1' in name for name in published)
    torch.save({'module': published}, tmp_path / 'eva.pth')
    with pytest.raises(ValueError, match='do not fit the anchor'):  # one level too deep
        load(tmp_path / 'eva.pth', 'EVA')
    torch.save(published, tmp_path / 'eva.pth')
    assert_equal(load(tmp_path / 'eva.pth', 'EVA-02'), state)


@pytest.mark.parametrize('kind', ['DINOv3', 'BEiT'])
def test_weights_by_name_are_asked_of_timm_at_the_size_of_the_anchor(monkeypatch, kind):
    asked, create = [], timm.create_model

    def offline(name, pretrained=False, **arguments):
        if pretrained:
            asked.append(arguments)
        return create(name, pretrained=False, **arguments)

    monkeypatch.setattr(timm, 'create_model', offline)
    config = AnchorConfig.parse({**tiny_anchor(2, 48, kind), 'pretrained': True})
    load_anchor_weights(build_anchor(config, (96, 48)))
    assert [tuple(item['img_size']) for item in asked] == [(96, 48)]
    assert ('dynamic_img_size' in asked[0]) == (kind == 'DINOv3')


@pytest.mark.parametrize(
    ('kind', 'other'), [('BEiT', 'published'), ('DINOv3', 'EVA'), ('BEiT', 'class token')]
)
def test_weights_of_another_architecture_are_refused_in_one_line(tmp_path, kind, other):
    torch.save(make_state(other), tmp_path / 'vit.pth')
    with pytest.raises(ValueError, match='do not fit the anchor') as raised:
        load(tmp_path / 'vit.pth', kind)
    assert '\n' not in str(raised.value)
