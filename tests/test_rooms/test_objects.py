"""The layout of objects: squares cut out of rooms by kind, read by mmpretrain's data sets."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from rooms import RoomsSpec, render_room, write_rooms
from rooms.files import own_files
from rooms.kinds import LABELS
from rooms.objects import OBJECT_KINDS, square

import mmsnnet  # noqa: F401 - keeps mmpretrain importable

SPEC = RoomsSpec(train=9, val=3, size=(48, 64), seed=2, layouts=('objects',))
SPLITS = {'train': ('training', 9), 'val': ('validation', 3)}
#: Of the 48 x 64 pixels of a room: 1.302 %, as 120 of 96 x 96.
LEAST_AREA = 40


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob('*')) if path.is_file()}  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'rooms'
    assert write_rooms(out, SPEC) == (12, 0)
    return out


def large_objects(split, index):
    """Kind and box (top, left, bottom, right) by id of the objects of a room that are pictured."""
    room = render_room(SPEC.seed, split, index, SPEC.size)
    found = {}
    for key, kind in room.objects.items():
        pixels = np.argwhere(room.instance == key)
        if len(pixels) >= LEAST_AREA:
            found[key] = kind, (*pixels.min(0), *(pixels.max(0) + 1))
    return found


def places(picture, crop):
    """All (top, left) at which a crop is to be found in a picture."""
    rows, columns = crop.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(picture, (rows, columns, 3))[:, :, 0]
    return np.argwhere((windows == crop).all(axis=(2, 3, 4)))


def test_there_are_nineteen_kinds_none_of_them_a_surface(folder):
    assert set(OBJECT_KINDS) == set(LABELS) - {'wall', 'floor', 'ceiling'}
    assert (folder / 'classes.txt').read_text().split() == sorted(OBJECT_KINDS)
    assert len(OBJECT_KINDS) == 19


@pytest.mark.parametrize('split', SPLITS)
def test_every_object_that_is_large_enough_has_one_picture_under_its_kind(folder, split):
    expected = Counter(
        (kind, f'ADE_{split}_{index + 1:08d}_{key:03d}.png')
        for index in range(SPLITS[split][1])
        for key, (kind, _) in large_objects(split, index).items()
    )
    found = Counter((path.parent.name, path.name) for path in (folder / split).glob('*/*'))
    assert found == expected and len(found) > 8


@pytest.mark.parametrize('split', SPLITS)
def test_a_picture_is_the_square_of_the_room_about_its_object(folder, split):
    room_folder, count = SPLITS[split]
    for index in range(count):
        stem = f'ADE_{split}_{index + 1:08d}'
        room = np.asarray(Image.open(folder / 'images' / room_folder / f'{stem}.jpg'))
        for key, (kind, (top, left, bottom, right)) in large_objects(split, index).items():
            crop = np.asarray(Image.open(folder / split / kind / f'{stem}_{key:03d}.png'))
            longest = max(bottom - top, right - left)
            side = min(int(np.ceil(longest * 1.25)), 48)
            assert crop.shape == (side, side, 3)
            assert any(
                (row <= top and bottom <= row + side and column <= left and right <= column + side)
                if longest <= side else column <= (left + right) / 2 <= column + side
                for row, column in places(room, crop)
            )  # fmt: skip


def mask(top, left, bottom, right, shape=(40, 60)):
    found = np.zeros(shape, bool)
    found[top:bottom, left:right] = True
    return found


@pytest.mark.parametrize(
    ('box', 'expected'),
    [
        ((16, 20, 24, 28), (15, 19, 25, 29)),  # 8 pixels with one more on each side
        ((16, 20, 17, 28), (11, 19, 21, 29)),  # a square about a line
        ((0, 0, 8, 8), (0, 0, 10, 10)), ((32, 52, 40, 60), (30, 50, 40, 60)),  # at the edges
        ((0, 0, 40, 40), (0, 0, 40, 40)), ((0, 10, 5, 60), (0, 15, 40, 55)),  # larger than fits
        ((3, 3, 4, 4), (2, 2, 4, 4)),
    ],
)  # fmt: skip
def test_squares_have_a_margin_and_stay_inside(box, expected):
    rows, columns = square(mask(*box))
    assert (rows.start, columns.start, rows.stop, columns.stop) == expected


def test_no_picture_is_in_both_splits(folder):
    pictures = {
        split: {path.read_bytes() for path in (folder / split).glob('*/*')} for split in SPLITS
    }
    assert not pictures['train'] & pictures['val']
    for split in SPLITS:
        names = [path.name for path in (folder / split).glob('*/*')]
        assert names and all(name.startswith(f'ADE_{split}_') for name in names)


def test_objects_are_cut_out_of_rooms_that_are_there(folder, tmp_path):
    out = tmp_path / 'rooms'
    write_rooms(out, RoomsSpec(9, 3, (48, 64), 2, ('ade20k',)))
    assert not (out / 'train').exists()
    assert write_rooms(out, SPEC) == (0, 12), 'nothing is rendered again'
    mine, alone = contents(out), contents(folder)
    assert {name: mine[name] for name in alone if name != 'rooms.json'} == {
        name: alone[name] for name in alone if name != 'rooms.json'
    }


def test_lost_pictures_come_back_also_where_the_list_of_objects_is_of_a_former_version(
    folder, tmp_path
):
    out = tmp_path / 'rooms'
    write_rooms(out, SPEC, workers=2)
    assert contents(out) == contents(folder)
    first, second, *_ = sorted((out / 'train').glob('*/*'))
    first.unlink()
    (second.parent / f'.{second.name}.tmp').write_bytes(b'half')
    assert write_rooms(out, SPEC) == (0, 12)
    assert contents(out) == contents(folder)
    index = out / 'instances/training.json'
    content = json.loads(index.read_text())
    for entry in content['images'].values():
        del entry['pictures']
    index.write_text(json.dumps(content))
    first.unlink()
    assert write_rooms(out, SPEC) == (0, 12)
    assert contents(out) == contents(folder)


def test_all_files_are_known_as_those_of_rooms(folder):
    files = {path for path in folder.rglob('*') if path.is_file()}
    assert files - set(own_files(folder)) == {folder / 'rooms.json'}


def test_mmpretrain_numbers_the_kinds_alike_in_both_splits(folder):
    datasets = pytest.importorskip('mmpretrain.datasets')
    kinds = {split: {path.parent.name for path in (folder / split).glob('*/*')} for split in SPLITS}
    assert kinds['val'] < kinds['train'], 'a kind that one split lacks'
    for split in SPLITS:
        plain = datasets.CustomDataset(data_root=str(folder), data_prefix=split)
        named = datasets.ImageNet(
            data_root=str(folder), split=split, metainfo=dict(classes=OBJECT_KINDS)
        )
        listed = datasets.CustomDataset(
            data_root=str(folder), data_prefix=split, classes=str(folder / 'classes.txt')
        )
        for data in (plain, named, listed):
            assert tuple(data.CLASSES) == OBJECT_KINDS
            for info in data.load_data_list():
                assert info['img_path'].split('/')[-2] == OBJECT_KINDS[info['gt_label']]
            assert len(data) == len(list((folder / split).glob('*/*')))
