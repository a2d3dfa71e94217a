"""What a config says of the results of a test, however it is written.

A text config names types by strings, with or without a scope, under any alias; a pure-Python config
gives the classes themselves, or lazy objects that import them. Here all become the full name of the
class, so that the same test reads the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import PurePath
from typing import Any

from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS

#: Keys that change how fast data are read, or where files are put; never what is read.
_IRRELEVANT = (
    'num_workers',
    'persistent_workers',
    'pin_memory',
    'prefetch_factor',
    'outfile_prefix',
    'output_dir',
)
#: What a StitchedViT is given of where its first weights come from, and of its first stitch. A
#: sweep loads all weights from its checkpoint and scores stitches by name.
_AT_FIRST = dict(
    backbone=('stitch', 'init_cfg'), anchor=('checkpoint', 'checkpoint_prefix', 'pretrained')
)
#: Where data lie; what they are is told by the content of their files.
_PLACES = ('data_root', 'ann_file')
_ADDRESS = re.compile(r' at 0x[0-9a-fA-F]+')


class ConfigReader:
    """Reads the parts of configs that decide results, as plain values.

    Args:
        scope: Default scope of the config, in which types without a scope are looked up.
        ignored: Further keys that decide nothing.

    Attributes:
        types: Classes and functions that were met.
    """

    def __init__(self, scope: str | None, ignored: Iterable[str] = ()) -> None:
        self._scope = scope
        self._ignored = frozenset((*_IRRELEVANT, *ignored))
        self.types: set[Any] = set()

    def read(self, node: Any) -> Any:
        """A part of a config as dicts, lists, texts and numbers, without what decides nothing."""
        if type(node).__name__ in ('LazyObject', 'LazyAttr'):
            node = node.build()
        if isinstance(node, Mapping):
            return self._read_mapping(node)
        if isinstance(node, (list, tuple)):
            return [self.read(child) for child in node]
        if isinstance(node, (set, frozenset)):
            return sorted(map(str, map(self.read, node)))
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        if isinstance(node, PurePath):
            return str(node)
        if callable(node) and hasattr(node, '__qualname__'):
            return self._name(node)
        return _ADDRESS.sub('', repr(node))

    def _read_mapping(self, node: Mapping[Any, Any]) -> dict[str, Any]:
        children = dict(node.items())  # by items(), which builds what is lazy
        ignored = self._ignored
        if 'type' in children:
            children['type'] = self.type_name(children['type'])
            if class_name(children['type']) == 'StitchedViT':
                ignored = ignored.union(_AT_FIRST['backbone'])
                anchors = children.get('anchors') or ()
                children['anchors'] = [_architecture(anchor) for anchor in anchors]
        return {str(key): self.read(value) for key, value in children.items() if key not in ignored}

    def type_name(self, kind: Any) -> str:
        """Full name of a type, given as a class or by its name in a registry."""
        if not isinstance(kind, str):
            return self.read(kind)
        for registry in (DATASETS, TRANSFORMS, METRICS, MODELS, HOOKS):
            # Whatever a lookup raises means that it is not there; building told of it already.
            with suppress(Exception), registry.switch_scope_and_registry(self._scope) as found:
                entry = found.get(kind)
                if entry is not None:
                    return self._name(entry)
        return kind

    def _name(self, entry: Any) -> str:
        self.types.add(entry)
        return f'{entry.__module__}.{entry.__qualname__}'


def class_name(type_name: str) -> str:
    """Name of a class without its module or scope."""
    return type_name.rsplit('.', 1)[-1]


def without_places(dataset: Any) -> Any:
    """Config of a data set without where its files lie, for one whose files are hashed."""
    if isinstance(dataset, (list, tuple)):
        return [without_places(child) for child in dataset]
    if not isinstance(dataset, Mapping):
        return dataset
    return {
        key: without_places(value) if key in ('dataset', 'datasets') else value
        for key, value in dataset.items()
        if key not in _PLACES
    }


def _architecture(anchor: Any) -> Any:
    if not isinstance(anchor, Mapping):
        return anchor
    return {key: value for key, value in anchor.items() if key not in _AT_FIRST['anchor']}
