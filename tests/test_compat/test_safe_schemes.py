"""No file that a user gives runs code, even if the environment asks torch to trust it."""
from __future__ import annotations

import http.server
import os
import threading
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint

from mmsnnet.convert import read_checkpoint
from mmsnnet.models import AnchorConfig, build_anchor
from mmsnnet.models.anchors.anchor_weights import load_anchor_weights
from mmsnnet.models.host.head_statistics import HeadStatistics
from mmsnnet.models.host.head_weights import load_head_weights
from tests.builders import tiny_anchor, tiny_backbone


class Harm:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


class Toy(BaseModel):
    """A model with nothing to train."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, *args, **kwargs):
        return {}


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """A checkpoint that makes the folder 'harm' beside it when it is trusted."""
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    path = tmp_path / 'weights.pth'
    content = {'state_dict': {'layer.weight': torch.ones(1, 1)}, 'meta': Harm(tmp_path / 'harm')}
    torch.save(content, path)
    return path


def anchor_file(path):
    config = AnchorConfig.parse(tiny_anchor(1, 16, checkpoint=path))
    load_anchor_weights(build_anchor(config, (32, 32)))


def init_cfg(path):
    shape = ((1, 16),)
    pretrained = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    tiny_backbone(shape, out_indices=(0,), init_cfg=pretrained).init_weights()


def runner(path, method):
    work_dir = str(Path(path).parent / 'work')
    built = Runner(Toy(), work_dir, experiment_name=f'safe-{os.getpid()}-{method}')
    getattr(built, method)(path)


WAYS = {
    'anchor': anchor_file,
    'head_checkpoint': lambda path: load_head_weights(Toy(), path),
    'init_cfg': init_cfg,
    'converter': read_checkpoint,
    'load_checkpoint of mmengine': lambda path: load_checkpoint(Toy(), path),
    'CheckpointLoader': CheckpointLoader.load_checkpoint,
    'load_from': partial(runner, method='load_checkpoint'),
    'resume': partial(runner, method='resume'),
    'head statistics': lambda path: HeadStatistics.load(path),
}


def test_the_file_is_harmful_where_torch_is_left_to_its_default(file):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # since 2.6 torch says that the environment decided
        torch.load(file)
    assert (file.parent / 'harm').is_dir()


@pytest.mark.parametrize('way', WAYS)
def test_nothing_in_a_file_runs(file, way):
    with pytest.raises(Exception, match=r'mkdir|cannot be read|Weights only|no head statistics'):
        WAYS[way](str(file))
    assert not (file.parent / 'harm').exists()


def test_nothing_in_a_file_from_the_web_runs(file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f'http://127.0.0.1:{server.server_port}/weights.pth'
        with pytest.raises(ValueError, match='cannot be read'):
            anchor_file(url)
        assert (tmp_path / 'hub/checkpoints/weights.pth').is_file()
        assert not (tmp_path / 'harm').exists()
        torch.save({'state_dict': {'a': torch.ones(2)}}, tmp_path / 'good.pth')
        content = CheckpointLoader.load_checkpoint(url.replace('weights', 'good'))
        assert torch.equal(content['state_dict']['a'], torch.ones(2))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_good_checkpoint_of_mmengine_is_still_read(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    built = Runner(Toy(), str(tmp_path), experiment_name=f'safe-{os.getpid()}-good')
    built.message_hub.update_scalar('train/loss', 1.5)
    weights = {'layer.weight': torch.full((1, 1), 7.0), 'layer.bias': torch.zeros(1)}
    content = dict(state_dict=weights, meta={}, message_hub=built.message_hub.state_dict())
    torch.save(content, tmp_path / 'good.pth')
    found = built.load_checkpoint(str(tmp_path / 'good.pth'))
    assert built.model.layer.weight.item() == 7
    assert found['message_hub']['log_scalars']['train/loss'].current() == 1.5
