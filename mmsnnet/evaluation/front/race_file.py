"""The state of a race on the disk: ``race.json`` in its results folder.

It says what the race is, so that no other goes on in its folder, which looks are done, and which
stitches are dropped. A dropped stitch has no metrics: it is in no other file of results.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmsnnet.results.files import parse_json, write_atomically

RACE_NAME = 'race.json'
_SETTINGS = ('metric', 'rule', 'confidence', 'seed', 'min_images')
_KEYS = (*_SETTINGS, 'looks', 'dropped')


class RaceFile:
    """What is known of a race.

    Attributes:
        path: The file.
        settings: ``metric``, ``rule``, ``confidence``, ``seed`` and ``min_images``; empty where
            there is no race.
        looks: Numbers of batches after which stitches were dropped so far.
        dropped: By name of the stitch, dicts of ``kind`` ('dropped'), ``id name family flops
            params``, ``images`` (that it was scored on), ``of`` (all), ``beaten_by`` and
            ``probability``.

    Args:
        directory: Results folder.
        settings: Of a new race.

    Raises:
        ValueError: If the file is damaged.
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.path = Path(directory) / RACE_NAME
        self.settings = dict(settings or {})
        self.looks: list[int] = []
        self.dropped: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            self._read()

    def _read(self) -> None:
        try:
            content = parse_json(self.path.read_bytes())
            if set(content) != set(_KEYS):
                raise ValueError(f'it has the keys {list(content)}')
            self.settings = {key: content[key] for key in _SETTINGS}
            self.looks = [int(look) for look in content['looks']]
            self.dropped = {row['name']: dict(row) for row in content['dropped']}
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f'{self.path} is damaged ({error}). Use another folder, or --overwrite.'
            ) from None

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse to go on with a race of other settings.

        Raises:
            ValueError: Naming what differs.
        """
        differing = [
            f'{key}: {self.settings[key]} there, {value} now'
            for key, value in settings.items()
            if self.settings.get(key) != value
        ]
        if differing:
            raise ValueError(
                f'{self.path.parent} holds another race ({"; ".join(differing)}). Use its '
                'settings, another folder, or --overwrite to discard it.'
            )

    def add(self, look: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put a look and the stitches that were dropped at it on the disk before returning."""
        self.looks.append(look)
        self.dropped.update({row['name']: {'kind': 'dropped', **row} for row in rows})
        self.save()

    def begin_looks(self) -> None:
        """Let the looks begin anew, for another set of stitches."""
        if self.looks:
            self.looks = []
            self.save()

    def take_out(self, names: Iterable[str]) -> None:
        """Forget that stitches were dropped, since they were scored after all."""
        names = self.dropped.keys() & set(names)
        if names:
            for name in names:
                del self.dropped[name]
            self.save()

    def save(self) -> None:
        """Write the file."""
        content = {**self.settings, 'looks': self.looks, 'dropped': list(self.dropped.values())}
        write_atomically(self.path, json.dumps(content, indent=1).encode() + b'\n')
