"""Has mmengine read checkpoints with ``weights_only`` said, whatever the environment says.

mmengine's loaders leave the argument out. Torch then follows its default, which
``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1``, a common workaround, turns into executing what a file says.
Everything that reads checkpoints by mmengine (resuming, ``load_from``, ``init_cfg``, the hosts'
``init_model``) finds its loader by the scheme of the path, so those for local files and the web
are replaced. Other schemes (object stores) stay mmengine's. Files of safetensors, which mmengine
does not know, are read besides.
"""
from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank

from mmsnnet.compat.safe_load import load_allowed
from mmsnnet.import_watch import ImportWatch

#: Under this key the header of a safetensors file may hold the ``meta`` of a checkpoint, as JSON.
META_KEY = 'mmengine_meta'
#: Where mmengine's loaders are. Importing it takes all of mmengine's training along.
LOADERS = 'mmengine.runner.checkpoint'


def load_local(filename: str, map_location: Any = None) -> Any:
    """Content of a local file, of which nothing runs.

    Args:
        filename: the file; ``~`` is the user's home.
        map_location: see ``torch.load``.

    Raises:
        FileNotFoundError: if there is no such file.
        pickle.UnpicklingError: if it holds more than tensors and what mmengine stores.
        ValueError: if a file of safetensors is damaged.
    """
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{filename} can not be found.')
    if path.endswith('.safetensors'):
        return _load_safetensors(path, map_location)
    return load_allowed(path, map_location=map_location)


def _load_safetensors(path: str, map_location: Any) -> dict[str, Any]:
    """Content of a file of safetensors as that of a checkpoint of mmengine.

    Its meta are the JSON text under ``META_KEY`` in the file's header, if there is one.
    """
    from safetensors import SafetensorError, safe_open

    device = 'cpu' if map_location is None or callable(map_location) else str(map_location)
    try:
        with safe_open(path, framework='pt', device=device) as file:
            meta = json.loads((file.metadata() or {}).get(META_KEY, '{}'))
            names = file.keys()
            state = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError) as error:
        raise ValueError(f'{path} is damaged, or no file of safetensors: {error}') from None
    return {'meta': meta, 'state_dict': state}


def load_http(filename: str, map_location: Any = None, model_dir: str | None = None) -> Any:
    """Content of a file on the web, downloaded once into torch's folder of checkpoints.

    Args:
        filename: address of the file.
        map_location: see ``torch.load``.
        model_dir: folder to keep the file in; None for torch's.
    """
    folder = Path(model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints'))
    target = folder / os.path.basename(urlparse(filename).path)
    for turn in (get_rank() == 0, True):  # on further machines behind the first
        if turn and not target.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(filename, str(target), progress=False)
        barrier()
    return load_local(str(target), map_location)


def read_checkpoints_safely() -> None:
    """Replaces mmengine's loaders for local files and the web, once there are any.

    Calling it again is free.
    """
    if hasattr(sys.modules.get(LOADERS), 'CheckpointLoader'):
        _replace_loaders(LOADERS)
    elif not any(isinstance(finder, _LoadersWatch) for finder in sys.meta_path):
        _LoadersWatch(LOADERS.__eq__, _replace_loaders).start()


class _LoadersWatch(ImportWatch):
    """Watches for mmengine's loaders."""


def _replace_loaders(module: str) -> bool:
    """Replaces the loaders of a module that has been imported."""
    loader = sys.modules[module].CheckpointLoader
    loader.register_scheme('', load_local, force=True)
    loader.register_scheme(('http://', 'https://'), load_http, force=True)
    return True
