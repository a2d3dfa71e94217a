"""Files of shards: what they cover, and what is left to do."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger

from mmsnnet.evaluation.sweep.shards import Shard, ShardFolder
from mmsnnet.evaluation.sweep.sweep_options import SweepOptions, share_of

NAMES = ('S3', 'L6', 'S1-L4')


@contextmanager
def warnings_of():
    """Lines that are logged meanwhile."""
    lines, handler = [], logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def noted(shard):
    """What two metrics note: for each batch a result, told apart by batch, stitch and metric."""

    def results(name, index):
        return [[(torch.tensor([float(index)]), f'{name} {index} {metric}')] for metric in (0, 1)]

    batches = range(shard.first, shard.stop)
    return {name: [results(name, index) for index in batches] for name in shard.stitches}


def add(partial, *spans):
    for first, stop, names in spans:
        shard = Shard(first, stop, tuple(names))
        partial.add(shard, noted(shard))


def texts(partial, name):
    return [batch[1][0][1] for batch in partial.read(name)]


def test_nothing_is_made_before_there_is_a_file(tmp_path):
    partial = ShardFolder(tmp_path, 7)
    assert partial.plan(NAMES, 3) == [Shard(0, 3, NAMES), Shard(3, 6, NAMES), Shard(6, 7, NAMES)]
    assert not partial.is_complete('S3') and partial.read('S3') == []
    assert list(tmp_path.iterdir()) == []


def test_what_was_noted_comes_back_in_the_order_of_batches(tmp_path):
    partial = ShardFolder(tmp_path, 6)
    add(partial, (4, 6, NAMES), (0, 1, NAMES[::-1]), (1, 4, NAMES[:2]), (1, 4, NAMES[2:]))
    for again in (partial, ShardFolder(tmp_path, 6)):
        for name in NAMES:
            assert again.is_complete(name)
            assert texts(again, name) == [f'{name} {index} 1' for index in range(6)]
            values = [batch[0][0][0] for batch in again.read(name)]
            assert [value.tolist() for value in values] == [[float(index)] for index in range(6)]
        assert again.plan(NAMES, 2) == []


def test_what_is_left_is_what_no_file_covers(tmp_path):
    partial = ShardFolder(tmp_path, 10)
    add(partial, (2, 5, NAMES[:1]), (4, 7, NAMES[1:]))
    assert partial.plan(NAMES, 100) == [
        Shard(0, 2, NAMES),
        Shard(2, 4, NAMES[1:]),
        Shard(5, 7, NAMES[:1]),
        Shard(7, 10, NAMES),
    ]


def test_any_history_of_cuts_ends_with_each_batch_once(tmp_path):
    generator = random.Random(0)
    for trial in range(20):
        folder = tmp_path / str(trial)
        folder.mkdir()
        partial, done = ShardFolder(folder, 9), []
        while shards := partial.plan(NAMES, generator.randint(1, 9)):
            for shard in shards[: generator.randint(1, 3)]:
                count = generator.randint(1, len(shard.stitches))
                keep = generator.sample(shard.stitches, count)
                add(partial, (shard.first, shard.stop, keep))
                done += [(name, i) for name in keep for i in range(shard.first, shard.stop)]
        assert sorted(done) == sorted((name, index) for name in NAMES for index in range(9))
        assert all(texts(partial, name) == [f'{name} {i} 1' for i in range(9)] for name in NAMES)


def test_work_that_was_done_twice_counts_once(tmp_path):
    partial = ShardFolder(tmp_path, 4)
    add(partial, (0, 3, NAMES), (1, 4, NAMES[:2]))
    assert texts(partial, 'S3') == [f'S3 {index} 1' for index in range(4)]
    assert partial.covered('S1-L4') == {0, 1, 2}


def test_a_part_of_the_batches_is_planned_alone(tmp_path):
    partial = ShardFolder(tmp_path, 10)
    add(partial, (0, 4, NAMES))
    assert partial.plan(NAMES, 2, (3, 7)) == [Shard(4, 6, NAMES), Shard(6, 7, NAMES)]


def test_files_of_another_folder_are_taken_in(tmp_path):
    here, there = (ShardFolder(tmp_path / name, 4) for name in ('here', 'there'))
    for folder in ('here', 'there'):
        (tmp_path / folder).mkdir()
    add(here, (0, 2, NAMES))
    add(there, (2, 4, NAMES))
    here.take_in(there)
    assert texts(here, 'L6') == [f'L6 {index} 1' for index in range(4)]
    assert texts(there, 'L6') == ['L6 2 1', 'L6 3 1']


def test_files_are_kept_as_long_as_they_serve_a_stitch(tmp_path):
    partial = ShardFolder(tmp_path, 2)
    add(partial, (0, 2, NAMES[:2]), (0, 2, NAMES[2:]))
    partial.discard(['S3'])
    assert partial.is_complete('S3')
    partial.discard(['S3', 'L6'])
    assert not partial.is_complete('S3') and partial.is_complete('S1-L4')
    partial.discard(NAMES)
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    partial = ShardFolder(tmp_path, 4)
    partial.directory.mkdir()
    writing = partial.directory / '0000000-0000002.0.shard.123.tmp'
    writing.write_bytes(b'half of it')
    partial.discard(['S2'])
    assert writing.exists()
    writing.unlink()
    partial.discard(['S2'])
    assert not partial.directory.exists()


def test_a_write_that_did_not_end_leaves_no_file_that_counts(tmp_path):
    partial = ShardFolder(tmp_path, 2)
    add(partial, (0, 1, NAMES))
    (path,) = partial.directory.glob('*.shard')
    (partial.directory / f'{path.name}.123.tmp').write_bytes(path.read_bytes()[:100])
    assert ShardFolder(tmp_path, 2).plan(NAMES, 5) == [Shard(1, 2, NAMES)]


def flipped(place):
    """A bit changed at a place, a share of the file's length."""

    def spoil(content):
        index = int(place * (len(content) - 1))
        return content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :]

    return spoil


DAMAGES = [lambda b: b[:-40], lambda b: b'', lambda b: b'text', lambda b: b + b'more']


@pytest.mark.parametrize('spoil', DAMAGES + [flipped(n / 12) for n in range(13)])
def test_a_damaged_file_is_discarded_in_a_line_and_its_work_done_again(tmp_path, spoil):
    shards = ShardFolder(tmp_path, 2)
    add(shards, (0, 1, NAMES), (1, 2, NAMES))
    path = min(shards.directory.glob('*.shard'))
    path.write_bytes(spoil(path.read_bytes()))
    # Whoever only looks, such as a merge into another folder, passes it over.
    assert ShardFolder(tmp_path, 2).plan(NAMES, 9) == [Shard(0, 1, NAMES)]
    assert path.exists()
    with warnings_of() as lines:
        again = ShardFolder(tmp_path, 2, discard_damaged=True)
    assert not path.exists()
    (line,) = lines
    assert path.name in line and 'is damaged' in line and 'run again' in line and '\n' not in line
    assert again.plan(NAMES, 9) == [Shard(0, 1, NAMES)]
    add(again, (0, 1, NAMES))
    assert texts(again, 'L6') == ['L6 0 1', 'L6 1 1']


def resealed(content, **changed):
    """A file whose header was changed and whose checksum was made to fit."""
    with np.load(io.BytesIO(content[81:]), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays['header'].tobytes()) | changed
    arrays['header'] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    digest = hashlib.sha256(out.getvalue()).hexdigest().encode()
    return content[:16] + digest + b'\n' + out.getvalue()


@pytest.mark.parametrize('changed', [dict(stop=3), dict(first=-1), dict(stop=0), dict(stop='x')])
def test_batches_that_cannot_be_are_not_believed(tmp_path, changed):
    add(ShardFolder(tmp_path, 2), (0, 1, NAMES))
    (path,) = (tmp_path / 'shards').glob('*.shard')
    path.write_bytes(resealed(path.read_bytes()))
    assert ShardFolder(tmp_path, 2).covered('S3') == {0}
    path.write_bytes(resealed(path.read_bytes(), **changed))
    assert ShardFolder(tmp_path, 2).covered('S3') == set()


def test_more_batches_than_a_file_holds_are_not_believed(tmp_path):
    add(ShardFolder(tmp_path, 2), (0, 1, NAMES))
    (path,) = (tmp_path / 'shards').glob('*.shard')
    path.write_bytes(resealed(path.read_bytes(), stop=2))
    with pytest.raises(ValueError, match='holds 1 batches'):
        ShardFolder(tmp_path, 2).read('S3')


def test_a_file_that_is_damaged_while_it_is_in_use_is_named(tmp_path):
    shards = ShardFolder(tmp_path, 1)
    add(shards, (0, 1, NAMES))
    (path,) = shards.directory.glob('*.shard')
    content = path.read_bytes()
    path.write_bytes(content[:120] + b'x' * (len(content) - 120))
    with pytest.raises(ValueError, match=f'{path.name} was changed while it was in use'):
        shards.read('S3')


def test_files_of_a_former_version_are_discarded_in_a_line(tmp_path):
    (tmp_path / 'shards').mkdir()
    for number in range(3):
        (tmp_path / 'shards' / f'{number}.0.npz').write_bytes(b'whatever')
    assert ShardFolder(tmp_path, 2).plan(NAMES, 9) == [Shard(0, 2, NAMES)]
    with warnings_of() as lines:
        ShardFolder(tmp_path, 2, discard_damaged=True)
    assert len(lines) == 1 and '3 files of a former version' in lines[0]
    assert not list((tmp_path / 'shards').iterdir())


def test_stitches_that_predicted_nan_are_remembered(tmp_path):
    shards = ShardFolder(tmp_path, 2)
    shards.add(Shard(0, 1, NAMES), noted(Shard(0, 1, NAMES)), {'L6', 'S9'})
    shards.add(Shard(1, 2, NAMES), noted(Shard(1, 2, NAMES)))
    for folder in (shards, ShardFolder(tmp_path, 2)):
        assert [name for name in NAMES if folder.is_invalid(name)] == ['L6']


@pytest.mark.parametrize('count', [1, 2, 3, 7])
def test_parts_are_the_whole_and_of_equal_size(count):
    parts = [share_of(tuple(range(5)), index, count) for index in range(count)]
    assert sum(parts, ()) == tuple(range(5))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(shard_size=0), 'shard_size=0 is not possible'),
        (dict(share=(2, 2)), 'Share 3/2 does not exist; there are 1 to 2'),
        (dict(share_by='luck'), "share_by='luck' is neither"),
        (dict(share=(0, 2), one_by_one=True), 'done in one pass; leave out --one-by-one'),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SweepOptions(**options)
