"""The rules that the package's source keeps, read from the source itself."""
from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'mmsnnet'

GROUND = {'compat', 'registry', 'version'}
"""What every room but stitching may use; these use nothing of ours but the watch on imports."""

MAY_IMPORT = {
    'stitching': set(),
    'results': {'stitching', 'version'},
    'models': {'results', 'stitching'} | GROUND,
    'engine': {'models', 'results', 'stitching'} | GROUND,
    'evaluation': {'models', 'results', 'stitching'} | GROUND,
    'runtime': {'results'},
    'deploy': {'models', 'results', 'runtime', 'stitching'} | GROUND,
    'apis': {'evaluation', 'models', 'recipes', 'results', 'stitching'} | GROUND,
    'convert': {'models', 'results', 'stitching'} | GROUND,
    'datasets': GROUND,
    'integrations': {'models', 'stitching'} | GROUND,
    'recipes': set(),
    'registration': {'import_watch'},
    'import_watch': set(),
    **{ground: set() for ground in GROUND},
    'compat': {'import_watch'},
}
"""What each room may import beside itself. The package's own __init__ joins all of them."""

MAY_IMPORT_HOSTS_AT_ONCE = {'mmsnnet/models/heads/dpt_depth_head.py'}
"""Files that import mmseg or mmdet at module level. Each must be imported lazily itself."""

Function = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Source:
    """A file of the package: its room, its path as text, its lines and its syntax tree."""

    def __init__(self, path: Path, package: Path = PACKAGE) -> None:
        parts = path.relative_to(package).with_suffix('').parts
        self.room = parts[0]
        self.name = '/'.join(('mmsnnet', *parts)) + '.py'
        self.module = '.'.join(part for part in ('mmsnnet', *parts) if part != '__init__')
        self.parents = ('mmsnnet', *parts[:-1])
        self.text = path.read_text(encoding='utf-8')
        self.tree = ast.parse(self.text, filename=self.name)

    def imports(self, nodes: Iterator[ast.AST] | None = None) -> set[str]:
        """Return the absolute dotted names that are imported, anywhere in the file or by nodes."""
        names = set()
        for node in ast.walk(self.tree) if nodes is None else nodes:
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = self.parents[:len(self.parents) - node.level + 1] if node.level else ()
                module = '.'.join((*base, *filter(None, [node.module])))
                names |= {f'{module}.{alias.name}' for alias in node.names}
        return names

    def imports_at_once(self) -> set[str]:
        """Return what is imported with the file itself, neither in a function nor in ``try``."""
        return self.imports(iter(self.tree.body))

    def rooms_used(self) -> set[str]:
        """Return the rooms imported; the package itself, which imports all, as ``__init__``."""
        names = (f'{name}.__init__' if name == 'mmsnnet' else name for name in self.imports())
        return {name.split('.')[1] for name in names if name.startswith('mmsnnet.')}

    def functions(self) -> Iterator[ast.FunctionDef]:
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))


SOURCES = [Source(path) for path in sorted(PACKAGE.rglob('*.py')) if '.mim' not in path.parts]
ROOMS = {source.room for source in SOURCES} - {'__init__'}


def roots(names: set[str]) -> set[str]:
    return {name.split('.')[0] for name in names}


def is_mutable(default: ast.expr) -> bool:
    if isinstance(default, ast.Call) and isinstance(default.func, ast.Name):
        return default.func.id in {'list', 'dict', 'set', 'bytearray', 'defaultdict', 'ConfigDict'}
    literals = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    return isinstance(default, literals)


def imported_files(sources: Sequence[Source]) -> dict[str, set[str]]:
    """Return the files of the package that each file imports by name.

    ``from a.b import c`` is of the file ``a/b/c.py`` where there is one, else of ``a/b.py`` or of
    ``a/b/__init__.py``.
    """
    files = {source.module: source.name for source in sources}
    return {
        source.name: {
            files.get(name) or files[name.rpartition('.')[0]]
            for name in source.imports()
            if name in files or name.rpartition('.')[0] in files
        }
        for source in sources
    }


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that can all reach each other, and nodes that reach themselves."""
    reached = {node: set(targets) for node, targets in graph.items()}
    for middle in graph:
        for targets in reached.values():
            if middle in targets:
                targets |= reached[middle]
    groups = {
        tuple(sorted(one for one in reached[node] if node in reached[one]))
        for node in graph
        if node in reached[node]
    }
    return [list(group) for group in sorted(groups)]


def test_every_room_is_known() -> None:
    assert MAY_IMPORT.keys() >= ROOMS, 'say in MAY_IMPORT what the new room may import'


def test_imports_run_one_way() -> None:
    allowed = {room: rooms | {room} for room, rooms in MAY_IMPORT.items()}
    wrong = {source.name: source.rooms_used() - allowed.get(source.room, set())
             for source in SOURCES if source.room != '__init__'}
    assert not {name: rooms for name, rooms in wrong.items() if rooms}


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports for types alone, and those inside functions, count too."""
    assert not circles(imported_files(SOURCES))


def test_nothing_imports_the_tools_the_tests_or_the_configs() -> None:
    outside = {'tools', 'tests', 'configs'}
    assert not [source.name for source in SOURCES if roots(source.imports()) & outside]


@pytest.mark.parametrize('room', ['stitching', 'results'])
def test_a_room_needs_the_standard_library_alone(room: str) -> None:
    known = {*sys.stdlib_module_names, 'mmsnnet'}
    rooms = [source for source in SOURCES if source.room == room]
    assert rooms
    assert not {source.name: roots(source.imports()) - known for source in rooms
                if roots(source.imports()) - known}


def test_mmseg_and_mmdet_may_be_absent() -> None:
    at_once = {source.name for source in SOURCES
               if roots(source.imports_at_once()) & {'mmseg', 'mmdet'}}
    assert at_once == MAY_IMPORT_HOSTS_AT_ONCE


def test_no_module_prints() -> None:
    calls = [(source.name, node) for source in SOURCES for node in ast.walk(source.tree)
             if isinstance(node, ast.Call)]
    assert not [(name, call.lineno) for name, call in calls
                if isinstance(call.func, ast.Name) and call.func.id == 'print']


def test_no_default_is_mutable() -> None:
    defaults = [(source.name, default) for source in SOURCES for function in source.functions()
                for default in (*function.args.defaults, *function.args.kw_defaults) if default]
    assert not [(name, default.lineno) for name, default in defaults if is_mutable(default)]


def test_no_module_is_named_for_nothing() -> None:
    vague = ('utils', 'util', 'helpers', 'misc', 'common')
    assert not [source.name for source in SOURCES if Path(source.name).stem in vague]


def test_no_file_is_longer_than_450_lines() -> None:
    lengths = {source.name: source.text.count('\n') for source in SOURCES}
    assert not {name: length for name, length in lengths.items() if length > 450}


def test_no_function_is_longer_than_40_lines() -> None:
    lengths = {f'{source.name}:{function.lineno}': function.end_lineno - function.lineno + 1
               for source in SOURCES for function in source.functions()}
    assert not {place: length for place, length in lengths.items() if length > 40}


def test_every_file_lies_in_a_package() -> None:
    """Without an __init__.py a folder is not found by find_packages, so not in the wheel."""
    folders = {ROOT.joinpath(source.name).parent for source in SOURCES}
    assert not [folder for folder in folders if not (folder / '__init__.py').is_file()]


@pytest.mark.parametrize(('line', 'imported'), [
    ('from mmsnnet.models import x', 'mmsnnet.models.x'),
    ('from ..models.y import x', 'mmsnnet.models.y.x'),
    ('from .. import models', 'mmsnnet.models'),
    ('from . import y', 'mmsnnet.stitching.y'),
    ('def f():\n    import mmsnnet.models', 'mmsnnet.models'),
])
def test_the_reader_of_imports_resolves(tmp_path: Path, line: str, imported: str) -> None:
    path = tmp_path / 'stitching' / 'space.py'
    path.parent.mkdir()
    path.write_text(line, encoding='utf-8')
    assert Source(path, tmp_path).imports() == {imported}


@pytest.mark.parametrize(('lines', 'found'), [
    (dict(a='from .b import x', b='from .a import y'), [['mmsnnet/r/a.py', 'mmsnnet/r/b.py']]),
    (dict(a='from .b import x', b='import typing\nif typing.TYPE_CHECKING:\n    from . import a'),
     [['mmsnnet/r/a.py', 'mmsnnet/r/b.py']]),
    (dict(a='from . import b', b='def f():\n    import mmsnnet.r.c', c='from .a import y'),
     [['mmsnnet/r/a.py', 'mmsnnet/r/b.py', 'mmsnnet/r/c.py']]),
    (dict(__init__='from .a import x', a='from mmsnnet.r import x'),
     [['mmsnnet/r/__init__.py', 'mmsnnet/r/a.py']]),
    (dict(__init__='from .a import x', a='from .b import x', b='', c='from .a import b'), []),
])
def test_circles_of_imports_are_found(
    tmp_path: Path, lines: dict[str, str], found: list[list[str]]
) -> None:
    sources = []
    for name, text in lines.items():
        path = tmp_path / 'r' / f'{name}.py'
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding='utf-8')
        sources.append(Source(path, tmp_path))
    assert circles(imported_files(sources)) == found
