"""The names under which the maintained forks of the OpenMMLab packages are installed.

mmengine finds ``_base_ = 'mmseg::...'`` through a table from modules to distributions. The fork
kept the table of the original, ``mmseg -> mmsegmentation``, but installs the module by a
distribution of another name, ``onedl-mmsegmentation``, and so says that mmseg is not installed.
"""
from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from mmengine.config.utils import MODULE2PACKAGE

FORK_PREFIX = 'onedl-'


def installed_version(distribution: str) -> str | None:
    """Returns the version of an installed distribution, or None where it is not installed.

    Args:
        distribution: the name that pip knows it by, such as 'mmsegmentation'.
    """
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def installed_name(distribution: str) -> str | None:
    """Returns the name under which a package of OpenMMLab or its fork is installed, or None.

    Args:
        distribution: the original's name, such as 'mmsegmentation'; it wins if both are there.
    """
    names = (distribution, FORK_PREFIX + distribution)
    return next((name for name in names if installed_version(name) is not None), None)


def find_fork_configs() -> list[str]:
    """Names installed forks in mmengine's table, so that configs find ``mmseg::`` and the like.

    Returns:
        The modules whose distribution was changed; none where mmengine is the original.
    """
    if installed_name('mmengine') != FORK_PREFIX + 'mmengine':
        return []
    found = {module: installed_name(package) for module, package in MODULE2PACKAGE.items()}
    changed = {module: name for module, name in found.items()
               if name is not None and name != MODULE2PACKAGE[module]}
    MODULE2PACKAGE.update(changed)
    return sorted(changed)
