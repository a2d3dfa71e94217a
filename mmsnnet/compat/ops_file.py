"""The explicit, reversible way to give mmcv its ops: a small ``_ext.py`` in mmcv's own folder.

Programs that import ``mmcv.ops`` before they read any config (mmdet's ``tools/test.py`` does) meet
the in-process stand-in too late. The file is found by Python itself. It is a source file, which
Python looks for after extension modules: a compiled ``_ext*.so`` installed later wins.
"""
from __future__ import annotations

import os
from importlib.util import cache_from_source, find_spec
from pathlib import Path

MARKER = '# mmsnnet: nms and roi_align on torchvision kernels'
# The file runs while mmcv.ops is half imported. Importing mmsnnet there would import mmseg or
# mmdet, which import mmcv.ops: so the package is located but not executed.
EXT_SOURCE = f'''{MARKER} (python -m mmsnnet.compat install-ops | remove-ops)
from importlib import machinery, util
_package = util.find_spec('mmsnnet')
_folders = [f'{{p}}/compat' for p in _package.submodule_search_locations] if _package else []
_spec = machinery.PathFinder.find_spec('mmcv_ext', _folders)
if _spec is None:
    raise ImportError(f'{{__file__}} was written by mmsnnet, which this Python does not find: '
                      'delete this file, or install mmsnnet')
exec(_spec.loader.get_code('mmcv_ext'))
'''


class OpsFileError(RuntimeError):
    """A reason, in one line, why the file was neither written nor removed."""


def mmcv_folder() -> Path:
    """Returns the folder of the installed mmcv without importing it.

    Raises:
        OpsFileError: if mmcv is not installed.
    """
    spec = find_spec('mmcv')
    if spec is None or spec.origin is None:
        raise OpsFileError('mmcv is not installed; install mmcv or mmcv-lite first, for example '
                           'pip install "mmcv-lite>=2.0.0rc4,<2.2.0"')
    return Path(spec.origin).parent


def compiled_ext(folder: Path) -> Path | None:
    """Returns mmcv's compiled ops module, for whatever Python it was built, or None.

    Args:
        folder: mmcv's package folder.
    """
    found = [path for end in ('.so', '.pyd') for path in sorted(folder.glob(f'_ext*{end}'))]
    return found[0] if found else None


def is_ours(path: Path) -> bool:
    """Tells whether a file was written by `install_ops`.

    Args:
        path: the file; it must exist.
    """
    return path.read_text(encoding='utf-8', errors='replace').startswith(MARKER)


def install_ops() -> str:
    """Writes ``_ext.py`` into the folder of an mmcv without ops; does nothing when it is there.

    Returns:
        What was done, in one line.

    Raises:
        OpsFileError: if mmcv is not installed, has compiled ops or a foreign ``_ext.py``, or if
            its folder cannot be written.
    """
    folder = mmcv_folder()
    compiled, path = compiled_ext(folder), folder / '_ext.py'
    if compiled is not None:
        raise OpsFileError(f'mmcv has compiled ops ({compiled}), nothing to install')
    if path.exists():
        if not is_ours(path):
            raise OpsFileError(f'{path} exists and was not written by mmsnnet; move it away first')
        if path.read_text(encoding='utf-8') == EXT_SOURCE:
            return f'already installed: {path}'
    temporary = folder / f'_ext.py.{os.getpid()}'
    try:
        temporary.write_text(EXT_SOURCE, encoding='utf-8')
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OpsFileError(f'cannot write {path}: {error.strerror}') from error
    return f'installed: {path}'


def remove_ops() -> str:
    """Deletes the ``_ext.py`` that `install_ops` wrote; does nothing when there is none.

    Returns:
        What was done, in one line.

    Raises:
        OpsFileError: if mmcv is not installed, or the file is foreign or cannot be deleted.
    """
    path = mmcv_folder() / '_ext.py'
    if not path.exists():
        return f'nothing to remove: {path} does not exist'
    if not is_ours(path):
        raise OpsFileError(f'{path} was not written by mmsnnet and is left alone')
    try:
        Path(cache_from_source(str(path))).unlink(missing_ok=True)
        path.unlink()
    except OSError as error:
        raise OpsFileError(f'cannot delete {path}: {error.strerror}') from error
    return f'removed: {path}'


def status() -> str:
    """Describes in one line where mmcv's ops come from.

    Raises:
        OpsFileError: if mmcv is not installed.
    """
    folder = mmcv_folder()
    compiled, path = compiled_ext(folder), folder / '_ext.py'
    if compiled is not None:
        return f'compiled: {compiled}'
    if path.exists():
        return f'stand-in file: {path}' if is_ours(path) else f'foreign file: {path}'
    return f'in-process stand-in only, once mmsnnet is imported ({folder} has no ops of its own)'
