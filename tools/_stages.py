"""A record of the stages of a long job, from which a killed job goes on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Content = dict[str, Any]


class StageRecord:
    """What stages were begun and done, with the inputs that each was done for.

    Args:
        path: JSON file that holds it; a damaged one is refused, since it may be someone else's.

    Raises:
        ValueError: If the file is no such record.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stages: dict[str, Content] = {}
        if path.is_file():
            try:
                self._stages = json.loads(path.read_text(encoding='utf-8'))['stages']
                _ = [entry['inputs'] for entry in self._stages.values()]
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ValueError(
                    f'{path} is damaged or none of make_model.py; remove it to begin anew.'
                ) from None

    def inputs(self, name: str) -> Content | None:
        """Inputs that a stage was begun with; None if it never was."""
        entry = self._stages.get(name)
        return None if entry is None else entry['inputs']

    def outputs(self, name: str) -> Content:
        """What a stage that is done left.

        Raises:
            KeyError: If it is not done.
        """
        return self._stages[name]['outputs']

    def seconds(self, name: str) -> float:
        """How long a stage took since it was last started; 0 if it is not done."""
        return self._stages.get(name, {}).get('seconds', 0.0)

    def is_done(self, name: str, inputs: Mapping[str, Any]) -> bool:
        """Whether a stage was done with these inputs."""
        entry = self._stages.get(name)
        return bool(entry) and entry['outputs'] is not None and entry['inputs'] == _plain(inputs)

    def forget(self, name: str) -> None:
        """Have a stage done again, for inputs that stay on record."""
        self._stages[name]['outputs'] = None

    def run(
        self, name: str, inputs: Mapping[str, Any], work: Callable[[], Mapping[str, Any]]
    ) -> bool:
        """Do a stage, unless it was done with these inputs; its outputs go into the record.

        That it was begun is on the disk before the work begins, and its outputs are only when the
        work is done: a job that is killed finds the stage begun.

        Returns:
            Whether there was something to do.
        """
        if self.is_done(name, inputs):
            return False
        self._stages[name] = dict(inputs=_plain(inputs), outputs=None)
        self._write()
        start = time.monotonic()
        outputs = _plain(work())
        self._stages[name].update(outputs=outputs, seconds=round(time.monotonic() - start, 1))
        self._write()
        return True

    def _write(self) -> None:
        from mmsnnet.results.files import write_atomically

        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dict(stages=self._stages), indent=1)
        write_atomically(self._path, text.encode())


def _plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep others out of a folder, as long as this process or one that it started lives.

    A job that was killed may leave the process of a stage behind, which still writes; child
    processes inherit the lock.

    Args:
        path: File to lock.

    Raises:
        ValueError: If another holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'a', encoding='utf-8') as file:
        os.set_inheritable(file.fileno(), True)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f'{path.parent} is in use: another make_model.py, or a stage of one that was '
                'killed, still runs there. Wait for it, or end it.'
            ) from None
        yield
