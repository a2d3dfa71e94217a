"""Makes ``import mmcv.ops`` work in this process where mmcv was installed without compiled ops."""
from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

EXT_MODULE = 'mmcv._ext'
STAND_IN = Path(__file__).with_name('mmcv_ext.py')


class StandInFinder:
    """Last resort of the import system for ``mmcv._ext``.

    It stands at the end of ``sys.meta_path``, so Python asks it only after the ordinary search
    failed: a compiled module (or a file put there by ``install-ops``) always wins, and nothing
    is imported before ``mmcv.ops`` really is.
    """

    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        """Returns the stand-in's spec for ``mmcv._ext`` and None for every other module."""
        if fullname != EXT_MODULE:
            return None
        return spec_from_file_location(EXT_MODULE, STAND_IN)


def install_finder() -> None:
    """Appends the finder to ``sys.meta_path`` once."""
    if StandInFinder not in sys.meta_path:
        sys.meta_path.append(StandInFinder)
