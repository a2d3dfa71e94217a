"""Saving a backbone to a folder and building it from there."""

from __future__ import annotations

import functools
import json
import socket
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from timm.layers import SwiGLU
from torch import nn

from mmsnnet.models import AnchorConfig, StitchedViT
from mmsnnet.models.hub_access import hub_or_cache
from mmsnnet.results.chooser import chooser_of_results
from tests.builders import random_images, tiny_anchor, tiny_backbone
from tests.results_folder import record, write_results


def make_results(folder: Path, backbone: StitchedViT) -> Path:
    """Results of a sweep with a head of 1 GFLOP, in which less is better."""
    names = list(backbone.space.names)
    records = [
        record(name, 1 + backbone.costs[name].flops / 1e9, 9.0 - (7 * number) % 5, number)
        for number, name in enumerate(names)
    ]
    return write_results(folder, records, dict(metric='mIoU', rule='less'))


def make_folder(tmp_path: Path, **settings) -> Path:
    tiny_backbone(**settings).save_pretrained(tmp_path / 'saved')
    return tmp_path / 'saved'


@pytest.mark.parametrize('kind', ['class token', 'DINOv3', 'published', 'shared table', 'SwiGLU'])
def test_a_folder_gives_the_same_features_of_every_kind_of_stitch(tmp_path, kind):
    backbone = tiny_backbone(kind=kind, stitch='S2-L8', final_norm=True)
    backbone.save_pretrained(tmp_path)
    again = StitchedViT.from_pretrained(tmp_path)
    assert again.stitch.name == 'S2-L8' and not again.training and again.is_fitted
    images = random_images(1)
    for name in ('S6', 'L12', 'S2-L8', 'L4-S4'):
        for one, other in zip(backbone.run(images, name), again.run(images, name)):
            assert torch.equal(one, other)


def test_the_stitch_that_is_active_when_saving_is_the_one_that_comes_back(tmp_path):
    backbone = tiny_backbone(stitch='S6')
    backbone.set_stitch('L4-S4')
    backbone.save_pretrained(tmp_path)
    assert StitchedViT.from_pretrained(tmp_path).stitch.name == 'L4-S4'
    assert StitchedViT.from_pretrained(tmp_path, stitch='S6').stitch.name == 'S6'


def test_anchors_given_as_objects_and_classes_come_back(tmp_path):
    norm = functools.partial(nn.LayerNorm, eps=1e-3)
    anchors = []
    for depth, width, label in ((6, 48, 'T'), (12, 96, 'B')):
        anchor = tiny_anchor(depth, width, 'SwiGLU', label=label, mean=(0.5, 0.4, 0.3))
        anchor['model_kwargs']['norm_layer'] = norm
        anchors.append(AnchorConfig.parse(anchor))
    backbone = tiny_backbone(anchors=anchors)
    backbone.save_pretrained(tmp_path)
    again = StitchedViT.from_pretrained(tmp_path)
    assert again.space.labels == backbone.space.labels
    assert again.normalization == backbone.normalization
    assert again.anchor(0).vit.norm.eps == 1e-3
    assert isinstance(again.anchor(0).vit.blocks[0].mlp, SwiGLU)
    assert torch.equal(again(random_images(1))[0], backbone(random_images(1))[0])


def test_positional_arguments_are_remembered_and_later_changes_of_the_config_are_not(tmp_path):
    anchors = [tiny_anchor(2, 48), tiny_anchor(2, 96)]
    backbone = StitchedViT(anchors, 64, (1,), lora_rank=3)
    anchors.clear()
    backbone.save_pretrained(tmp_path)
    again = StitchedViT.from_pretrained(tmp_path)
    assert len(again.anchors) == 2 and again.space.taps == backbone.space.taps


def test_saved_anchors_need_neither_their_files_nor_the_network(tmp_path, monkeypatch):
    anchors = ['vit_tiny_patch16_224.augreg_in21k', tiny_anchor(12, 192, checkpoint='gone.pth')]
    anchors[1]['model_kwargs']['patch_size'] = 16
    tiny_backbone(anchors=anchors, img_size=32).save_pretrained(tmp_path)
    assert 'gone.pth' not in (tmp_path / 'config.json').read_text()
    monkeypatch.setattr('timm.models._hub.hf_hub_download', lambda *_, **__: pytest.fail('fetched'))
    again = StitchedViT.from_pretrained(tmp_path)
    before = {name: value.clone() for name, value in again.state_dict().items()}
    again.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in again.state_dict().items())


def test_another_image_size_resamples_positions(tmp_path):
    make_folder(tmp_path)
    again = StitchedViT.from_pretrained(tmp_path / 'saved', img_size=96)
    assert again.costs.image_size == (96, 96)
    assert again.anchor(0).vit.pos_embed.shape[1] == 145


def test_building_from_a_folder_leaves_the_random_state_alone(tmp_path):
    folder, state = make_folder(tmp_path), torch.get_rng_state()
    StitchedViT.from_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_budget_is_of_the_backbone_alone_without_results(tmp_path):
    again = StitchedViT.from_pretrained(make_folder(tmp_path))
    limit = again.costs['S2-L8'].flops / 1e9
    chosen = again.set_budget(gflops=limit)
    assert again.stitch.name == chosen.name
    assert chosen.flops == max(c.flops for c in again.costs.values() if c.flops <= limit * 1e9)
    with pytest.raises(ValueError, match='No stitch keeps within 1e-06 GFLOPs; the cheapest is S6'):
        again.set_budget(gflops=1e-6)
    assert again.stitch.name == chosen.name


def test_the_table_of_a_sweep_travels_along(tmp_path):
    backbone = tiny_backbone()
    results = make_results(tmp_path / 'sweep', backbone)
    backbone.save_pretrained(tmp_path / 'saved', results=results)
    again = StitchedViT.from_pretrained(tmp_path / 'saved')
    theirs = chooser_of_results(results)
    assert (again.chooser.metric, again.chooser.rule) == (theirs.metric, theirs.rule)
    budget = sorted(one.flops for one in theirs.candidates)[len(theirs.candidates) // 2] / 1e9
    assert again.set_budget(gflops=budget) == theirs.within(gflops=budget)
    assert again.set_budget(knee=True).name == theirs.knee().name
    again.save_pretrained(tmp_path / 'twice')
    assert StitchedViT.from_pretrained(tmp_path / 'twice').chooser.metric == theirs.metric


def test_results_of_another_space_are_refused_and_nothing_is_written(tmp_path):
    results = make_results(tmp_path / 'sweep', tiny_backbone())
    with pytest.raises(ValueError, match='stitches that this model has not'):
        tiny_backbone(((2, 48), (4, 96))).save_pretrained(tmp_path / 'saved', results=results)
    assert not (tmp_path / 'saved').exists()


def test_what_json_cannot_say_is_refused_and_nothing_is_written(tmp_path):
    anchor = tiny_anchor(2, 48)
    anchor['model_kwargs']['norm_layer'] = lambda width, **more: nn.LayerNorm(width, **more)
    backbone = tiny_backbone(anchors=[anchor], out_indices=(1,))
    with pytest.raises(ValueError, match=r"norm_layer.*cannot be written to config\.json"):
        backbone.save_pretrained(tmp_path / 'saved')
    assert not (tmp_path / 'saved').exists()


def test_a_folder_without_config_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'has no config\.json: it was not written by'):
        StitchedViT.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"architecture": "Stitch', r'config\.json cannot be read: '),
        ('{"architectures": ["ViTModel"]}', 'not the config of a StitchedViT'),
        ('[]', 'not the config of a StitchedViT'),
        ('{"architecture": "StitchedViT"}', 'has no arguments'),
        ('{"architecture": "StitchedViT", "arguments": {"widht": 3}}', 'does not take widht'),
        (
            '{"architecture": "StitchedViT", "arguments": {"anchors": {"__class__": "os:system"}}}',
            "names 'os:system', which is no module of timm or torch",
        ),
    ],
)  # fmt: skip
def test_a_config_that_does_not_serve_is_told_in_one_line(tmp_path, content, message):
    (tmp_path / 'config.json').write_text(content)
    with pytest.raises(ValueError, match=message) as raised:
        StitchedViT.from_pretrained(tmp_path)
    assert '\n' not in str(raised.value)


def test_truncated_weights_are_told_in_one_line(tmp_path):
    path = make_folder(tmp_path) / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r'model\.safetensors is damaged or cut off') as raised:
        StitchedViT.from_pretrained(path.parent)
    assert '\n' not in str(raised.value)


def test_weights_of_another_space_are_told_in_one_line(tmp_path):
    folder = make_folder(tmp_path)
    tiny_backbone(scheme='one_way').save_pretrained(tmp_path / 'other')
    (folder / 'model.safetensors').write_bytes((tmp_path / 'other/model.safetensors').read_bytes())
    with pytest.raises(ValueError, match=r'does not fit config\.json .* missing, e\.g\.') as raised:
        StitchedViT.from_pretrained(folder)
    assert '\n' not in str(raised.value)


def test_weights_of_no_stitched_backbone_are_told(tmp_path):
    folder = make_folder(tmp_path)
    save_file({'weight': torch.zeros(2)}, folder / 'model.safetensors')
    with pytest.raises(ValueError, match='holds no weights of a StitchedViT'):
        StitchedViT.from_pretrained(folder)
    (folder / 'model.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match=r'config\.json but no model\.safetensors'):
        StitchedViT.from_pretrained(folder)


def test_a_folder_name_with_a_typing_error_is_not_asked_of_the_hub(tmp_path):
    with pytest.raises(FileNotFoundError, match='There is no folder'):
        StitchedViT.from_pretrained(tmp_path / 'nowhere')


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Let nothing be reached, and the cache be empty."""

    def refuse(*_, **__):
        raise socket.gaierror(-2, 'Name or service not known')

    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    monkeypatch.delenv('HTTPS_PROXY', raising=False)
    monkeypatch.delenv('https_proxy', raising=False)


def test_a_hub_name_without_network_fails_soon_and_in_one_line(no_network):
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match='Without a network give a folder') as raised:
        StitchedViT.from_pretrained('someone/stitched')
    assert '\n' not in str(raised.value)
    assert time.monotonic() - start < 10
    assert constants.HF_HUB_OFFLINE is False


def test_weights_of_timm_without_network_fail_soon(no_network):
    backbone = StitchedViT(['vit_tiny_patch16_224'], 32, (11,))
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r'checkpoint=FILE'):
        backbone.init_weights()
    assert time.monotonic() - start < 10


def test_offline_mode_is_restored_after_an_error(no_network):
    def fail() -> None:
        with hub_or_cache():
            assert constants.HF_HUB_OFFLINE
            raise RuntimeError('nope')

    with pytest.raises(RuntimeError, match='nope'):
        fail()
    assert constants.HF_HUB_OFFLINE is False


def test_the_hub_is_asked_and_not_switched_off_where_it_answers(monkeypatch):
    asked = []

    class Session:
        def head(self, url: str, timeout: float) -> None:
            asked.append((url, timeout))

    monkeypatch.setattr('mmsnnet.models.hub_access.get_session', Session)
    with hub_or_cache(timeout=2.0):
        assert constants.HF_HUB_OFFLINE is False
    assert asked == [(constants.ENDPOINT, 2.0)]


def test_saving_over_a_folder_keeps_its_readme_and_leaves_nothing_else(tmp_path):
    (tmp_path / 'README.md').write_text('mine')
    for _ in range(2):
        tiny_backbone().save_pretrained(tmp_path)
    assert (tmp_path / 'README.md').read_text() == 'mine'
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {'README.md', 'config.json', 'model.safetensors', 'stitches.jsonl'}
    lines = (tmp_path / 'stitches.jsonl').read_text().splitlines()
    costs = tiny_backbone().costs
    assert {json.loads(line)['name']: json.loads(line)['flops'] for line in lines} == costs.flops


def test_the_card_says_how_to_load_the_backbone(tmp_path):
    card = (make_folder(tmp_path) / 'README.md').read_text()
    assert 'library_name: mmsnnet' in card and 'StitchedViT.from_pretrained(' in card


def test_uploading_sends_the_folder_that_is_saved(monkeypatch, tmp_path):
    sent = {}

    class Api:
        def __init__(self, **_) -> None: ...

        def create_repo(self, repo_id: str, **_) -> object:
            return type('Repository', (), {'repo_id': repo_id})

        def upload_folder(self, folder_path: Path, repo_id: str, **_) -> str:
            sent[repo_id] = {path.name for path in Path(folder_path).iterdir()}
            return 'address'

    monkeypatch.setattr('huggingface_hub.hub_mixin.HfApi', Api)
    backbone = tiny_backbone()
    assert backbone.push_to_hub('someone/one') == 'address'
    assert backbone.save_pretrained(tmp_path / 'two', push_to_hub=True) == 'address'
    assert {'config.json', 'model.safetensors'} <= sent['someone/one'] == sent['two']


def test_half_precision_is_kept_in_the_file(tmp_path):
    tiny_backbone(((2, 48),), out_indices=(1,)).half().save_pretrained(tmp_path)
    kinds = {value.dtype for value in load_file(tmp_path / 'model.safetensors').values()}
    assert torch.float16 in kinds and torch.float32 not in kinds
