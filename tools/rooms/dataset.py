"""Fills a folder with rooms, over several processes; what is there already is kept."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Callable

import numpy as np

from . import files
from .coco import coco_content
from .kinds import LABELS
from .objects import OBJECT_KINDS, pictured
from .render import SPLITS, plan_room, render_room, scene_of
from .spec import RoomsSpec, read_record, write_record

CHUNK = 8
Task = tuple[str, RoomsSpec, str, list[int]]
Entry = tuple[str, dict[str, Any]]
Result = tuple[str, list[Entry], int]


def write_rooms(out: Path, spec: RoomsSpec, workers: int = 1, overwrite: bool = False,
                report: Callable[[int, int], None] = lambda done, total: None
                ) -> tuple[int, int]:
    """Writes the rooms of a spec into a folder, in the layout that the package describes.

    Files appear whole or not at all, so after an interruption the same call writes what is
    missing. The pictures do not depend on ``workers``.

    Args:
        out: The folder; it must be new, empty, or hold rooms of the same seed and size.
        spec: What to write.
        workers: Number of processes.
        overwrite: Delete the rooms of another spec first (and only files that are rooms').
        report: Called with (rooms done, rooms in all) at the start and then as they are written.

    Returns:
        Number of rooms that were rendered and number that were there already.

    Raises:
        ValueError: The folder holds something else, or ``workers`` is not positive.
        OSError: The folder cannot be written to.
    """
    if workers < 1:
        raise ValueError(f'workers must be at least 1, not {workers}')
    _claim(out, spec, overwrite)
    _make_object_folders(out, spec)
    known = {split: _read_index(out, split) for split in SPLITS}
    tasks = {split: _missing(out, spec, split, known[split]) for split in SPLITS}
    total = spec.train + spec.val
    done, rendered = total - sum(map(len, tasks.values())), 0
    report(done, total)
    chunks = [(str(out), spec, split, indices[start:start + CHUNK])
              for split, indices in tasks.items() for start in range(0, len(indices), CHUNK)]
    for split, entries, count in _run(chunks, workers):
        known[split].update(entries)
        done, rendered = done + len(entries), rendered + count
        report(done, total)
    for split in SPLITS:
        _write_index(out, split, known[split])
        _write_coco(out, spec, split, known[split])
    return rendered, total - rendered


def _claim(out: Path, spec: RoomsSpec, overwrite: bool) -> None:
    """Makes sure that the folder is ours to fill, and records what it is to hold."""
    if out.exists() and not out.is_dir():
        raise ValueError(f'{out} is a file: give a folder')
    former = read_record(out)
    if former is None and out.exists() and any(out.iterdir()):
        raise ValueError(f'{out} is not empty and holds no rooms.json, so it is left alone: '
                         'choose another folder')
    reason = spec.difference(former) if former else None
    if reason and not overwrite:
        raise ValueError(f'{out} holds {reason}: choose another folder, or replace its rooms '
                         'with --overwrite')
    out.mkdir(parents=True, exist_ok=True)
    for path in files.own_files(out):
        # What a killed run left half written goes in any case.
        if overwrite or path.suffix == '.tmp':
            path.unlink()
    if former and not overwrite:
        layouts = former.layouts + tuple(set(spec.layouts) - set(former.layouts))
        spec = RoomsSpec(spec.train, spec.val, spec.size, spec.seed, layouts)
    write_record(out, spec)


def _make_object_folders(out: Path, spec: RoomsSpec) -> None:
    """Makes a folder for each kind (layout objects), also for kinds that no room of a split has.

    Readers number the classes by the folders that are there, so both splits must have all.
    """
    if 'objects' not in spec.layouts:
        return
    for split in SPLITS:
        for kind in OBJECT_KINDS:
            (out / files.object_folder(split, kind)).mkdir(parents=True, exist_ok=True)
    if not (out / files.CLASSES).exists():
        files.write_bytes(out / files.CLASSES, ('\n'.join(OBJECT_KINDS) + '\n').encode())


def _read_index(out: Path, split: str) -> dict[str, dict[str, Any]]:
    """Entries of the list of objects that an earlier run left; empty if it left none."""
    try:
        entries = json.loads((out / files.index_path(split)).read_text())['images']
        # Lists of former versions do not say which objects have a picture of their own.
        return {name: entry for name, entry in entries.items() if 'pictures' in entry}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_index(out: Path, split: str, entries: dict[str, dict[str, Any]]) -> None:
    content = {'labels': dict(LABELS), 'images': dict(sorted(entries.items()))}
    files.write_bytes(out / files.index_path(split), (json.dumps(content) + '\n').encode())


def _write_coco(out: Path, spec: RoomsSpec, split: str, known: dict[str, Any]) -> None:
    """Writes a split's annotations (layout coco) anew, from its instance pictures and objects."""
    if 'coco' not in spec.layouts:
        return
    rooms = ((index + 1, files.stem('coco', split, index, '') + '.jpg',
              files.read_instances(out / files.instance_path(split, index)),
              known[files.stem('ade20k', split, index, '')]['objects'])
             for index in range(spec.count(split)))
    content = json.dumps(coco_content(rooms), separators=(',', ':')) + '\n'
    files.write_bytes(out / files.coco_path(split), content.encode())


def _missing(out: Path, spec: RoomsSpec, split: str, known: dict[str, Any]) -> list[int]:
    """Rooms of which a file or the entry in the list of objects is missing."""
    present: set[str] = set()
    folders = {Path(path).parent for path in files.all_paths(spec.layouts, split, 0, '')}
    if 'objects' in spec.layouts:
        folders |= {Path(files.object_folder(split, kind)) for kind in OBJECT_KINDS}
    for folder in folders:
        if (out / folder).is_dir():
            present.update(f'{folder.as_posix()}/{name}' for name in os.listdir(out / folder))
    missing = []
    for index in range(spec.count(split)):
        entry = known.get(files.stem('ade20k', split, index, ''))
        if entry is None or not present.issuperset(_paths(spec, split, index, entry)):
            missing.append(index)
    return missing


def _paths(spec: RoomsSpec, split: str, index: int, entry: dict[str, Any]) -> list[str]:
    """All files of a room whose entry in the list of objects is known."""
    paths = files.all_paths(spec.layouts, split, index, entry['scene'])
    if 'objects' in spec.layouts:
        paths += files.object_paths(split, index, entry)
    return paths


def _run(chunks: list[Task], workers: int) -> Iterator[Result]:
    """Results of the chunks as they come, from this process or from several."""
    if workers == 1 or len(chunks) < 2:
        yield from map(_work, chunks)
        return
    # A forked worker need not import anything again, which takes longer than many rooms.
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else None
    pool = ProcessPoolExecutor(min(workers, len(chunks)), multiprocessing.get_context(method),
                               _start_worker, (os.getpid(),))
    try:
        futures: list[Future] = [pool.submit(_work, chunk) for chunk in chunks]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(parent: int) -> None:
    """Leaves the interrupt key to the parent, and ends the worker should the parent be killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(chunk: Task) -> Result:
    """Writes the missing files of some rooms.

    Returns:
        Their split, their entries in the list of objects, and how many had to be rendered.
    """
    out, spec, split, indices = Path(chunk[0]), *chunk[1:]
    entries, rendered = [], 0
    for index in indices:
        scene = scene_of(spec.seed, split, index)
        paths = files.all_paths(spec.layouts, split, index, scene)
        if all((out / path).exists() for path in paths):
            instances = files.read_instances(out / files.instance_path(split, index))
            placed = plan_room(spec.seed, split, index).placed
            kinds = {item.instance: item.piece.kind for item in placed}
            objects = {int(key): kinds[int(key)] for key in np.unique(instances) if key}
        else:
            image = render_room(spec.seed, split, index, spec.size)
            files.write_room(out, spec.layouts, split, index, image)
            instances, objects = image.instance, image.objects
            rendered += 1
        entry = {'scene': scene, 'objects': {str(key): objects[key] for key in objects},
                 'pictures': pictured(instances)}
        if 'objects' in spec.layouts:
            files.write_objects(out, split, index, entry)
        entries.append((files.stem('ade20k', split, index, ''), entry))
    return split, entries, rendered
