"""Registers the package's classes in MMEngine, as soon as there is an MMEngine to register in.

``import mmsnnet.runtime`` runs the package's ``__init__`` too, and must need neither torch nor
MMEngine. So where MMEngine has not been imported yet, nothing is registered but a finder, which
waits until it is, or until a module of ours is that needs it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = __name__.partition('.')[0]
FRAMEWORK = 'mmengine'
#: What needs neither torch nor MMEngine; everything else of the package registers.
LIGHT = frozenset({'recipes', 'registration', 'results', 'runtime', 'stitching', 'version'})
#: Importing these registers what is in them.
REGISTERED = ('datasets', 'engine', 'models')


def register() -> None:
    """Import all that registers itself; calling it again is free.

    Raises:
        ImportError: If torch, timm or MMEngine is missing.
    """
    # Before anything imports mmseg or mmdet: both import mmcv.ops.
    import_module(f'{PACKAGE}.compat').install()
    for name in REGISTERED:
        import_module(f'{PACKAGE}.{name}')


def register_in_time() -> None:
    """Register now if MMEngine is there, else when it, or what needs it, has been imported."""
    if FRAMEWORK in sys.modules:
        register()
    elif not any(isinstance(finder, RegisteringFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, RegisteringFinder())


class RegisteringFinder:
    """Registers after the import of MMEngine or of a module of the package that needs it.

    One import may contain others of these: ``import mmsnnet.models`` imports MMEngine midway, when
    nothing of the package could be imported from in between. Registering waits for the outermost.
    """

    def __init__(self) -> None:
        self._running = 0

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders give for such a module, and None for every other."""
        package, _, rest = fullname.partition('.')
        ours = package == PACKAGE and rest and '.' not in rest and rest not in LIGHT
        if fullname != FRAMEWORK and not ours:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader, self)
        return spec

    def begin(self) -> None:
        """Take notice of an import that begins."""
        self._running += 1

    def end(self, fullname: str, succeeded: bool) -> None:
        """Register, if an import that has ended was the outermost.

        MMEngine alone is of use to others, so that what the package lacks is no error there.

        Args:
            fullname: What was imported.
            succeeded: Whether its import raised nothing.
        """
        if self._running > 1 or not succeeded or self not in sys.meta_path:
            self._running -= 1
            return
        try:
            register()  # imports watched modules itself, which are not the outermost
            sys.meta_path.remove(self)
        except ImportError as error:
            if fullname != FRAMEWORK:
                raise
            warnings.warn(f'{PACKAGE} registers nothing in {FRAMEWORK}: {error}', stacklevel=2)
        finally:
            self._running -= 1


class _RegisteringLoader:
    """Another loader, of whose work the finder is told."""

    def __init__(self, loader: Any, finder: RegisteringFinder) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """What the other loader makes."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Let the other loader run the module, which is its own from then on."""
        module.__loader__ = module.__spec__.loader = self._loader
        self._finder.begin()
        succeeded = False
        try:
            self._loader.exec_module(module)
            succeeded = True
        finally:
            self._finder.end(module.__name__, succeeded)
