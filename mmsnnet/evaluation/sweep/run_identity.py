"""What the results of a sweep depend on, as a fingerprint."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch.utils.data import Dataset

from mmsnnet import version
from mmsnnet.results.fingerprint import fingerprint_file, fingerprint_text

from .config_identity import ConfigReader, class_name, without_places

#: Parts of a config that change the results of a test.
_RELEVANT = ('model', 'test_dataloader', 'test_evaluator', 'default_scope')
#: Hooks that do nothing in a test.
_TRAINING_HOOKS = ('StitchInitHook', 'StitchSamplingHook')
#: Folders of the package whose code decides what a stitch predicts, costs and scores.
_CODE = (
    'stitching',
    'models',
    'compat',
    'datasets',
    'engine',
    'evaluation/cost',
    'evaluation/sweep',
)
#: Files and folders in these that serve training alone, or how a sweep is shown.
_NO_CODE = (
    'stitching/sampler.py',
    'models/stitch_fit.py',
    'models/least_squares.py',
    'models/losses',
    'engine/layer_decay.py',
    'engine/one_cycle.py',
    'engine/accumulated_gradients.py',
    'engine/training_checks.py',
    'engine/hooks/exact_resume_hook.py',
    'engine/hooks/stitch_init_hook.py',
    'engine/hooks/stitch_sampling_hook.py',
    'evaluation/sweep/progress.py',
)
#: Packages whose code decides results, by the names of their distributions; opencv scales images.
_PACKAGES = ('mmengine', 'mmcv', 'mmcv-lite', 'onedl-mmengine', 'onedl-mmcv', 'timm', 'torch',
             'opencv-python', 'opencv-python-headless')  # fmt: skip
#: Distributions of hosts by module, which decide the results of configs that use them.
_HOSTS = {
    'mmseg': ('mmsegmentation', 'onedl-mmsegmentation'),
    'mmdet': ('mmdet', 'onedl-mmdetection', 'torchvision'),
    'mmpretrain': ('mmpretrain', 'onedl-mmpretrain'),
}
#: Top-level modules that are known by their versions.
_VERSIONED = {'mmengine', 'mmcv', 'timm', 'torch', 'torchvision', 'mmsnnet', 'builtins', *_HOSTS}


def run_fingerprint(cfg: Config, checkpoint: str, dataset: Dataset) -> dict[str, Any]:
    """Fingerprint of a sweep.

    Args:
        cfg: Config that the runner is built from.
        checkpoint: File of the weights.
        dataset: Data set of the test, built.

    Returns:
        Hashes of config, weights, data and code, with the readable facts beside them.
    """
    reader = ConfigReader(cfg.get('default_scope'))
    hooks = [
        hook
        for hook in _mappings(cfg.get('custom_hooks'))
        if class_name(reader.type_name(hook.get('type'))) not in _TRAINING_HOOKS
    ]
    reader.types.clear()  # of hooks that decide nothing
    relevant = _relevant(cfg, dataset, hooks, reader)
    return {
        'config': fingerprint_text(json.dumps(relevant, sort_keys=True)),
        'checkpoint': fingerprint_file(checkpoint),
        'data': {'images': len(dataset), 'files': _data_hash(dataset, cfg, hooks)},
        'code': _code(cfg.get('default_scope'), reader.types),
    }


def _relevant(
    cfg: Config, dataset: Dataset, hooks: list[Any], reader: ConfigReader
) -> dict[str, Any]:
    """What a config says of results."""
    parts = {key: cfg.get(key) for key in _RELEVANT}
    if hasattr(dataset, 'full_init') and parts['test_dataloader']:
        loader = dict(parts['test_dataloader'].items())
        parts['test_dataloader'] = {**loader, 'dataset': without_places(loader.get('dataset'))}
    if parts['test_evaluator']:
        parts['test_evaluator'] = without_places(parts['test_evaluator'])
    relevant = {key: reader.read(value) for key, value in parts.items()}
    relevant['fp16'] = bool((cfg.get('test_cfg') or {}).get('fp16', False))
    if hooks:
        relevant['custom_hooks'] = reader.read(hooks)
    return relevant


def _code(scope: str | None, types: Iterable[Any]) -> dict[str, str]:
    """Versions and hashes of the code that decides results."""
    modules = {kind.__module__ for kind in types}
    used = {scope, *(module.split('.')[0] for module in modules)}
    names = [*_PACKAGES, *(name for host in _HOSTS if host in used for name in _HOSTS[host])]
    code = {'mmsnnet': f'{version.__version__}+{_code_hash()}'}
    code.update({name: found for name in names if (found := _version(name)) is not None})
    own = sorted(module for module in modules if module.split('.')[0] not in _VERSIONED)
    if own:  # a head or a transform of the user's
        code['custom'] = _hash_files(_source_files(own))
    return code


def _source_files(modules: Iterable[str]) -> Iterator[tuple[str, Path]]:
    for module in modules:
        path = getattr(sys.modules.get(module), '__file__', None)
        if path:
            yield module, Path(path)


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
    files = sorted(path for folder in _CODE for path in (root / folder).rglob('*.py'))
    named = ((path.relative_to(root).as_posix(), path) for path in files)
    return _hash_files(
        (name, path)
        for name, path in named
        if not any(name == left or name.startswith(f'{left}/') for left in _NO_CODE)
    )


def _hash_files(files: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(name.encode() + b'\0' + path.read_bytes())
    return digest.hexdigest()[:8]
