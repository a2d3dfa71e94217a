"""What a room can hold: the kinds with their ADE20K label values, and the types of room."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

LABELS: Mapping[str, int] = MappingProxyType({
    'wall': 1, 'floor': 4, 'ceiling': 6, 'bed': 8, 'windowpane': 9, 'cabinet': 11, 'door': 15,
    'table': 16, 'plant': 18, 'curtain': 19, 'chair': 20, 'painting': 23, 'sofa': 24,
    'shelf': 25, 'rug': 29, 'armchair': 31, 'lamp': 37, 'cushion': 40, 'box': 42, 'pillow': 58,
    'stool': 111, 'screen': 131,
})
"""Kind -> value in the label picture: position in the 150 classes of ADE20K + 1 (0 is "other",
which mmseg's ``ADE20KDataset`` ignores)."""

NAMES: Mapping[int, str] = MappingProxyType({value: name for name, value in LABELS.items()})
"""Value in the label picture -> kind."""

SURFACES = ('floor', 'ceiling', 'wall')
"""Kinds that are no objects: their instance id is 0."""

SCENES = ('bedroom', 'living_room', 'dining_room', 'office', 'study', 'home_storage')
"""Types of room, by the names that mmseg's ``NYUDataset`` reads from its file names."""
