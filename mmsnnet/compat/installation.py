"""What of an environment stands in the way of mmseg, mmdet and mim, and what to install instead."""
from __future__ import annotations

import re
from importlib import metadata
from importlib.util import find_spec

FLOORS = {'timm': '1.0.26', 'torch': '2.1'}
MMCV_BELOW = '2.2'
MMCV = ('mmcv', 'mmcv-lite', 'onedl-mmcv')
FORKS = {'onedl-mmengine': 'mmengine', 'onedl-mmsegmentation': 'mmsegmentation',
         'onedl-mmdetection': 'mmdet', 'onedl-mim': 'openmim'}
IMPORTS = {'mmsegmentation': ('ftfy', 'regex'), 'onedl-mmsegmentation': ('ftfy', 'regex'),
           'onedl-mmdetection': ('imgaug', 'skimage')}
DISTRIBUTIONS = {'skimage': 'scikit-image'}


def version_of(package: str) -> str | None:
    """Returns the version of an installed distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def numbers_of(version: str) -> tuple[int, ...]:
    """Returns the release of a version, such as (2, 14, 1) of 2.14.1+cu130 and of 2.14.1rc1."""
    found = re.match(r'\d+(\.\d+)*', version)
    return tuple(int(number) for number in found.group().split('.')) if found else ()


def has_module(name: str) -> bool:
    """Tells whether a module can be found, without importing it."""
    return find_spec(name) is not None


def obstacles() -> list[str]:
    """Returns a line for everything that is missing or does not fit, with the command that cures.

    Of what is not needed by all, only packages that are installed are looked at: without mmseg
    nobody misses ftfy.
    """
    lines = []
    for package, floor in FLOORS.items():
        version = version_of(package)
        if version is None:
            lines.append(f'{package} is not installed: pip install "{package}>={floor}"')
        elif numbers_of(version) < numbers_of(floor):
            lines.append(f'{package} {version} is too old: pip install "{package}>={floor}"')
    lines += _mmcv_obstacles()
    for package, names in IMPORTS.items():
        if version_of(package):
            lines += [f'{package} imports {name}, which is not installed: '
                      f'pip install {DISTRIBUTIONS.get(name, name)}'
                      for name in names if not has_module(name)]
    for fork, original in FORKS.items():
        if version_of(fork) and version_of(original):
            lines.append(f'{original} and its fork {fork} are installed over each other: pip '
                         f'uninstall {original} {fork}, then install one')
    if version_of('openmim') and not has_module('pkg_resources'):
        lines.append(f'mim imports pkg_resources, which setuptools {version_of("setuptools")} does '
                     'not have: pip install "setuptools<81"')
    return lines


def _mmcv_obstacles() -> list[str]:
    """Returns what does not fit of mmcv, which comes under several names."""
    installed = {name: version for name in MMCV if (version := version_of(name))}
    lines = []
    if len(installed) > 1:
        lines.append(f'{" and ".join(installed)} are installed over each other: pip uninstall '
                     f'{" ".join(installed)}, then install one')
    hosts = [name for name in ('mmsegmentation', 'mmdet') if version_of(name)]
    for name, version in installed.items():
        if name != 'onedl-mmcv' and hosts and numbers_of(version) >= numbers_of(MMCV_BELOW):
            lines.append(f'{name} {version} is refused by {" and ".join(hosts)}: '
                         f'pip install "{name}>=2.0.0rc4,<{MMCV_BELOW}"')
    if 'mmcv-lite' in installed and not has_module('torchvision'):
        lines.append('mmcv-lite has no operators, and torchvision, whose NMS and RoIAlign stand '
                     'in, is not installed: pip install torchvision')
    return lines
