"""Acts once a module has been imported, without importing it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class ImportWatch:
    """A finder that acts after the import of a module that it watches, then is gone.

    One import may contain others of these: ``import mmsnnet.models`` imports MMEngine midway, when
    nothing of the package could be imported from in between. The action waits for the outermost.

    Args:
        watches: Whether the import of a module, by its full name, is one to act after. No two
            watches may watch the same module.
        action: Called with the name of the outermost module. What it returns says whether it is
            done; if not, or if it raises, the watch goes on.
    """

    def __init__(self, watches: Callable[[str], bool], action: Callable[[str], bool]) -> None:
        self._watches = watches
        self._action = action
        self._running = 0

    def start(self) -> None:
        """Watch the imports from now on."""
        sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders give for a watched module, and None for every other."""
        if not self._watches(fullname):
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _WatchedLoader(spec.loader, self)
        return spec

    def begin(self) -> None:
        """Take notice of an import that begins."""
        self._running += 1

    def end(self, fullname: str, succeeded: bool) -> None:
        """Act, if an import that has ended was the outermost.

        Args:
            fullname: What was imported.
            succeeded: Whether its import raised nothing.
        """
        outermost = self._running == 1 and succeeded and self in sys.meta_path
        try:
            # The action may import watched modules itself, which are not the outermost.
            if outermost and self._action(fullname):
                sys.meta_path.remove(self)
        finally:
            self._running -= 1


class _WatchedLoader:
    """Another loader, of whose work the watch is told."""

    def __init__(self, loader: Any, watch: ImportWatch) -> None:
        self._loader = loader
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """What the other loader makes."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Let the other loader run the module, which is its own from then on."""
        module.__loader__ = module.__spec__.loader = self._loader
        self._watch.begin()
        succeeded = False
        try:
            self._loader.exec_module(module)
            succeeded = True
        finally:
            self._watch.end(module.__name__, succeeded)
