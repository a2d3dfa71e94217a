"""Files that are no checkpoints are named in one line, and nothing in them runs."""

from __future__ import annotations

import os
import pickle

import pytest
import torch

from mmsnnet.models.checkpoint_file import load_safely

CONTENT = dict(state_dict={'a.weight': torch.arange(60.0).reshape(3, 20)}, meta=dict(epoch=3))


class Runs:
    """Makes a folder when unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize('zipped', [True, False])
def test_a_checkpoint_is_read_in_either_format_of_torch(tmp_path, zipped):
    path = tmp_path / 'weights.pth'
    torch.save(CONTENT, path, _use_new_zipfile_serialization=zipped)
    content = load_safely(path)
    assert torch.equal(content['state_dict']['a.weight'], CONTENT['state_dict']['a.weight'])
    assert content['meta'] == dict(epoch=3)


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'it is empty'),
        (b'\n<!DOCTYPE html><html>404</html>', 'it is a page of the web'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'it is a pointer of Git LFS'),
        (b'{"message": "Not Found"}', 'it is a text'),
        (b'\x1f\x8b\x08\x00' + bytes(40), 'it is an archive'),
        (b'plain words', 'it is damaged, cut off, or no file of torch.save'),
        (bytes(range(256)) * 8, 'it is damaged, cut off, or no file of torch.save'),
    ],
)  # fmt: skip
def test_another_kind_of_file_is_named(tmp_path, content, reason):
    path = tmp_path / 'weights.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'weights.pth cannot be read: {reason}') as caught:
        load_safely(path)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('share', [0.2, 0.6, 0.97])
def test_a_cut_file_is_named(tmp_path, zipped, share):
    path = tmp_path / 'weights.pth'
    torch.save(CONTENT, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match='damaged, cut off, or no file of torch'):
        load_safely(path)


@pytest.mark.parametrize('variable', ['', '1'])
@pytest.mark.parametrize('save', [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x, 2))])
def test_code_in_a_file_never_runs(tmp_path, monkeypatch, variable, save):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', variable)
    path, folder = tmp_path / 'weights.pth', tmp_path / 'made'
    save(dict(CONTENT, extra=Runs(folder)), path)
    with pytest.raises(ValueError, match='cannot be read: ') as caught:
        load_safely(path)
    assert not folder.exists()
    text = str(caught.value)
    assert '\n' not in text and 'weights_only' not in text


def test_what_was_refused_is_named(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / 'module.pth')
    with pytest.raises(ValueError, match=r'it asks for torch\.nn\.modules\.linear\.Linear'):
        load_safely(tmp_path / 'module.pth')
