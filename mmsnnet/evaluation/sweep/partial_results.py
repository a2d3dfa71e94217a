"""What is known of stitches whose images are not all done, on the disk.

Each file holds what the metrics noted for some consecutive batches under some stitches. It appears
whole or not at all, and files never change, so any number of processes and machines can write to
one folder, and the folders of several can be put together by copying files. Nothing is assumed of
how the work was cut: what is left to do is whatever no file covers.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmsnnet.results.files import write_atomically
from mmsnnet.results.fingerprint import fingerprint_text

from .metric_state import pack, unpack

PARTIAL_NAME = 'shards'

#: For each batch, for each metric of the evaluator, what it noted.
Noted = Sequence[Sequence[Sequence[Any]]]


@dataclass(frozen=True)
class Shard:
    """Batches [first, stop) under some stitches.

    Attributes:
        first: Number of the first batch.
        stop: Number behind the last.
        stitches: Their names.
    """

    first: int
    stop: int
    stitches: tuple[str, ...]

    @property
    def num_runs(self) -> int:
        """Number of pairs of a batch and a stitch."""
        return (self.stop - self.first) * len(self.stitches)

    @property
    def file_name(self) -> str:
        """Name of the file of this shard, different for any other."""
        digest = fingerprint_text('\n'.join(self.stitches))[:12]
        return f'{self.first:07d}-{self.stop:07d}.{digest}.npz'


class PartialResults:
    """A folder of files of partial results.

    Args:
        directory: Results folder that it lies in; nothing is made before there is a file.
        num_batches: Batches of the whole data set.

    Raises:
        ValueError: If a file cannot be read; it is named.
    """

    def __init__(self, directory: Path, num_batches: int) -> None:
        self.directory = directory / PARTIAL_NAME
        self.num_batches = num_batches
        self._files: dict[Path, Shard] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read again which files there are."""
        paths = sorted(self.directory.glob('*.npz'))
        self._files = {path: self._files.get(path) or _read_header(path) for path in paths}

    def add(self, shard: Shard, noted: Mapping[str, Noted]) -> None:
        """Put a shard on the disk before returning.

        Args:
            shard: What was run.
            noted: By name of the stitch, for each batch of the shard.

        Raises:
            TypeError: If a metric notes what cannot be stored.
        """
        header = json.dumps(asdict(shard)).encode()
        arrays = {'header': np.frombuffer(header, np.uint8)}
        for number, name in enumerate(shard.stitches):
            for part, array in pack([list(batch) for batch in noted[name]]).items():
                arrays[f'{number}/{part}'] = array
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        self.directory.mkdir(exist_ok=True)
        path = self.directory / shard.file_name
        write_atomically(path, content.getvalue())
        self._files[path] = shard

    def read(self, name: str) -> list[Any]:
        """What the metrics noted of a stitch, batch by batch, as far as there are files."""
        batches: dict[int, Any] = {}
        for path, shard in self._files.items():
            if name in shard.stitches:
                prefix = f'{shard.stitches.index(name)}/'
                with np.load(path, allow_pickle=False) as file:
                    members = [member for member in file.files if member.startswith(prefix)]
                    noted = unpack({member[len(prefix) :]: file[member] for member in members})
                batches.update(zip(range(shard.first, shard.stop), noted))
        return [batches[index] for index in sorted(batches)]

    def covered(self, name: str) -> set[int]:
        """Batches that are done under a stitch."""
        shards = (shard for shard in self._files.values() if name in shard.stitches)
        return {index for shard in shards for index in range(shard.first, shard.stop)}

    def is_complete(self, name: str) -> bool:
        """Whether all batches are done under a stitch."""
        return len(self.covered(name)) >= self.num_batches

    def plan(
        self, names: Sequence[str], shard_batches: int, within: tuple[int, int] | None = None
    ) -> list[Shard]:
        """What is left to do, cut into shards.

        Args:
            names: Stitches that are wanted.
            shard_batches: Most batches of a shard.
            within: First batch, and the one behind the last; None for all.
        """
        covered = {name: self.covered(name) for name in names}
        shards: list[Shard] = []
        for index in range(*(within or (0, self.num_batches))):
            pending = tuple(name for name in names if index not in covered[name])
            last = shards[-1] if shards else None
            joins = last and last.stop == index and last.stitches == pending
            if joins and last.stop - last.first < shard_batches:
                shards[-1] = Shard(last.first, index + 1, pending)
            elif pending:
                shards.append(Shard(index, index + 1, pending))
        return shards

    def take_in(self, other: PartialResults) -> None:
        """Copy the files of another folder."""
        for path in other._files:
            self.directory.mkdir(exist_ok=True)
            write_atomically(self.directory / path.name, path.read_bytes())
        self.refresh()

    def discard(self, names: Iterable[str]) -> None:
        """Delete the files that serve none but the named stitches."""
        names = set(names)
        for path, shard in list(self._files.items()):
            if names.issuperset(shard.stitches):
                path.unlink(missing_ok=True)
                del self._files[path]
        # Only an empty folder goes: another process may be writing into it.
        with suppress(OSError):
            self.directory.rmdir()


def discard_partial_results(directory: Path) -> None:
    """Delete all partial results of a results folder."""
    shutil.rmtree(directory / PARTIAL_NAME, ignore_errors=True)


def _read_header(path: Path) -> Shard:
    try:
        with np.load(path, allow_pickle=False) as file:
            content = json.loads(file['header'].tobytes())
        return Shard(content['first'], content['stop'], tuple(content['stitches']))
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f'{path} is not a file of partial results ({error}). Remove it to run its images '
            'again.'
        ) from None
