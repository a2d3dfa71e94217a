"""The COCO layout of rooms, read by pycocotools and by mmdet's data set."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from rooms import RoomsSpec, render_room, write_rooms
from rooms.coco import COCO_IDS, COCO_KINDS, COCO_NAMES, run_lengths
from rooms.files import own_files

import mmsnnet  # noqa: F401 - gives mmcv its ops

SPEC = RoomsSpec(train=6, val=3, size=(48, 64), seed=2, layouts=('coco',))
#: COCO's own ids of the rooms' classes (instances_val2017.json).
ROOMS_IDS = {
    'chair': 62, 'couch': 63, 'potted plant': 64, 'bed': 65, 'dining table': 67, 'tv': 72,
}  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'rooms'
    write_rooms(out, SPEC)
    return out


def truth(split, index):
    """COCO's name and mask of each object of a room that COCO has, from the renderer itself."""
    room = render_room(SPEC.seed, split, index, SPEC.size)
    return sorted(
        (
            (COCO_KINDS[kind], room.instance == key)
            for key, kind in room.objects.items()
            if kind in COCO_KINDS
        ),
        key=lambda pair: (pair[0], *np.argwhere(pair[1])[0]),
    )


def test_names_and_ids_are_those_of_coco():
    coco = pytest.importorskip('mmdet.datasets').CocoDataset
    assert coco.METAINFO['classes'] == COCO_NAMES
    assert {name: COCO_IDS[name] for name in COCO_KINDS.values()} == ROOMS_IDS
    assert (len(COCO_IDS), COCO_IDS['person'], COCO_IDS['toothbrush']) == (80, 1, 90)
    assert COCO_IDS['stop sign'] == 13 and COCO_IDS['microwave'] == 78


def test_the_layout_alone_writes_no_other(folder):
    pictures = sorted(path.name for path in (folder / 'train2017').iterdir())
    assert pictures == [f'{number:012d}.jpg' for number in range(1, 7)]
    assert sorted(path.name for path in folder.iterdir()) == [
        'annotations', 'instances', 'rooms.json', 'train2017', 'val2017',
    ]  # fmt: skip
    assert sorted(path.name for path in (folder / 'annotations').iterdir()) == [
        'instances_train2017.json', 'instances_val2017.json',
    ]  # fmt: skip
    assert {path for path in folder.rglob('*') if path.is_file()} - set(own_files(folder)) == {
        folder / 'rooms.json'
    }


@pytest.mark.parametrize(('split', 'count'), [('train', 6), ('val', 3)])
def test_pycocotools_reads_the_objects_to_the_pixel(folder, split, count):
    tools = pytest.importorskip('pycocotools.coco')
    from pycocotools import mask as codes

    data = tools.COCO(str(folder / f'annotations/instances_{split}2017.json'))
    assert sorted(data.getImgIds()) == list(range(1, count + 1))
    for number in data.getImgIds():
        image = data.loadImgs(number)[0]
        with Image.open(folder / f'{split}2017' / image['file_name']) as picture:
            assert (image['width'], image['height']) == picture.size == (64, 48)
        found = []
        for item in data.loadAnns(data.getAnnIds(number)):
            mask = data.annToMask(item)
            code = codes.encode(np.asfortranarray(mask))
            assert item['bbox'] == codes.toBbox(code).tolist()
            assert item['area'] == codes.area(code) and item['iscrowd'] == 0
            found.append((data.loadCats(item['category_id'])[0]['name'], mask.astype(bool)))
        found.sort(key=lambda pair: (pair[0], *np.argwhere(pair[1])[0]))
        expected = truth(split, number - 1)
        assert [name for name, _ in found] == [name for name, _ in expected]
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(found, expected))


@pytest.mark.parametrize('classes', [None, tuple(ROOMS_IDS)])
def test_mmdet_reads_boxes_and_masks(folder, classes):
    datasets = pytest.importorskip('mmdet.datasets')
    pipeline = [
        dict(type='mmdet.LoadImageFromFile'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='mmdet.PackDetInputs'),
    ]
    data = datasets.CocoDataset(
        ann_file='annotations/instances_train2017.json', data_root=str(folder),
        data_prefix=dict(img='train2017/'), pipeline=pipeline,
        metainfo=dict(classes=classes) if classes else None,
    )  # fmt: skip
    assert len(data) == 6
    names, seen = data.metainfo['classes'], 0
    for item in data:
        sample = item['data_samples']
        masks = sample.gt_instances.masks.masks.astype(bool)
        expected = {(name, mask.tobytes()) for name, mask in truth('train', sample.img_id - 1)}
        labels = sample.gt_instances.labels.tolist()
        assert {(names[i], mask.tobytes()) for i, mask in zip(labels, masks)} == expected
        for box, mask in zip(sample.gt_instances.bboxes.tensor.tolist(), masks):
            (top, left), (bottom, right) = np.argwhere(mask).min(0), np.argwhere(mask).max(0) + 1
            assert box == [left, top, right, bottom]
        seen += len(labels)
    assert seen > 10


def test_no_object_is_cut_out_of_the_annotations(folder):
    for split, count in (('train', 6), ('val', 3)):
        content = json.loads((folder / f'annotations/instances_{split}2017.json').read_text())
        objects = [truth(split, index) for index in range(count)]
        assert len(content['annotations']) == sum(map(len, objects))
        ids = [item['id'] for item in content['annotations']]
        assert ids == list(range(1, len(ids) + 1))


@pytest.mark.parametrize(
    ('rows', 'counts'),
    [
        (['00', '00'], [4]), (['11', '11'], [0, 4]), (['10', '00'], [0, 1, 3]),
        (['01', '01'], [2, 2]), (['00', '10', '10'], [1, 2, 3]), (['11', '01'], [0, 1, 1, 2]),
    ],
)  # fmt: skip
def test_runs_go_down_the_columns_and_begin_with_zeros(rows, counts):
    mask = np.array([[pixel == '1' for pixel in row] for row in rows])
    assert run_lengths(mask) == counts


def test_the_annotations_come_back_after_they_were_lost(folder, tmp_path):
    write_rooms(tmp_path / 'rooms', SPEC)
    lost = tmp_path / 'rooms/annotations/instances_val2017.json'
    before = lost.read_bytes()
    lost.unlink()
    assert write_rooms(tmp_path / 'rooms', SPEC) == (0, 9)
    assert lost.read_bytes() == before
    assert before == (folder / 'annotations/instances_val2017.json').read_bytes()
