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
      train/chair/ADE_train_00000001_004.png         object 4 of room 1         layout objects
      val/chair, classes.txt                         validation, names of kinds layout objects
      instances/training/ADE_train_00000001.png      instance ids, 16 bit       always
      instances/training.json                        kinds of the instances     always

All layouts share OUT as their ``data_root``: mmseg's ``ADE20KDataset`` and ``NYUDataset``, mmdet's
``CocoDataset`` and mmpretrain's ``ImageNet`` and ``CustomDataset`` use folders of different names.
Colour pictures are written once; further names are hard links (copies where the file system has
none). Room n has the same number in all names. Depth is the distance along the optical axis, as
depth cameras give it; every pixel has one. ``coco.py`` says which kinds COCO has and under what
name. ``instances/*.json`` holds ``{"images": {"ADE_train_00000001": {"scene": "bedroom", "objects":
{"1": "bed", ...}, "pictures": [1, ...]}, ...}}`` with the visible objects; walls, floor and ceiling
have the id 0.

Layout objects is for classification: squares with a margin about the objects that cover at least
1.3 % of a room's picture (120 pixels of 96 x 96), which ``"pictures"`` names. It writes the rooms
that they are cut out of, too, under the names of ade20k. Both splits have a folder of every kind,
be it empty, since readers number classes by folders.

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
