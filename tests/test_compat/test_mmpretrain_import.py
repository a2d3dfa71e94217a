"""mmpretrain beside transformers 5, on a stand-in of the part of it that decides."""
from __future__ import annotations

import importlib
import sys

import pytest

from mmsnnet import compat
from mmsnnet.compat.mmpretrain_import import MultimodalFinder

compat.install()


@pytest.fixture
def mmpretrain_beside(tmp_path, monkeypatch):
    """Returns a function that imports mmpretrain's models beside a version of transformers."""
    for name in [name for name in sys.modules if name.split('.')[0] == 'mmpretrain']:
        monkeypatch.delitem(sys.modules, name)
    files = {
        'mmpretrain/__init__.py': '',
        'mmpretrain/utils/__init__.py': '',
        'mmpretrain/utils/dependency.py': 'WITH_MULTIMODAL = True\nOTHER = 1\n',
        'mmpretrain/models.py': 'from mmpretrain.utils.dependency import OTHER, WITH_MULTIMODAL\n',
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def import_beside(version):
        if version:
            folder = tmp_path / f'transformers-{version}.dist-info'
            folder.mkdir()
            (folder / 'METADATA').write_text(
                f'Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n')
        monkeypatch.setattr(sys, 'path', [str(tmp_path)])
        importlib.invalidate_caches()
        return importlib.import_module('mmpretrain.models')
    yield import_beside
    for name in [name for name in sys.modules if name.split('.')[0] == 'mmpretrain']:
        del sys.modules[name]


@pytest.mark.parametrize(('version', 'multimodal'), [
    ('5.24.0', False), ('5.0.0rc1', False), ('10.1', False), ('4.57.1', True), (None, True)])
def test_multimodal_parts_are_left_out_beside_transformers_5_alone(
        mmpretrain_beside, version, multimodal):
    models = mmpretrain_beside(version)
    assert models.WITH_MULTIMODAL is multimodal


def test_the_rest_of_the_module_is_mmpretrains_own(mmpretrain_beside):
    assert mmpretrain_beside('5.24.0').OTHER == 1


def test_other_modules_are_not_touched():
    assert MultimodalFinder.find_spec('mmpretrain.models') is None


def test_the_finder_stands_before_the_search_once():
    compat.install()
    assert sys.meta_path.count(MultimodalFinder) == 1
    ordinary = [getattr(finder, '__name__', '') for finder in sys.meta_path].index('PathFinder')
    assert sys.meta_path.index(MultimodalFinder) < ordinary
