"""What the results of a sweep depend on, as a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from torch.utils.data import Dataset

from mmsnnet import version

from .fingerprint import fingerprint_file, fingerprint_text

#: Parts of a config that change the results of a test.
_RELEVANT = ('model', 'test_dataloader', 'test_evaluator', 'default_scope')
#: Keys that change how fast data are read, never what is read.
_IRRELEVANT = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor')
#: Folders of the package whose code decides the features of a stitch.
_CODE = ('stitching', 'models')


def run_fingerprint(cfg: Config, checkpoint: str, dataset: Dataset) -> dict[str, Any]:
    """Fingerprint of a sweep.

    Args:
        cfg: Config that the runner is built from.
        checkpoint: File of the weights.
        dataset: Data set of the test, built.

    Returns:
        Hashes of config, weights, data and code, with the readable facts beside them.
    """
    relevant = {key: _without_speed(cfg.get(key)) for key in _RELEVANT}
    relevant['fp16'] = bool((cfg.get('test_cfg') or {}).get('fp16', False))
    return {
        'config': fingerprint_text(json.dumps(relevant, sort_keys=True, default=repr)),
        'checkpoint': fingerprint_file(checkpoint),
        'data': {'images': len(dataset), 'files': _data_hash(dataset)},
        'code': {
            'mmsnnet': f'{version.__version__}+{_code_hash()}',
            'mmengine': mmengine.__version__,
            'torch': torch.__version__,
        },
    }


def _without_speed(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {k: _without_speed(v) for k, v in node.items() if k not in _IRRELEVANT}
    if isinstance(node, (list, tuple)):
        return [_without_speed(child) for child in node]
    return node


def _data_hash(dataset: Dataset) -> str:
    """Hash of names and sizes of the files of a data set, as far as it tells them."""
    digest = hashlib.sha256(type(dataset).__name__.encode())
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            for key in ('img_path', 'seg_map_path', 'depth_map_path'):
                path = Path(info.get(key) or '')
                size = path.stat().st_size if path.is_file() else -1
                digest.update(f'{key}:{path.name}:{size};'.encode())
    return digest.hexdigest()[:16]


def _code_hash() -> str:
    """Hash of the code that decides the features of a stitch."""
    root = Path(version.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for folder in _CODE for path in (root / folder).rglob('*.py')):
        digest.update(path.relative_to(root).as_posix().encode() + b'\0' + path.read_bytes())
    return digest.hexdigest()[:8]
