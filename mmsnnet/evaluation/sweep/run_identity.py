"""What the results of a sweep depend on, as a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch.utils.data import Dataset

from mmsnnet import version
from mmsnnet.results.fingerprint import fingerprint_file, fingerprint_text

#: Parts of a config that change the results of a test.
_RELEVANT = ('model', 'test_dataloader', 'test_evaluator', 'default_scope')
#: Keys that change how fast data are read, never what is read.
_IRRELEVANT = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor')
#: What a StitchedViT is told of where its first weights come from, and of its first stitch. A sweep
#: loads all weights from its checkpoint and scores stitches by name.
_AT_FIRST = dict(
    backbone=('stitch', 'init_cfg'), anchor=('checkpoint', 'checkpoint_prefix', 'pretrained')
)
#: Hooks that do nothing in a test.
_TRAINING_HOOKS = ('StitchInitHook', 'StitchSamplingHook')
#: Folders of the package whose code decides what a stitch predicts and how it is scored.
_CODE = ('stitching', 'models', 'compat', 'datasets', 'engine')
#: Packages whose code does.
_PACKAGES = ('mmengine', 'mmcv', 'mmcv-lite', 'mmsegmentation', 'mmdet', 'timm', 'torch')


def run_fingerprint(cfg: Config, checkpoint: str, dataset: Dataset) -> dict[str, Any]:
    """Fingerprint of a sweep.

    Args:
        cfg: Config that the runner is built from.
        checkpoint: File of the weights.
        dataset: Data set of the test, built.

    Returns:
        Hashes of config, weights, data and code, with the readable facts beside them.
    """
    relevant = {key: _decisive(cfg.get(key)) for key in _RELEVANT}
    relevant['fp16'] = bool((cfg.get('test_cfg') or {}).get('fp16', False))
    hooks = [
        hook
        for hook in _mappings(cfg.get('custom_hooks'))
        if hook.get('type') not in _TRAINING_HOOKS
    ]
    if hooks:
        relevant['custom_hooks'] = hooks
    return {
        'config': fingerprint_text(json.dumps(relevant, sort_keys=True, default=repr)),
        'checkpoint': fingerprint_file(checkpoint),
        'data': {'images': len(dataset), 'files': _data_hash(dataset, cfg, hooks)},
        'code': {
            'mmsnnet': f'{version.__version__}+{_code_hash()}',
            **{name: found for name in _PACKAGES if (found := _version(name)) is not None},
        },
    }


def _decisive(node: Any) -> Any:
    """A part of a config without what decides no result."""
    if isinstance(node, (list, tuple)):
        return [_decisive(child) for child in node]
    if not isinstance(node, Mapping):
        return node
    dropped = set(_IRRELEVANT)
    if node.get('type') in ('StitchedViT', 'StitchedViTBackbone'):
        dropped.update(_AT_FIRST['backbone'])
        node = {**node, 'anchors': [_architecture(one) for one in node.get('anchors') or ()]}
    return {key: _decisive(child) for key, child in node.items() if key not in dropped}


def _architecture(anchor: Any) -> Any:
    if not isinstance(anchor, Mapping):
        return anchor
    return {key: value for key, value in anchor.items() if key not in _AT_FIRST['anchor']}


def _data_hash(dataset: Dataset, cfg: Config, hooks: list[Any]) -> str:
    """Hash of the files that a test reads, as far as data set and config tell them."""
    digest = hashlib.sha256(type(dataset).__name__.encode())
    for key, path in _files(dataset, cfg, hooks):
        content = fingerprint_file(path) if path.is_file() else ''
        digest.update(f'{key}:{path.name}:{content};'.encode())
    return digest.hexdigest()[:16]


def _files(dataset: Dataset, cfg: Config, hooks: list[Any]) -> Iterator[tuple[str, Path]]:
    """Files with what they hold: annotations, head statistics, images, label and depth maps."""
    for one in _mappings(cfg.get('test_evaluator')):
        yield 'ann_file', Path(one.get('ann_file') or '')
    for hook in hooks:
        if hook.get('statistics'):
            yield 'statistics', Path(hook['statistics'])
    for part in [dataset, *getattr(dataset, 'datasets', ())]:
        yield 'ann_file', Path(getattr(part, 'ann_file', None) or '')
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            for key in ('img_path', 'seg_map_path', 'depth_map_path'):
                yield key, Path(info.get(key) or '')


def _mappings(node: Any) -> list[Mapping]:
    """Configs among what is one of them, a list of them and built objects, or nothing."""
    nodes = [node] if isinstance(node, Mapping) else node or ()
    return [one for one in nodes if isinstance(one, Mapping)]


def _version(package: str) -> str | None:
    try:
        return installed(package)
    except PackageNotFoundError:
        return None


def _code_hash() -> str:
    """Hash of the code of the package that decides results."""
    root = Path(version.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for folder in _CODE for path in (root / folder).rglob('*.py')):
        digest.update(path.relative_to(root).as_posix().encode() + b'\0' + path.read_bytes())
    return digest.hexdigest()[:8]
