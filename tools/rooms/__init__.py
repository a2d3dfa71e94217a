"""A small renderer of furnished indoor rooms: data that anyone can have, in numpy and Pillow alone.

``render_room(seed, split, index, size)`` gives one picture with labels, depth and instances.
``write_rooms(out, spec)`` fills a folder (``tools/make_rooms.py`` is its command line)::

    OUT/
      rooms.json                                     seed, size, counts, layouts
      images/training/ADE_train_00000001.jpg         colour                     layout ade20k
      annotations/training/ADE_train_00000001.png    label values, 8 bit        layout ade20k
      images/validation, annotations/validation      ADE_val_*                  layout ade20k
      images/train/bedroom_00001.jpg                 the same colour file       layout nyu
      annotations/train/bedroom_00001.png            depth in mm, 16 bit        layout nyu
      images/test, annotations/test                  the validation rooms       layout nyu
      train2017/000000000001.jpg                     the same colour file       layout coco
      annotations/instances_train2017.json           boxes and masks            layout coco
      val2017, annotations/instances_val2017.json    the validation rooms       layout coco
      instances/training/ADE_train_00000001.png      instance ids, 16 bit       always
      instances/training.json                        kinds of the instances     always

All layouts share OUT as their ``data_root``: mmseg's ``ADE20KDataset`` and ``NYUDataset`` and
mmdet's ``CocoDataset`` use folders of different names. Colour pictures are written once; further
names are hard links (copies where the file system has none). Room n has the same number in all
names. Depth is the distance along the optical axis, as depth cameras give it; every pixel has one.
``coco.py`` says which kinds COCO has and under what name. ``instances/*.json`` holds
``{"images": {"ADE_train_00000001": {"scene": "bedroom", "objects": {"1": "bed", ...}}, ...}}``
with the visible objects; walls, floor and ceiling have the id 0.

How it works: ``furnish`` draws a plan of pieces (boxes, frusta, ellipsoids) in a room; ``trace``
and ``shade`` cast rays at twice the resolution, with shadows of one lamp or window.
"""

from .dataset import write_rooms
from .kinds import LABELS, SCENES, SURFACES
from .render import RoomImage, plan_room, render_plan, render_room, scene_of
from .spec import LAYOUTS, RoomsSpec

__all__ = [
           'LABELS',
           'LAYOUTS',
           'SCENES',
           'SURFACES',
           'RoomImage',
           'RoomsSpec',
           'plan_room',
           'render_plan',
           'render_room',
           'scene_of',
           'write_rooms',
]
