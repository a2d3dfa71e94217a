"""The folder of rooms: its layouts, its completion after interruptions, and what it refuses."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from PIL import Image
from rooms import LABELS, RoomsSpec, render_room, write_rooms
from rooms.files import own_files

SPEC = RoomsSpec(train=11, val=3, size=(32, 40), seed=4)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob('*')) if path.is_file()}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'rooms'
    assert write_rooms(out, SPEC) == (14, 0)
    return out


def test_files_have_the_names_of_ade20k_and_nyu(folder):
    names = set(contents(folder))
    for split, start, count in (('training', 'ADE_train_', 11), ('validation', 'ADE_val_', 3)):
        for room, suffix in (('images', 'jpg'), ('annotations', 'png'), ('instances', 'png')):
            expected = {f'{room}/{split}/{start}{n + 1:08d}.{suffix}' for n in range(count)}
            assert {name for name in names if name.startswith(f'{room}/{split}/')} == expected
    for split, own, count in (('train', 'train', 11), ('test', 'val', 3)):
        stems = {f'{render_room(4, own, n, (32, 40)).scene}_{n + 1:05d}' for n in range(count)}
        assert {name for name in names if name.startswith(f'images/{split}/')} == {
            f'images/{split}/{stem}.jpg' for stem in stems}
        assert {name for name in names if name.startswith(f'annotations/{split}/')} == {
            f'annotations/{split}/{stem}.png' for stem in stems}


def test_files_hold_what_was_rendered(folder):
    room = render_room(4, 'val', 2, (32, 40))
    label = Image.open(folder / 'annotations/validation/ADE_val_00000003.png')
    depth = Image.open(folder / f'annotations/test/{room.scene}_00003.png')
    instance = Image.open(folder / 'instances/validation/ADE_val_00000003.png')
    assert label.mode == 'L'
    np.testing.assert_array_equal(np.asarray(label), room.label)
    np.testing.assert_array_equal(np.asarray(depth), room.depth_mm)
    np.testing.assert_array_equal(np.asarray(instance), room.instance)
    rgb = np.asarray(Image.open(folder / 'images/validation/ADE_val_00000003.jpg'))
    assert np.abs(rgb.astype(int) - room.rgb).mean() < 3


def test_all_names_of_a_picture_are_one_file(folder):
    scene = render_room(4, 'train', 0, (32, 40)).scene
    first = folder / 'images/training/ADE_train_00000001.jpg'
    assert first.samefile(folder / f'images/train/{scene}_00001.jpg')
    assert first.samefile(folder / 'train2017/000000000001.jpg')


def test_the_list_of_objects_names_every_visible_instance(folder):
    content = json.loads((folder / 'instances/training.json').read_text())
    assert content['labels'] == dict(LABELS)
    assert len(content['images']) == 11
    for stem, entry in content['images'].items():
        ids = np.asarray(Image.open(folder / f'instances/training/{stem}.png'))
        label = np.asarray(Image.open(folder / f'annotations/training/{stem}.png'))
        assert {int(key) for key in entry['objects']} == set(np.unique(ids)) - {0}
        for key, kind in entry['objects'].items():
            assert set(label[ids == int(key)]) == {LABELS[kind]}


def test_the_number_of_processes_makes_no_difference(folder, tmp_path):
    write_rooms(tmp_path / 'rooms', SPEC, workers=3)
    assert contents(tmp_path / 'rooms') == contents(folder)


def test_a_second_call_writes_nothing(folder):
    before = {path: path.stat().st_mtime_ns for path in own_files(folder)
              if path.suffix != '.json'}
    assert write_rooms(folder, SPEC) == (0, 14)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_call_after_an_interruption_restores_what_is_missing(folder, tmp_path):
    out = tmp_path / 'rooms'
    write_rooms(out, SPEC)
    whole = contents(out)
    for name in ('instances/training.json', 'images/training/ADE_train_00000002.jpg',
                 'annotations/validation/ADE_val_00000001.png'):
        (out / name).unlink()
    half_written = out / 'images/training/.ADE_train_00000002.jpg.tmp'
    half_written.write_bytes(b'half')
    rendered, kept = write_rooms(out, SPEC)
    assert contents(out) == whole == contents(folder)
    assert (rendered, kept) == (2, 12)


def test_rooms_and_layouts_can_be_added(folder, tmp_path):
    out = tmp_path / 'rooms'
    write_rooms(out, RoomsSpec(4, 0, (32, 40), 4, ('nyu',)))
    assert not (out / 'annotations/training').exists()
    write_rooms(out, RoomsSpec(11, 3, (32, 40), 4, ('ade20k', 'coco')))
    write_rooms(out, SPEC)
    mine, whole = contents(out), contents(folder)
    mine.pop('rooms.json'), whole.pop('rooms.json')
    assert mine == whole


@pytest.mark.parametrize(('spec', 'message'), [
    (RoomsSpec(11, 3, (32, 40), 5), r'holds rooms of seed 4, not 5.*--overwrite'),
    (RoomsSpec(11, 3, (40, 32), 4), r'holds rooms of size 32x40, not 40x32.*--overwrite'),
    (RoomsSpec(10, 3, (32, 40), 4), r'holds 11 train rooms, more than the 10 asked for'),
    (RoomsSpec(11, 2, (32, 40), 4), r'holds 3 val rooms, more than the 2 asked for'),
])
def test_other_rooms_in_the_same_folder_are_refused(folder, spec, message):
    before = contents(folder)
    with pytest.raises(ValueError, match=message):
        write_rooms(folder, spec)
    assert contents(folder) == before


def test_overwriting_replaces_rooms_and_nothing_else(tmp_path):
    out, other = tmp_path / 'rooms', RoomsSpec(2, 1, (32, 32), 8)
    write_rooms(out, SPEC)
    (out / 'images/training/mine.jpg').write_bytes(b'mine')
    write_rooms(out, other, overwrite=True)
    write_rooms(tmp_path / 'fresh', other)
    mine = contents(out)
    assert mine.pop('images/training/mine.jpg') == b'mine'
    assert mine == contents(tmp_path / 'fresh')


@pytest.mark.parametrize('overwrite', [False, True])
def test_a_folder_of_something_else_is_left_alone(tmp_path, overwrite):
    (tmp_path / 'images/training').mkdir(parents=True)
    (tmp_path / 'images/training/ADE_train_00000001.jpg').write_bytes(b'real')
    with pytest.raises(ValueError, match='is not empty and holds no rooms'):
        write_rooms(tmp_path, SPEC, overwrite=overwrite)
    assert list(contents(tmp_path).values()) == [b'real']


@pytest.mark.parametrize(('text', 'message'), [
    ('{', 'cannot be read'), ('[]', 'cannot be read'), ('{"renderer": 1}', 'cannot be read'),
    ('{"renderer": 0, "size": [32, 40], "layouts": ["nyu"], "train": 1, "val": 1, "seed": 4}',
     'version 0 of the renderer')])
def test_a_record_that_does_not_fit_is_named(tmp_path, text, message):
    (tmp_path / 'rooms.json').write_text(text)
    with pytest.raises(ValueError, match=message):
        write_rooms(tmp_path, SPEC)


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(train=-1), 'train must not be negative: -1'),
    (dict(val=-3), 'val must not be negative: -3'),
    (dict(seed=-1), 'seed must not be negative: -1'),
    (dict(size=(96, 31)), 'size 96x31 is too small'),
    (dict(layouts=('voc',)), "unknown layout 'voc'.*ade20k, nyu, coco"),
    (dict(layouts=()), 'unknown layout'),
])
def test_specs_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RoomsSpec(**arguments)


def test_progress_is_reported_from_start_to_end(tmp_path):
    calls = []
    write_rooms(tmp_path / 'rooms', SPEC, report=lambda *call: calls.append(call))
    assert calls[0] == (0, 14)
    assert calls[-1] == (14, 14)
    assert calls == sorted(calls)


def test_pictures_are_copied_where_there_are_no_hard_links(folder, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError('no links here')

    monkeypatch.setattr(os, 'link', refuse)
    write_rooms(tmp_path / 'rooms', SPEC)
    assert contents(tmp_path / 'rooms') == contents(folder)


@pytest.fixture
def mmseg_datasets():
    import mmsnnet  # noqa: F401
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        datasets = pytest.importorskip('mmseg.datasets')
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield datasets


def test_mmseg_reads_the_rooms_as_ade20k(folder, mmseg_datasets):
    pipeline = [dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', reduce_zero_label=True),
                dict(type='PackSegInputs')]
    data = mmseg_datasets.ADE20KDataset(
        data_root=str(folder), pipeline=pipeline, test_mode=True,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'))
    assert len(data) == 3
    for index, item in enumerate(data):
        room = render_room(4, 'val', index, (32, 40))
        truth = item['data_samples'].gt_sem_seg.data[0].numpy()
        np.testing.assert_array_equal(truth, room.label - 1)
        assert tuple(item['inputs'].shape) == (3, 32, 40)
        names = {data.metainfo['classes'][value].strip() for value in np.unique(truth)}
        assert names == {name for name, value in LABELS.items() if (room.label == value).any()}


def test_mmseg_reads_the_rooms_as_nyu(folder, mmseg_datasets):
    pipeline = [dict(type='LoadImageFromFile'),
                dict(type='LoadDepthAnnotation', depth_rescale_factor=1e-3),
                dict(type='PackSegInputs', meta_keys=('img_path', 'category_id'))]
    data = mmseg_datasets.NYUDataset(
        data_root=str(folder), pipeline=pipeline,
        data_prefix=dict(img_path='images/train', depth_map_path='annotations/train'))
    assert len(data) == 11
    for item in data:
        sample = item['data_samples']
        room = render_room(4, 'train', int(Path(sample.img_path).stem[-5:]) - 1, (32, 40))
        depth = sample.gt_depth_map.data[0].numpy()
        np.testing.assert_allclose(depth, room.depth_mm / 1000, atol=1e-6)
        assert data.metainfo['classes'][sample.category_id] == room.scene
