"""Finds the configs that the package installs."""

from __future__ import annotations

from pathlib import Path


def config_path(name: str) -> str:
    """Absolute path of an installed config, for ``_base_`` of a config of one's own.

    Args:
        name: Path below the package's ``configs`` folder, such as
            ``'upernet_snnetv2_ade20k.py'``.

    Raises:
        FileNotFoundError: If there is no such config; those that exist are told.
    """
    package = Path(__file__).resolve().parent
    # A wheel carries the configs in .mim; a checkout has them beside the package.
    folders = (package / '.mim' / 'configs', package.parent / 'configs')
    for folder in folders:
        if (folder / name).is_file():
            return str((folder / name).resolve())
    known = sorted({path.name for folder in folders for path in folder.glob('*.py')})
    raise FileNotFoundError(
        f'mmsnnet has no config {name!r}; there are {", ".join(known) or "none installed"}.'
    )
