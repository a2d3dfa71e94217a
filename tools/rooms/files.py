"""Names of the files of a room, and writing them so that none is ever half there."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .kinds import SCENES
from .objects import OBJECT_KINDS, crops
from .render import RoomImage

FOLDERS = {'ade20k': {'train': 'training', 'val': 'validation'},
           'nyu': {'train': 'train', 'val': 'test'},
           'coco': {'train': 'train2017', 'val': 'val2017'},
           'objects': {'train': 'train', 'val': 'val'}}
QUALITY = 95
CLASSES = 'classes.txt'
OWN_NAME = re.compile(r'\.?(ADE_(train|val)_\d{8}(_\d{3,})?|(' + '|'.join(SCENES)
                      + r')_\d{5,}|\d{12})\.(jpg|png)(\.tmp)?$')


def stem(layout: str, split: str, index: int, scene: str) -> str:
    """Name of room ``index`` without its suffix, as the real data sets name their files."""
    if layout == 'ade20k':
        return f'ADE_{split}_{index + 1:08d}'
    return f'{scene}_{index + 1:05d}' if layout == 'nyu' else f'{index + 1:012d}'


def picture_paths(layouts: Sequence[str], split: str, index: int, scene: str) -> list[str]:
    """Paths of the colour picture, one per layout, relative to the folder.

    Objects are cut out of the picture of ade20k.
    """
    rooms = dict.fromkeys('ade20k' if name == 'objects' else name for name in layouts)
    return [f'{"" if name == "coco" else "images/"}{FOLDERS[name][split]}/'
            f'{stem(name, split, index, scene)}.jpg' for name in rooms]


def label_path(split: str, index: int) -> str:
    """Path of the label picture (layout ade20k)."""
    return f'annotations/{FOLDERS["ade20k"][split]}/{stem("ade20k", split, index, "")}.png'


def depth_path(split: str, index: int, scene: str) -> str:
    """Path of the depth picture (layout nyu)."""
    return f'annotations/{FOLDERS["nyu"][split]}/{stem("nyu", split, index, scene)}.png'


def instance_path(split: str, index: int) -> str:
    """Path of the instance picture (every layout)."""
    return f'instances/{FOLDERS["ade20k"][split]}/{stem("ade20k", split, index, "")}.png'


def index_path(split: str) -> str:
    """Path of the list of a split's objects (every layout)."""
    return f'instances/{FOLDERS["ade20k"][split]}.json'


def coco_path(split: str) -> str:
    """Path of a split's annotations (layout coco)."""
    return f'annotations/instances_{FOLDERS["coco"][split]}.json'


def object_folder(split: str, kind: str) -> str:
    """Folder of the pictures of one kind of object (layout objects)."""
    return f'{FOLDERS["objects"][split]}/{kind}'


def object_paths(split: str, index: int, entry: Mapping[str, Any]) -> list[str]:
    """Paths of the pictures of a room's objects (layout objects), by its entry in the list."""
    name = stem('ade20k', split, index, '')
    return [f'{object_folder(split, entry["objects"][str(key)])}/{name}_{key:03d}.png'
            for key in entry['pictures']]


def all_paths(layouts: Sequence[str], split: str, index: int, scene: str) -> list[str]:
    """All paths of a room but those of its objects; colour pictures come last in the writing."""
    paths = [instance_path(split, index)]
    if 'ade20k' in layouts:
        paths.append(label_path(split, index))
    if 'nyu' in layouts:
        paths.append(depth_path(split, index, scene))
    return paths + picture_paths(layouts, split, index, scene)


def own_files(out: Path) -> Iterator[Path]:
    """The files in the folder that bear names of rooms."""
    folders = {f'{room}/{folder}' for room in ('images', 'annotations', 'instances', '.')
               for names in FOLDERS.values() for folder in names.values()}
    folders |= {object_folder(split, kind) for split in ('train', 'val') for kind in OBJECT_KINDS}
    for folder in sorted(folders):
        yield from (path for path in sorted((out / folder).glob('*')) if OWN_NAME.match(path.name))
    lists = [path(split) for split in ('train', 'val') for path in (index_path, coco_path)]
    yield from (out / path for path in [*lists, CLASSES] if (out / path).exists())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name and renames it, so that it is there whole or not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.tmp')
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _encode(array: np.ndarray, suffix: str) -> bytes:
    buffer = io.BytesIO()
    options = {'quality': QUALITY, 'subsampling': 0} if suffix == 'JPEG' else {'compress_level': 4}
    Image.fromarray(array).save(buffer, suffix, **options)
    return buffer.getvalue()


def write_room(out: Path, layouts: Sequence[str], split: str, index: int,
               image: RoomImage) -> None:
    """Writes those files of a room that are missing."""
    pixels = {instance_path(split, index): image.instance, label_path(split, index): image.label,
              depth_path(split, index, image.scene): image.depth_mm}
    pictures = picture_paths(layouts, split, index, image.scene)
    present = [out / path for path in pictures if (out / path).exists()]
    for path in all_paths(layouts, split, index, image.scene):
        if (out / path).exists():
            continue
        if path not in pictures:
            write_bytes(out / path, _encode(pixels[path], 'PNG'))
        elif present:
            _link(present[0], out / path)
        else:
            write_bytes(out / path, _encode(image.rgb, 'JPEG'))
            present.append(out / path)


def write_objects(out: Path, split: str, index: int, entry: Mapping[str, Any]) -> None:
    """Writes those pictures of a room's objects that are missing; the room's own must be there.

    Args:
        out: The folder.
        split: 'train' or 'val'.
        index: Number of the room.
        entry: The room's entry in the list of objects.
    """
    paths = object_paths(split, index, entry)
    if all((out / path).exists() for path in paths):
        return
    with Image.open(out / picture_paths(['objects'], split, index, '')[0]) as picture:
        pixels = np.asarray(picture)
    squares = crops(pixels, read_instances(out / instance_path(split, index)), entry['pictures'])
    for path, square in zip(paths, squares):
        if not (out / path).exists():
            write_bytes(out / path, _encode(square, 'PNG'))


def _link(source: Path, path: Path) -> None:
    """Gives a file a second name; copies it where the file system has no hard links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, path)
    except OSError:
        write_bytes(path, source.read_bytes())


def read_instances(path: Path) -> np.ndarray:
    """(H, W) uint16 instance ids of a file."""
    with Image.open(path) as picture:
        return np.asarray(picture).astype(np.uint16)
