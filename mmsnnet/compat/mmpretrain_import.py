"""Lets mmpretrain be imported beside transformers 5.

mmpretrain 1.2 imports its multimodal models where pycocotools and transformers 4.28 or newer are
installed. They were written for transformers 4; under 5 names that they import are gone, and
``import mmpretrain.models`` ends in "NoneType takes no arguments". mmpretrain has placeholders for
the case that multimodal models are not possible, which say so when one is built: it is told so.
"""
from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from types import ModuleType

from mmsnnet.compat.fork_packages import installed_version

DEPENDENCIES = 'mmpretrain.utils.dependency'
"""The module of mmpretrain that decides, once, when it is first imported."""


class _WithoutMultimodal(SourceFileLoader):
    """Loads that module and says that multimodal models are not possible."""

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module, then sets its answer."""
        super().exec_module(module)
        module.WITH_MULTIMODAL = False


class MultimodalFinder:
    """Stands before the ordinary search, for one module of mmpretrain; imports nothing itself."""

    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        """Returns the spec of mmpretrain's module beside transformers 5, and None otherwise."""
        if fullname != DEPENDENCIES or not _transformers_is_too_new():
            return None
        found = PathFinder.find_spec(fullname, path)
        if found is None or found.origin is None:
            return None
        loader = _WithoutMultimodal(fullname, found.origin)
        return spec_from_file_location(fullname, found.origin, loader=loader)


def _transformers_is_too_new() -> bool:
    """Whether the installed transformers is of version 5 or newer."""
    version = installed_version('transformers')
    return version is not None and int(version.split('.')[0]) >= 5


def ease_mmpretrain() -> None:
    """Puts the finder before the ordinary search, once."""
    if MultimodalFinder not in sys.meta_path:
        sys.meta_path.insert(0, MultimodalFinder)
