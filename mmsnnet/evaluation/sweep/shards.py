"""What is known of stitches whose images are not all done, on the disk.

A shard is the work of some consecutive batches under some stitches; its file holds what the metrics
noted for them. A file appears whole or not at all, begins with a checksum of its content, and never
changes, so any number of processes and machines can write to one folder, and the folders of several
can be put together by copying files. Nothing is assumed of how the work was cut: what is left to do
is whatever no file covers. A damaged file covers nothing: its images are run again.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import MMLogger

from mmsnnet.results.files import write_atomically
from mmsnnet.results.fingerprint import fingerprint_text

from .metric_state import pack, unpack

SHARDS_NAME = 'shards'
_SUFFIX = '.shard'
#: First line of a file; the second is the SHA-256, in hex digits, of all that follows.
_MAGIC = b'mmsnnet shard 2\n'
_PREFIX = len(_MAGIC) + 64 + 1

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
        return f'{self.first:07d}-{self.stop:07d}.{digest}{_SUFFIX}'


@dataclass(frozen=True)
class _Header:
    """What a file says of itself.

    Attributes:
        shard: What was run.
        invalid: Stitches that predicted NaN for some of the images.
    """

    shard: Shard
    invalid: tuple[str, ...]


class ShardFolder:
    """A folder of files of shards.

    Args:
        directory: Results folder that it lies in; nothing is made before there is a file.
        num_batches: Batches of the whole data set.
        discard_damaged: Whether to delete damaged files, and those of a former version, and say
            so; else they are passed over.
    """

    def __init__(self, directory: Path, num_batches: int, discard_damaged: bool = False) -> None:
        self.directory = directory / SHARDS_NAME
        self.num_batches = num_batches
        self._discard_damaged = discard_damaged
        self._files: dict[Path, _Header] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read again which files there are."""
        known, self._files = self._files, {}
        for path in sorted(self.directory.glob(f'*{_SUFFIX}')):
            header = known.get(path) or self._checked_header(path)
            if header is not None:
                self._files[path] = header
        former = list(self.directory.glob('*.npz'))
        if former and self._discard_damaged:
            self._discard(
                former, f'{len(former)} files of a former version in {self.directory} are'
            )

    def await_files(self, shards: Sequence[Shard], seconds: float = 90.0) -> None:
        """Find the files of shards that other processes have written.

        Network file systems show new files to other machines after up to a minute.

        Args:
            shards: What was run.
            seconds: Longest time to wait.

        Raises:
            ValueError: If a file does not appear.
        """
        end = time.monotonic() + seconds
        paths = [self.directory / shard.file_name for shard in shards]
        while missing := [path for path in paths if not path.is_file()]:
            if time.monotonic() > end:
                raise ValueError(
                    f'{len(missing)} files that other processes wrote, such as {missing[0]}, do '
                    'not appear: the results folder must be one that all processes see.'
                )
            time.sleep(0.5)
        self.refresh()

    def _checked_header(self, path: Path) -> _Header | None:
        try:
            return _read_header(path, self.num_batches)
        except FileNotFoundError:  # discarded by another process
            return None
        except ValueError as error:
            if self._discard_damaged:
                self._discard([path], f'{path} is damaged ({error}): it is')
            return None

    def _discard(self, paths: Iterable[Path], what: str) -> None:
        MMLogger.get_current_instance().warning(f'{what} discarded, and their images run again.')
        for path in paths:
            path.unlink(missing_ok=True)

    def add(
        self, shard: Shard, noted: Mapping[str, Noted], invalid: Collection[str] = ()
    ) -> None:
        """Put a shard on the disk before returning.

        Args:
            shard: What was run.
            noted: By name of the stitch, for each batch of the shard.
            invalid: Stitches that predicted NaN for some of the images.

        Raises:
            TypeError: If a metric notes what cannot be stored.
        """
        header = dict(
            first=shard.first,
            stop=shard.stop,
            stitches=shard.stitches,
            invalid=[name for name in shard.stitches if name in invalid],
        )
        arrays = {'header': np.frombuffer(json.dumps(header).encode(), np.uint8)}
        for number, name in enumerate(shard.stitches):
            for member, array in pack([list(batch) for batch in noted[name]]).items():
                arrays[f'{number}/{member}'] = array
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        digest = hashlib.sha256(content.getvalue()).hexdigest().encode()
        self.directory.mkdir(exist_ok=True)
        path = self.directory / shard.file_name
        write_atomically(path, _MAGIC + digest + b'\n' + content.getvalue())
        self._files[path] = _Header(shard, tuple(header['invalid']))

    def read(self, name: str) -> list[Any]:
        """What the metrics noted of a stitch, batch by batch, as far as there are files.

        Raises:
            ValueError: If a file was changed since it was found; it is named.
        """
        batches: dict[int, Any] = {}
        for path, header in self._files.items():
            shard = header.shard
            if name in shard.stitches:
                noted = _read_noted(path, shard.stitches.index(name))
                if len(noted) != shard.stop - shard.first:
                    raise ValueError(f'{path} holds {len(noted)} batches, not those of its name.')
                batches.update(zip(range(shard.first, shard.stop), noted))
        return [batches[index] for index in sorted(batches)]

    @property
    def is_empty(self) -> bool:
        """Whether there are no files."""
        return not self._files

    def is_invalid(self, name: str) -> bool:
        """Whether a stitch predicted NaN for some image."""
        return any(name in header.invalid for header in self._files.values())

    def covered(self, name: str) -> set[int]:
        """Batches that are done under a stitch."""
        found = (header.shard for header in self._files.values())
        shards = [shard for shard in found if name in shard.stitches]
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

    def take_in(self, other: ShardFolder) -> None:
        """Copy the files of another folder."""
        for path in other._files:
            self.directory.mkdir(exist_ok=True)
            write_atomically(self.directory / path.name, path.read_bytes())
        self.refresh()

    def discard(self, names: Iterable[str]) -> None:
        """Delete the files that serve none but the named stitches."""
        names = set(names)
        for path, header in list(self._files.items()):
            if names.issuperset(header.shard.stitches):
                path.unlink(missing_ok=True)
                del self._files[path]
        # Only an empty folder goes: another process may be writing into it.
        with suppress(OSError):
            self.directory.rmdir()


def discard_shards(directory: Path) -> None:
    """Delete all shards of a results folder."""
    shutil.rmtree(directory / SHARDS_NAME, ignore_errors=True)


#: What numpy, zipfile and json raise at content that is none of theirs.
_DAMAGE = (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


def _read_header(path: Path, num_batches: int) -> _Header:
    """Header of a file whose checksum is right.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content[_PREFIX:]).hexdigest().encode()
    if not content.startswith(_MAGIC) or content[len(_MAGIC) : _PREFIX] != digest + b'\n':
        raise ValueError('its checksum is wrong')
    try:
        with np.load(io.BytesIO(content[_PREFIX:]), allow_pickle=False) as file:
            header = json.loads(file['header'].tobytes())
        shard = Shard(int(header['first']), int(header['stop']), tuple(header['stitches']))
        invalid = tuple(header['invalid'])
    except _DAMAGE as error:
        raise ValueError(str(error)) from None
    if not 0 <= shard.first < shard.stop <= num_batches:
        raise ValueError(f'it is of batches {shard.first} to {shard.stop} of {num_batches}')
    return _Header(shard, invalid)


def _read_noted(path: Path, number: int) -> list[Any]:
    """What was noted of the stitch of a number in a file, batch by batch."""
    prefix = f'{number}/'
    try:
        with open(path, 'rb') as stream:
            stream.seek(_PREFIX)
            with np.load(stream, allow_pickle=False) as file:
                members = [member for member in file.files if member.startswith(prefix)]
                return unpack({member[len(prefix) :]: file[member] for member in members})
    except _DAMAGE as error:
        raise ValueError(
            f'{path} was changed while it was in use ({error}). Start again to run its images '
            'anew.'
        ) from None
