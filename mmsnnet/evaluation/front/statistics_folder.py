"""Per-image statistics of stitches on the disk: one file a stitch in the results folder."""

from __future__ import annotations

import io
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import Evaluator

from mmsnnet.results.files import write_atomically

from ..sweep.metric_state import pack, unpack
from .image_statistics import ImageStatistics, is_of_these, restored, statistics_of

FOLDER_NAME = 'image_statistics'
#: What numpy, zipfile and json raise at content that is none of theirs.
_DAMAGE = (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


def collect(
    evaluator: Evaluator, batches: Iterable[Any], whole: bool = False
) -> dict[str, ImageStatistics]:
    """Statistics of images under one stitch, by the prefix of their metric.

    Args:
        evaluator: The evaluator whose metrics noted the results.
        batches: For each batch, for each metric, what it noted.
        whole: Whether these are all images, so that a metric that scores others has no statistics.
    """
    batches = list(batches)
    found = {}
    for number, metric in enumerate(evaluator.metrics):
        results = [result for batch in batches for result in batch[number]]
        statistics = statistics_of(metric, results)
        if statistics is not None and (not whole or is_of_these(metric, len(results))):
            found[metric.prefix or ''] = statistics
    return found


def measured_by(statistics: Mapping[str, ImageStatistics], name: str) -> tuple[str, str] | None:
    """Prefix and key of the statistics that a metric comes from; None if it comes from none."""
    for prefix, one in statistics.items():
        key = name[len(prefix) + 1 :] if prefix else name
        if name == (f'{prefix}/{key}' if prefix else key) and key in one.keys:
            return prefix, key
    return None


class StatisticsFolder:
    """A folder of files of statistics.

    Args:
        directory: Results folder that it lies in; nothing is made before there is a file.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory) / FOLDER_NAME

    def __contains__(self, name: str) -> bool:
        return self._path(name).is_file()

    def _path(self, name: str) -> Path:
        return self.directory / f'{name}.npz'

    def add(self, name: str, statistics: Mapping[str, ImageStatistics]) -> None:
        """Put the statistics of a stitch on the disk; those of no metric make no file."""
        if not statistics:
            return
        content = io.BytesIO()
        stored = {prefix: one.stored() for prefix, one in statistics.items()}
        np.savez_compressed(content, **pack(stored))
        self.directory.mkdir(exist_ok=True)
        write_atomically(self._path(name), content.getvalue())

    def read(self, name: str) -> dict[str, ImageStatistics]:
        """Statistics of a stitch by the prefix of their metric; empty if there is no file.

        Raises:
            ValueError: If the file is damaged; it is named.
        """
        path = self._path(name)
        if not path.is_file():
            return {}
        try:
            with np.load(path, allow_pickle=False) as file:
                stored = unpack({member: file[member] for member in file.files})
            return {prefix: restored(one) for prefix, one in stored.items()}
        except _DAMAGE as error:
            reason = str(error) or type(error).__name__
            raise ValueError(
                f'{path} is damaged ({reason}); take away its line in stitches.jsonl to score the '
                'stitch again.'
            ) from None

    def take_in(self, other: Path, name: str) -> None:
        """Copy the file of a stitch from another results folder, if it has one."""
        path = StatisticsFolder(other)._path(name)
        if path.is_file():
            self.directory.mkdir(exist_ok=True)
            write_atomically(self._path(name), path.read_bytes())


def discard_statistics(directory: Path) -> None:
    """Delete all statistics of a results folder."""
    shutil.rmtree(Path(directory) / FOLDER_NAME, ignore_errors=True)
