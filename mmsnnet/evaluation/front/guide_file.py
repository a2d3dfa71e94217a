"""The state of a guided search on the disk: ``guide.json`` in its results folder.

It says which sets of stitches were taken, so that a killed search goes on with the same ones, and
what was not looked at. That has no metrics: it is in no other file of results.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmsnnet.results.files import parse_json, write_atomically

GUIDE_NAME = 'guide.json'
#: Why a search ended.
BUDGET_SPENT, LITTLE_TO_GAIN = 'the budget is spent', 'the expected gain is below the bound'
_SETTINGS = ('budget', 'metric', 'rule', 'worst', 'seed', 'min_gain')
_KEYS = (*_SETTINGS, 'sets', 'reason', 'gain', 'not_looked_at')


class GuideFile:
    """What is known of a guided search.

    Attributes:
        path: The file.
        settings: ``budget``, ``metric``, ``rule``, ``worst``, ``seed``, ``min_gain``.
        sets: Names of the stitches of each set that was taken.
        reason: Why the search ended; None while it goes on.
        gain: Expected gain of what was not looked at, as a share of the hypervolume.
        not_looked_at: Chance to be on the front, by name of each stitch that was not looked at.

    Args:
        directory: Results folder.
        settings: Of a new search; a larger budget may go on with an old one.

    Raises:
        ValueError: If the file is damaged, or of a search of other settings.
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.path = Path(directory) / GUIDE_NAME
        self.settings = dict(settings or {})
        self.sets: list[list[str]] = []
        self.reason: str | None = None
        self.gain: float | None = None
        self.not_looked_at: dict[str, float] = {}
        if self.path.is_file():
            self._read()
            if settings:
                self._go_on(settings)

    def _read(self) -> None:
        try:
            content = parse_json(self.path.read_bytes())
            if set(content) != set(_KEYS):
                raise ValueError(f'it has the keys {list(content)}')
            self.settings = {key: content[key] for key in _SETTINGS}
            self.sets = [[str(name) for name in names] for names in content['sets']]
            self.reason, self.gain = content['reason'], content['gain']
            self.not_looked_at = dict(content['not_looked_at'])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f'{self.path} is damaged ({error}). Use another folder, or --overwrite.'
            ) from None

    def _go_on(self, wanted: Mapping[str, Any]) -> None:
        differing = [
            f'{key}: {self.settings[key]} there, {value} now'
            for key, value in wanted.items()
            if key != 'budget' and self.settings[key] != value
        ]
        if differing:
            raise ValueError(
                f'{self.path.parent} holds another guided search ({"; ".join(differing)}). Use its '
                'settings, another folder, or --overwrite to discard it.'
            )
        if wanted['budget'] != self.settings['budget']:
            self.settings['budget'], self.reason = wanted['budget'], None

    def add(self, names: Sequence[str]) -> None:
        """Put a set on the disk before returning."""
        self.sets.append(list(names))
        self.save()

    def end(self, reason: str, gain: float, not_looked_at: Mapping[str, float]) -> None:
        """Put on the disk that the search ended, and what it did not look at."""
        self.reason, self.gain = reason, float(f'{gain:.3g}')
        self.not_looked_at = dict(not_looked_at)
        self.save()

    def take_out(self, names: Iterable[str]) -> None:
        """Forget that stitches were not looked at, since they were scored after all."""
        names = self.not_looked_at.keys() & set(names)
        if names:
            for name in names:
                del self.not_looked_at[name]
            self.save()

    def discard(self) -> None:
        """Forget the search, since all stitches go on without it."""
        self.path.unlink(missing_ok=True)
        self.sets, self.not_looked_at, self.reason = [], {}, None

    def save(self) -> None:
        """Write the file."""
        state = {key: getattr(self, key) for key in ('sets', 'reason', 'gain', 'not_looked_at')}
        text = json.dumps({**self.settings, **state}, indent=1)
        write_atomically(self.path, text.encode() + b'\n')
