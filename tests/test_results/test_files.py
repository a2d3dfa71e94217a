"""Files that appear whole, and JSON by the letter."""

from __future__ import annotations

import json

import pytest

from mmsnnet.results import files
from mmsnnet.results.files import parse_json, write_atomically


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    target = tmp_path / 'run.json'
    write_atomically(target, b'old')

    def fail(*_):
        raise OSError('disk full')

    monkeypatch.setattr(files.os, 'fsync', fail)
    with pytest.raises(OSError, match='disk full'):
        write_atomically(target, b'new')
    assert target.read_bytes() == b'old' and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize('value', [{}, [1, -2.5e-3, None, True, 'ä\n'], {'a': {'b': [2**63 - 1]}}])
def test_what_json_writes_is_read(value):
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (b'', 'Expecting value'),
        (b'{"a": 1', 'Expecting'),
        (b'-Infinity', '-Infinity is not a number'),
        (b'-1e999', '-1e999 is too large'),
        (b'9223372036854775808', 'too large'),
        (b'1' * 5000, '111111111111... of 5000 characters is too large'),
        (b'{"a": 1, "a": 1}', "the key 'a' twice"),
        (b'\xff', 'utf-8'),
        ('"a"'.encode('utf-16'), 'utf-8'),
        (b'[' * 10**6, 'nested too deeply'),
    ],
)
def test_what_is_no_json_is_a_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_json(text)
    assert len(str(error.value)) < 200
