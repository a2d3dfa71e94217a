"""Loading pretrained weights into anchors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mmsnnet.models import AnchorConfig, AnchorViT, build_anchor
from mmsnnet.models.anchors.anchor_weights import load_anchor_weights, read_state_dict
from tests.builders import shake, tiny_anchor, tiny_backbone, tiny_vit


def make_state(
    seed: int = 1, kind: str = 'class token', depth: int = 3, img_size: int = 64
) -> dict[str, Tensor]:
    vit = tiny_vit(depth, 48, kind, img_size)
    shake(vit, seed)
    return vit.state_dict()


def load(
    path: Path | str, kind: str = 'class token', img_size: int = 64, **settings
) -> AnchorViT:
    anchor = build_anchor(
        AnchorConfig.parse(tiny_anchor(3, 48, kind, checkpoint=str(path), **settings)),
        (img_size, img_size),
    )
    load_anchor_weights(anchor)
    return anchor


def assert_equal(anchor: AnchorViT, state: dict[str, Tensor]) -> None:
    own = anchor.vit.state_dict()
    assert own and all(torch.equal(own[name], state[name]) for name in own)


@pytest.mark.parametrize('key', [None, 'state_dict', 'model', 'model_ema'])
def test_a_file_of_torch_is_read_at_the_top_or_one_level_down(tmp_path, key):
    state = make_state()
    torch.save(state if key is None else {key: state, 'epoch': 3}, tmp_path / 'vit.pth')
    assert_equal(load(tmp_path / 'vit.pth'), state)


def test_a_prefix_is_taken_off_and_other_weights_are_left(tmp_path):
    state = make_state()
    whole = {f'backbone.vit.{name}': value for name, value in state.items()}
    whole['decode_head.conv_seg.weight'] = torch.zeros(3)
    torch.save({'state_dict': whole}, tmp_path / 'model.pth')
    assert_equal(load(tmp_path / 'model.pth', checkpoint_prefix='backbone.vit.'), state)


def test_safetensors_are_read(tmp_path):
    state = make_state()
    save_file({f'x.{name}': value for name, value in state.items()}, tmp_path / 'a.safetensors')
    assert_equal(load(tmp_path / 'a.safetensors', checkpoint_prefix='x.'), state)


def test_the_names_of_published_deit3_files_are_understood(tmp_path):
    state = make_state(kind='no_embed_class')
    names = {f'ls{number}.gamma': f'gamma_{number}' for number in (1, 2)}
    published = {}
    for name, value in state.items():
        for new, old in names.items():
            name = name.replace(new, old)
        published[name] = value
    published['head.weight'], published['head.bias'] = torch.zeros(9, 48), torch.zeros(9)
    assert 'blocks.0.gamma_1' in published and 'blocks.0.ls1.gamma' not in published
    torch.save({'model': published}, tmp_path / 'deit3.pth')
    assert_equal(load(tmp_path / 'deit3.pth', 'no_embed_class'), state)


def test_weights_of_classification_are_left_out(tmp_path):
    state = make_state()
    more = {'head.weight': torch.zeros(5, 48), 'fc_norm.bias': torch.zeros(48)}
    torch.save({**state, **more}, tmp_path / 'vit.pth')
    assert_equal(load(tmp_path / 'vit.pth'), state)


@pytest.mark.parametrize('kind', ['class token', 'no_embed_class', 'registers'])
def test_position_embeddings_of_another_size_are_resampled_as_timm_does(tmp_path, kind):
    state = make_state(kind=kind, img_size=64)
    torch.save(state, tmp_path / 'vit.pth')
    anchor = load(tmp_path / 'vit.pth', kind, img_size=96)
    vit = tiny_vit(3, 48, kind)
    vit.load_state_dict(state)
    vit.set_input_size((96, 96))
    assert anchor.vit.pos_embed.shape[1] in (144, 145)
    assert torch.equal(anchor.vit.pos_embed, vit.pos_embed)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"Weights file 'nowhere/vit.pth' does not exist"):
        load('nowhere/vit.pth')


@pytest.mark.parametrize('name', ['vit.pth', 'vit.safetensors'])
def test_a_file_that_cannot_be_read_is_named_in_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b'these are no weights')
    with pytest.raises(ValueError, match=rf'{name}.? cannot be read(: it is| \(\w+: )') as raised:
        load(tmp_path / name)
    assert '\n' not in str(raised.value)


def test_a_file_without_a_state_dict_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match='holds a list, no state dict'):
        read_state_dict(str(tmp_path / 'list.pth'))


def test_a_prefix_without_match_is_told_with_names_that_there_are(tmp_path):
    torch.save({'backbone.cls_token': torch.zeros(1)}, tmp_path / 'vit.pth')
    with pytest.raises(ValueError, match=r"checkpoint_prefix='encoder\.'.*'backbone\.cls_token'"):
        load(tmp_path / 'vit.pth', checkpoint_prefix='encoder.')


def test_a_missing_prefix_is_suggested(tmp_path):
    state = {f'backbone.{name}': value for name, value in make_state().items()}
    torch.save(state, tmp_path / 'vit.pth')
    with pytest.raises(ValueError, match=r"Set checkpoint_prefix='backbone\.'"):
        load(tmp_path / 'vit.pth')


@pytest.mark.parametrize(
    ('other', 'problem'),
    [
        (tiny_vit(3, 96), r'shapes differ, e\.g\. cls_token is \(1, 1, 96\) there and'),
        (tiny_vit(2, 48), r'weights are missing, e\.g\. blocks\.2\.attn'),
        (tiny_vit(4, 48), r'weights have no place here, e\.g\. blocks\.3\.attn'),
        (nn.Conv2d(3, 4, 1), r'weights are missing, e\.g\. blocks\.0'),
        (tiny_vit(3, 48, 'pre-norm'), r'have no place here, e\.g\. norm_pre\.bias'),
        (tiny_vit(3, 48, 'registers'), 'timm cannot convert them'),
    ],
)
def test_weights_of_another_architecture_are_refused_in_one_line(tmp_path, other, problem):
    torch.save(other.state_dict(), tmp_path / 'vit.pth')
    with pytest.raises(ValueError, match=f'do not fit the anchor: .*{problem}') as raised:
        load(tmp_path / 'vit.pth')
    assert '\n' not in str(raised.value) and len(str(raised.value)) < 500


def test_a_position_embedding_that_is_no_square_is_refused(tmp_path):
    state = make_state()
    state['pos_embed'] = torch.zeros(1, 1 + 7 * 6, 48)
    torch.save(state, tmp_path / 'vit.pth')
    with pytest.raises(ValueError, match=r'do not fit the anchor: timm cannot convert them'):
        load(tmp_path / 'vit.pth')


def test_a_refused_file_leaves_the_anchor_as_it_was(tmp_path):
    torch.save(make_state(depth=2), tmp_path / 'vit.pth')
    anchor = build_anchor(
        AnchorConfig.parse(tiny_anchor(3, 48, checkpoint=str(tmp_path / 'vit.pth'))), (64, 64)
    )
    before = {name: value.clone() for name, value in anchor.state_dict().items()}
    with pytest.raises(ValueError, match='do not fit'):
        load_anchor_weights(anchor)
    assert all(torch.equal(value, before[name]) for name, value in anchor.state_dict().items())


def test_without_network_the_message_says_how_to_give_a_file(monkeypatch, tmp_path):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    anchor = build_anchor(AnchorConfig('vit_tiny_patch16_224'))
    with pytest.raises(FileNotFoundError, match=r'checkpoint=FILE\)') as raised:
        load_anchor_weights(anchor)
    assert "'vit_tiny_patch16_224'" in str(raised.value) and '\n' not in str(raised.value)


def test_a_name_without_published_weights_is_told_likewise():
    config = AnchorConfig('vit_small_patch8_224', model_kwargs=dict(depth=1))
    vit = build_anchor(config)
    vit.config.model_kwargs['nonsense'] = 1
    with pytest.raises(FileNotFoundError, match='could not be loaded'):
        load_anchor_weights(vit)


def test_nothing_is_loaded_unless_asked_for():
    anchor = build_anchor(AnchorConfig.parse(tiny_anchor(3, 48)), (64, 64))
    before = {name: value.clone() for name, value in anchor.state_dict().items()}
    load_anchor_weights(anchor)
    assert all(torch.equal(value, before[name]) for name, value in anchor.state_dict().items())


def test_a_backbone_that_a_checkpoint_will_fill_needs_no_anchor_files():
    anchors = [tiny_anchor(3, 48, checkpoint='nowhere.pth'), tiny_anchor(6, 96)]
    backbone = tiny_backbone(anchors=anchors, out_indices=(5,))
    backbone.skip_anchor_weights()
    backbone.init_weights()
    with pytest.raises(FileNotFoundError, match='nowhere'):
        tiny_backbone(anchors=anchors, out_indices=(5,)).init_weights()


def test_init_cfg_loads_a_whole_backbone_in_place_of_the_anchors(tmp_path):
    trained = tiny_backbone(out_indices=(5, 11), seed=3)
    state = {f'backbone.{name}': value for name, value in trained.state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'model.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'model.pth'), prefix='backbone.')
    anchors = [tiny_anchor(6, 48, checkpoint='nowhere.pth'), tiny_anchor(12, 96)]
    fresh = tiny_backbone(anchors=anchors, fitted=False, init_cfg=init_cfg)
    fresh.init_weights()
    assert fresh.is_fitted
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name]), name


def test_init_cfg_that_names_a_file_without_a_stitched_backbone_is_refused(tmp_path):
    file = tmp_path / 'vit.pth'
    torch.save(tiny_vit(12, 96).state_dict(), file)
    backbone = tiny_backbone(init_cfg=dict(type='Pretrained', checkpoint=str(file)))
    with pytest.raises(ValueError, match=r"vit\.pth', which holds no stitched backbone") as raised:
        backbone.init_weights()
    assert '\n' not in str(raised.value)


def test_init_cfg_that_names_no_file_is_left_to_mmengine():
    backbone = tiny_backbone(init_cfg=dict(type='Constant', layer='Conv2d', val=0.25))
    backbone.init_weights()
    assert (backbone.anchor(0).vit.patch_embed.proj.weight == 0.25).all()


@pytest.mark.parametrize('kind', ['class token', 'DINOv3'])
def test_a_final_norm_that_is_used_must_be_in_the_file(tmp_path, kind):
    state = {k: v for k, v in make_state(kind=kind).items() if not k.startswith('norm.')}
    torch.save(state, tmp_path / 'vit.pth')
    config = AnchorConfig.parse(tiny_anchor(3, 48, kind, checkpoint=str(tmp_path / 'vit.pth')))
    with pytest.raises(ValueError, match=r'2 weights are missing, e\.g\. norm\.bias'):
        load_anchor_weights(build_anchor(config, (64, 64), final_norm=True))
    load_anchor_weights(build_anchor(config, (64, 64)))


def test_a_kind_without_final_norm_needs_none_in_the_file(tmp_path):
    torch.save(make_state(kind='BEiT'), tmp_path / 'vit.pth')
    config = AnchorConfig.parse(tiny_anchor(3, 48, 'BEiT', checkpoint=str(tmp_path / 'vit.pth')))
    load_anchor_weights(build_anchor(config, (64, 64), final_norm=True))


def test_a_final_norm_in_the_file_is_loaded_whether_it_is_used_or_not(tmp_path):
    state = make_state()
    torch.save(state, tmp_path / 'vit.pth')
    config = AnchorConfig.parse(tiny_anchor(3, 48, checkpoint=str(tmp_path / 'vit.pth')))
    for final_norm in (False, True):
        anchor = build_anchor(config, (64, 64), final_norm=final_norm)
        load_anchor_weights(anchor)
        assert torch.equal(anchor.vit.norm.weight, state['norm.weight'])
