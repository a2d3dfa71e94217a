"""What a folder of rooms holds, and the record of it, ``rooms.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .files import write_bytes
from .render import SMALLEST

LARGEST_SIDE, MOST_PIXELS, MOST_ROOMS = 8192, 2**24, 10**7
"""Most pixels of a side and of a picture (a process needs about 1 KB for each), most rooms."""
LAYOUTS = ('ade20k', 'nyu', 'coco', 'objects')
RECORD = 'rooms.json'
RENDERER = 1
"""Version of the renderer; raised whenever the same seed gives other pictures."""


@dataclass(frozen=True)
class RoomsSpec:
    """A set of rooms.

    Args:
        train: Number of training rooms.
        val: Number of validation rooms.
        size: Height and width in pixels, both 32 to ``LARGEST_SIDE``, ``MOST_PIXELS`` together.
        seed: Seed of the set, >= 0.
        layouts: Some of ``LAYOUTS``.

    Raises:
        ValueError: A value is out of range.
    """

    train: int = 3700
    val: int = 300
    size: tuple[int, int] = (96, 96)
    seed: int = 0
    layouts: tuple[str, ...] = LAYOUTS

    def __post_init__(self) -> None:
        for name in ('train', 'val', 'seed'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name} must not be negative: {getattr(self, name)}')
        if min(self.size) < SMALLEST:
            raise ValueError(f'size {self.size[0]}x{self.size[1]} is too small: both sides must '
                             f'be at least {SMALLEST} pixels')
        if max(self.size) > LARGEST_SIDE or self.size[0] * self.size[1] > MOST_PIXELS:
            raise ValueError(f'size {self.size[0]}x{self.size[1]} is too large: sides are at most '
                             f'{LARGEST_SIDE} pixels, and both together {MOST_PIXELS}')
        if not 0 < self.train + self.val <= MOST_ROOMS:
            raise ValueError(f'train + val is {self.train + self.val} rooms; there must be at '
                             f'least 1 and at most {MOST_ROOMS}')
        unknown = [name for name in self.layouts if name not in LAYOUTS]
        if unknown or not self.layouts:
            raise ValueError(f'unknown layout {", ".join(map(repr, unknown)) or "(none)"}: '
                             f'allowed are {", ".join(LAYOUTS)}')

    def count(self, split: str) -> int:
        """Number of rooms of 'train' or 'val'."""
        return {'train': self.train, 'val': self.val}[split]

    def difference(self, other: RoomsSpec) -> str | None:
        """Why a folder of ``other`` rooms cannot be completed to this one; None if it can.

        More rooms and further layouts can be added to a folder; seed and size cannot change.
        """
        if self.seed != other.seed:
            return f'rooms of seed {other.seed}, not {self.seed}'
        if self.size != other.size:
            return ('rooms of size {}x{}'.format(*other.size)
                    + ', not {}x{}'.format(*self.size))
        for split in ('train', 'val'):
            if self.count(split) < other.count(split):
                return (f'{other.count(split)} {split} rooms, more than the {self.count(split)} '
                        'asked for')
        return None


def read_record(out: Path) -> RoomsSpec | None:
    """The spec of the rooms in a folder; None where there is no record.

    Raises:
        ValueError: The record cannot be read, or is of another version of the renderer.
    """
    path = out / RECORD
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        renderer = record.pop('renderer')
        record['size'], record['layouts'] = tuple(record['size']), tuple(record['layouts'])
        spec = RoomsSpec(**record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} cannot be read ({error}): choose another folder, or delete it '
                         'and the rooms beside it') from None
    if renderer != RENDERER:
        raise ValueError(f'{out} holds rooms of version {renderer} of the renderer, not '
                         f'{RENDERER}: choose another folder, or delete it')
    return spec


def write_record(out: Path, spec: RoomsSpec) -> None:
    """Writes ``rooms.json``."""
    record = {'renderer': RENDERER, **asdict(spec)}
    write_bytes(out / RECORD, (json.dumps(record, indent=2) + '\n').encode())
