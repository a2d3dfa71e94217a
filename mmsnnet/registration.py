"""Registers the package's classes in MMEngine: when the first class is looked up there.

``import mmsnnet.runtime`` runs the package's ``__init__`` too, and must need neither torch nor
MMEngine. So where MMEngine has not been imported yet, nothing happens but that its import is
watched for. Once it is there, files and modules of OpenMMLab are made loadable, which is cheap;
hooks, loops, necks and transforms are imported by the first lookup in any of MMEngine's registries,
so that ``from mmsnnet import StitchedViT`` in plain PyTorch goes without them.
"""

from __future__ import annotations

import sys
import threading
import warnings
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mmsnnet.import_watch import ImportWatch

PACKAGE = __name__.partition('.')[0]
FRAMEWORK = 'mmengine'
#: These serve without what the package lacks: MMEngine others, the second to tell what is lacking.
SERVING = (FRAMEWORK, f'{PACKAGE}.compat')
#: What everything that registers needs.
NEEDED = ('torch', 'timm')
#: What needs neither torch nor MMEngine; everything else of the package registers.
LIGHT = frozenset(
    {'import_watch', 'recipes', 'registration', 'results', 'runtime', 'stitching', 'version'}
)
#: Importing these registers what is in them.
REGISTERED = ('datasets', 'engine', 'models', 'models.necks')


def register() -> None:
    """Import all that registers itself; calling it again is free.

    Raises:
        ImportError: If torch, timm or MMEngine is missing.
    """
    import_module(f'{PACKAGE}.compat').install()
    for name in REGISTERED:
        import_module(f'{PACKAGE}.{name}')
    network = import_module(f'{PACKAGE}.models').StitchNetwork
    import_module(f'{FRAMEWORK}.model').BaseModule.register(network)


def register_in_time() -> None:
    """Prepare registering now if MMEngine is there, else when it has been imported.

    Raises:
        ImportError: If MMEngine is there, but torch or timm is missing.
    """
    if FRAMEWORK in sys.modules:
        _prepare()
    elif not any(isinstance(finder, RegisteringWatch) for finder in sys.meta_path):
        RegisteringWatch(_needs_framework, _after_import).start()


class RegisteringWatch(ImportWatch):
    """Watches for MMEngine, and for modules of the package that need it."""


def _needs_framework(fullname: str) -> bool:
    """Whether a module is MMEngine itself, or a room of the package that imports it."""
    package, _, rest = fullname.partition('.')
    ours = package == PACKAGE and rest and '.' not in rest and rest not in LIGHT
    return fullname == FRAMEWORK or bool(ours)


def _after_import(fullname: str) -> bool:
    """Prepare registering after an import; whether that was possible.

    MMEngine alone is of use to others, and ``python -m mmsnnet.compat status`` names what does not
    fit, so that what the package lacks is no error there.
    """
    try:
        _prepare()
    except ImportError as error:
        if fullname not in SERVING:
            raise
        _warn(error)
        return False
    return True


def _prepare() -> None:
    """Make what OpenMMLab reads loadable, and register at the first lookup."""
    for name in NEEDED:
        if name not in sys.modules and find_spec(name) is None:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
    # Before anything imports mmseg or mmdet: both import mmcv.ops.
    import_module(f'{PACKAGE}.compat').install()
    _register_at_first_lookup()


def _register_at_first_lookup() -> None:
    """Have the first lookup in any registry of MMEngine register the package before it looks.

    A host's registry falls back to the root's table without asking the root itself, so that it is
    the method of all of them that is replaced; the first call puts it back.
    """
    registry_class = import_module(f'{FRAMEWORK}.registry').Registry
    original = registry_class.get
    if getattr(original, 'registers', None) == PACKAGE or _all_imported():
        return
    lock, begun = threading.RLock(), threading.Event()

    @wraps(original)
    def get(registry: Any, key: str) -> Any:
        with lock:  # other threads wait; lookups by what is being imported pass
            if not begun.is_set():
                begun.set()
                try:
                    register()
                except ImportError as error:
                    _warn(error)
                finally:
                    registry_class.get = original
        return original(registry, key)

    get.registers = PACKAGE
    registry_class.get = get


def _all_imported() -> bool:
    return all(f'{PACKAGE}.{name}' in sys.modules for name in REGISTERED)


def _warn(error: ImportError) -> None:
    warnings.warn(f'{PACKAGE} registers nothing in {FRAMEWORK}: {error}', stacklevel=3)
