"""Finds the configs that the package installs."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
#: A wheel carries the configs in .mim; a checkout has them beside the package.
FOLDERS = (PACKAGE / '.mim' / 'configs', PACKAGE.parent / 'configs')


def config_path(name: str) -> str:
    """Absolute path of an installed config, for ``_base_`` of a config of one's own.

    Args:
        name: Path below the package's ``configs`` folder, such as ``'upernet_snnetv2_ade20k.py'``;
            the ending may be left out.

    Raises:
        FileNotFoundError: If there is no such config; those that exist are named.
    """
    path = _installed(name)
    if path is None:
        raise FileNotFoundError(f'mmsnnet has no config {str(name)!r}; {_suggestion(str(name))}')
    return str(path)


def find_config(config: str | os.PathLike[str]) -> str:
    """Path of a config: a file, or else an installed recipe by its bare name.

    Args:
        config: A file, or a name as :func:`config_path` takes it. A file goes first.

    Raises:
        FileNotFoundError: If it is neither.
    """
    if Path(config).is_file():
        return str(config)
    path = None if Path(config).is_absolute() else _installed(config)
    if path is None:
        raise FileNotFoundError(
            f'There is no config {config}, neither a file nor a recipe of mmsnnet; '
            f'{_suggestion(Path(config).name)}'
        )
    return str(path)


def _installed(name: str | os.PathLike[str]) -> Path | None:
    """Path of an installed config, None if there is none; the name must stay below its folder."""
    name = str(name)
    for folder in FOLDERS:
        for path in (folder / name, folder / f'{name}.py'):
            if path.is_file() and folder.resolve() in path.resolve().parents:
                return path.resolve()
    return None


def _suggestion(name: str) -> str:
    """What to write instead: the recipes whose names are close, or all of them."""
    known = sorted({path.name for folder in FOLDERS for path in folder.glob('*.py')})
    close = difflib.get_close_matches(f'{name.removesuffix(".py")}.py', known, n=3, cutoff=0.8)
    if close:
        return f'do you mean {" or ".join(close)}?'
    return f'there are {", ".join(known) or "none installed"}.'
