"""What metrics took down of batches under many stitches, on the disk beyond a bound of memory."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from io import SEEK_END, BytesIO
from typing import Any

import torch
from torch import Tensor

from .one_pass import BatchResults

#: Bytes of results that are kept in memory before all of them go to the disk.
MAX_BYTES = 2**28
_SIGNED = {torch.int8, torch.int16, torch.int32, torch.int64}
_PLAIN = _SIGNED | {torch.bool, torch.uint8, torch.float16, torch.float32, torch.float64}


class _Pickler(pickle.Pickler):
    """Writes plain tensors as arrays on the CPU: torch's own way takes 400 bytes for each."""

    def reducer_override(self, value: Any) -> Any:
        plain = type(value) is Tensor and value.dtype in _PLAIN and not value.requires_grad
        if plain and value.layout is torch.strided:
            return torch.from_numpy, (value.cpu().numpy(),)
        return NotImplemented


class SpilledResults:
    """Takes in batch after batch under all stitches, and gives back one stitch after the other.

    A hundred stitches take down as much as a hundred data sets. Results are written, in a compact
    form, to a file that has no name and is gone when the process ends; it stays in memory while
    it is small. What cannot be written (an object that is not picklable) stays as it is.

    Args:
        names: Of the stitches.
        directory: Folder for the file.
        max_bytes: Most bytes in memory.
    """

    def __init__(
        self, names: Iterable[str], directory: str | None = None, max_bytes: int = MAX_BYTES
    ) -> None:
        self._directory = directory
        # Closed by __exit__.
        self._file = tempfile.SpooledTemporaryFile(max_bytes, dir=directory)  # noqa: SIM115
        self._places: dict[str, list[tuple[int, int] | BatchResults]] = {
            name: [] for name in names
        }

    def __enter__(self) -> SpilledResults:
        return self

    def __exit__(self, *_: Any) -> None:
        with suppress(OSError):  # of a full disk, which was told
            self._file.close()

    def add(self, batch: Mapping[str, BatchResults]) -> None:
        """Take in a batch.

        Args:
            batch: By name of the stitch, for each metric of the evaluator, its results.

        Raises:
            OSError: If the disk is full.
        """
        for name, results in batch.items():
            content = BytesIO()
            try:
                _Pickler(content, pickle.HIGHEST_PROTOCOL).dump(results)
            except (pickle.PicklingError, TypeError, AttributeError):
                self._places[name].append(results)
                continue
            self._places[name].append(self._written(content.getbuffer()))

    def _written(self, content: memoryview) -> tuple[int, int]:
        """First byte and length of what is written behind the rest."""
        try:
            self._file.seek(0, SEEK_END)
            first = self._file.tell()
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            raise OSError(
                f'Results of {len(self._places)} stitches cannot be kept in '
                f'{self._directory or tempfile.gettempdir()} ({error.strerror}): free space there, '
                'or score fewer stitches at once.'
            ) from error
        return first, len(content)

    def of(self, name: str) -> Iterator[BatchResults]:
        """What was taken in of a stitch, batch by batch."""
        for place in self._places[name]:
            if isinstance(place, list):
                yield place
                continue
            first, length = place
            self._file.seek(first)
            yield pickle.loads(self._file.read(length))  # this process wrote it
