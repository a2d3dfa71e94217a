"""Objects of rooms as COCO's annotations: names, ids, boxes, areas and masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

COCO_NAMES = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat',
    'traffic light', 'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog',
    'horse', 'sheep', 'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella',
    'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite',
    'baseball bat', 'baseball glove', 'skateboard', 'surfboard', 'tennis racket', 'bottle',
    'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich', 'orange',
    'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch', 'potted plant',
    'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote', 'keyboard', 'cell phone',
    'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book', 'clock', 'vase', 'scissors',
    'teddy bear', 'hair drier', 'toothbrush',
)
"""COCO's 80 classes in the order of their ids."""

_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)

COCO_IDS: Mapping[str, int] = MappingProxyType(dict(zip(
    COCO_NAMES, (number for number in range(1, 91) if number not in _UNUSED_IDS))))
"""COCO's name -> its category id, 1 to 90 with gaps."""

COCO_KINDS: Mapping[str, str] = MappingProxyType({
    'bed': 'bed', 'chair': 'chair', 'armchair': 'chair', 'sofa': 'couch', 'table': 'dining table',
    'plant': 'potted plant', 'screen': 'tv',
})
"""Kind -> COCO's name, of the kinds that COCO has; the others (cabinets, lamps, stools, ...) are
background there."""


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's run-length code of a (H, W) boolean mask, not compressed.

    Lengths of the runs of equal values down the columns, one after the other; the first run is of
    zeros and may be empty.
    """
    pixels = np.concatenate([[False], mask.ravel(order='F')])
    changes = np.flatnonzero(pixels[1:] != pixels[:-1])
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()


def annotation(mask: np.ndarray) -> dict[str, Any]:
    """What COCO tells of one object: exact mask, area in pixels, box as x, y, width, height.

    Args:
        mask: (H, W) boolean, somewhere true.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return {'segmentation': {'size': list(mask.shape), 'counts': run_lengths(mask)},
            'area': int(mask.sum()), 'iscrowd': 0,
            'bbox': [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]}


def coco_content(rooms: Iterable[tuple[int, str, np.ndarray, Mapping[str, str]]]
                 ) -> dict[str, list[dict[str, Any]]]:
    """Images, annotations and categories of a split, as COCO's ``instances_*.json`` hold them.

    All 80 categories are listed, so that a model of all of them can be tested on rooms.

    Args:
        rooms: For each picture its id, the name of its file, its (H, W) instance ids, and the kind
            of each visible object by its id.
    """
    images, annotations = [], []
    for number, name, instances, objects in rooms:
        height, width = instances.shape
        images.append({'id': number, 'file_name': name, 'height': height, 'width': width})
        for key, kind in objects.items():
            if kind in COCO_KINDS:
                annotations.append({'id': len(annotations) + 1, 'image_id': number,
                                    'category_id': COCO_IDS[COCO_KINDS[kind]],
                                    **annotation(instances == int(key))})
    categories = [{'id': COCO_IDS[name], 'name': name} for name in COCO_NAMES]
    return {'images': images, 'annotations': annotations, 'categories': categories}
