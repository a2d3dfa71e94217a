"""The Python blocks of docs/pytorch.md and of README's plain PyTorch run, on small anchors."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.data import DataLoader, TensorDataset

from mmsnnet.integrations import timm_models
from mmsnnet.models import StitchedViT
from tests.builders import random_images, tiny_anchor

ROOT = Path(__file__).resolve().parents[1]
PAGE, README = ROOT / 'docs' / 'pytorch.md', ROOT / 'README.md'
LIBRARIES = ('segmentation_models_pytorch', 'transformers')


def blocks(path: Path = PAGE, section: str = '') -> list[str]:
    """Python blocks of a page, or of the section below one of its headings."""
    text = path.read_text(encoding='utf-8')
    if section:
        text = re.split(r'^#', text.split(f'# {section}\n')[1], maxsplit=1, flags=re.M)[0]
    return re.findall(r'^```python\n(.*?)^```', text, re.S | re.M)


def small_anchor(name: str) -> dict:
    """In place of a model of timm: as deep, but narrow and without published weights."""
    return tiny_anchor(12, 48 if 'small' in name else 96)


@pytest.fixture
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    build = StitchedViT.from_timm.__func__

    def from_timm(cls: type, *names: str, **settings: object) -> StitchedViT:
        anchors = [small_anchor(getattr(name, 'model_name', name)) for name in names]
        return build(cls, *anchors, **{**settings, 'img_size': 64})

    monkeypatch.setattr(StitchedViT, 'from_timm', classmethod(from_timm))


def test_every_block_runs(small_models, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    data = TensorDataset(random_images(4), torch.arange(4) % 3)
    names = {'loader': DataLoader(data, batch_size=2), 'images': random_images(1)}
    ran = 0
    for block in blocks():
        if any(library in block and not find_spec(library) for library in LIBRARIES):
            continue
        exec(compile(block, str(PAGE), 'exec'), names)
        ran += 1
    assert ran >= len(blocks()) - len(LIBRARIES) >= 6
    assert names['again'] is not None and names['model'].feature_info.channels() == [96, 96]
    assert names['maps'][0].shape == (1, 96, 8, 8)


def test_the_plain_pytorch_of_the_readme_runs_as_it_is_printed(monkeypatch, tmp_path, capsys):
    """No name is given to it, and nothing but the widths of the anchors is changed."""
    monkeypatch.chdir(tmp_path)
    build = StitchedViT.from_timm.__func__

    def from_timm(cls: type, *names: str, **settings: object) -> StitchedViT:
        anchors = [small_anchor(name) for name in names]
        for anchor in anchors:
            anchor['model_kwargs']['patch_size'] = 16
        return build(cls, *anchors, **settings)

    monkeypatch.setattr(StitchedViT, 'from_timm', classmethod(from_timm))
    names: dict[str, object] = {}
    setup, loop, rest = blocks(README, 'Plain PyTorch')
    assert len(loop.splitlines()) <= 10
    exec(compile(setup, str(README), 'exec'), names)
    backbone = names['backbone']
    assert backbone.is_fitted and not backbone.training
    before = {name: value.clone() for name, value in backbone.named_parameters()}
    exec(compile(loop, str(README), 'exec'), names)
    ran = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert len(ran) == len(names['loader']) and len(set(ran)) > 1
    assert set(ran) <= set(backbone.space.names)
    assert any(not torch.equal(before[name], value) for name, value in backbone.named_parameters())
    exec(compile(rest, str(README), 'exec'), names)
    again = StitchedViT.from_pretrained('saved')
    assert again.stitch == backbone.stitch and backbone.costs[again.stitch.name].flops <= 10e9
    image = torch.randn(1, 3, 224, 224)
    assert torch.equal(again(image)[-1], backbone(image)[-1])


def test_the_loop_of_the_page_is_short():
    loop = next(block for block in blocks() if 'optimizer.step()' in block)
    body = loop.split('backbone.train()\n')[1]
    assert len(body.strip().splitlines()) <= 10


def test_the_names_of_timm_on_the_page_are_registered():
    named = set(re.findall(r"'(?:tu-)?(stitched_vit\w*)'", PAGE.read_text(encoding='utf-8')))
    assert named and named <= set(timm.list_models('stitched*'))
    assert all(hasattr(timm_models, name) for name in named)
