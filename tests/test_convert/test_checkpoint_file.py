"""Reading and writing checkpoint files."""

from __future__ import annotations

import os
import stat

import pytest
import torch

from mmsnnet.convert import read_checkpoint, write_checkpoint

STATE = {'a': torch.arange(3.0), 'b': torch.ones(2, 2)}


class Harm:
    """Something that runs when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ('harm',)


@pytest.mark.parametrize('wrapped', [None, 'state_dict', 'model'])
def test_weights_are_read_at_the_top_or_one_level_down(tmp_path, wrapped):
    torch.save({wrapped: STATE, 'meta': {'iter': 3}} if wrapped else STATE, tmp_path / 'x.pth')
    content = read_checkpoint(tmp_path / 'x.pth')
    assert list(content['state_dict']) == ['a', 'b']
    assert torch.equal(content['state_dict']['a'], STATE['a'])
    assert content.get('meta') == ({'iter': 3} if wrapped == 'state_dict' else None)


def test_what_was_written_is_read(tmp_path):
    write_checkpoint(tmp_path / 'x.pth', dict(meta={}, state_dict=STATE))
    assert torch.equal(read_checkpoint(tmp_path / 'x.pth')['state_dict']['b'], STATE['b'])
    assert os.listdir(tmp_path) == ['x.pth']


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / 'other').touch()
    write_checkpoint(tmp_path / 'x.pth', dict(state_dict=STATE))
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ('other', 'x.pth')]
    assert modes[0] == modes[1]


def test_a_write_that_fails_leaves_the_former_file(tmp_path):
    write_checkpoint(tmp_path / 'x.pth', dict(state_dict=STATE))
    with pytest.raises(Exception, match='pickle'):
        write_checkpoint(tmp_path / 'x.pth', dict(state_dict=STATE, meta=lambda: None))
    assert os.listdir(tmp_path) == ['x.pth']
    assert list(read_checkpoint(tmp_path / 'x.pth')['state_dict']) == ['a', 'b']


def test_a_missing_file_or_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'There is no checkpoint .*nowhere\.pth'):
        read_checkpoint(tmp_path / 'nowhere.pth')
    with pytest.raises(FileNotFoundError, match=r'no folder .*deep to write x\.pth to'):
        write_checkpoint(tmp_path / 'deep' / 'x.pth', {})


@pytest.mark.parametrize('length', [0, 10, 700])
def test_a_truncated_file_is_told_in_one_line(tmp_path, length):
    torch.save(STATE, tmp_path / 'whole.pth')
    (tmp_path / 'x.pth').write_bytes((tmp_path / 'whole.pth').read_bytes()[:length])
    with pytest.raises(ValueError, match=r'x\.pth cannot be read: .') as raised:
        read_checkpoint(tmp_path / 'x.pth')
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('content', [[1, 2], {}, {'state_dict': 3}, {'state_dict': {'a': 1}}])
def test_a_file_without_tensors_is_told(tmp_path, content):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='holds no state dict of tensors'):
        read_checkpoint(tmp_path / 'x.pth')


def test_a_file_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': STATE, 'meta': Harm()}, 'x.pth')
    with pytest.raises(ValueError, match='cannot be read'):
        read_checkpoint('x.pth')
    assert not (tmp_path / 'harm').exists()
