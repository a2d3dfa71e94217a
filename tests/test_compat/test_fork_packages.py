"""Forks of the OpenMMLab packages: their configs are found, and the originals are left alone."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from mmsnnet.compat.fork_packages import find_fork_configs, installed_name

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
RECIPES = sorted(path.name for path in CONFIGS.glob('*.py'))
ORIGINAL = dict(mmseg='mmsegmentation', mmdet='mmdet', mmpretrain='mmpretrain')


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Makes Python see the distributions named and no others; returns the function for it."""
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    for module, package in ORIGINAL.items():
        monkeypatch.setitem(MODULE2PACKAGE, module, package)

    def install(*names):
        for name in names:
            folder = tmp_path / f'{name.replace("-", "_")}-1.0.dist-info'
            folder.mkdir()
            (folder / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n')
    return install


def test_installed_forks_take_the_places_of_the_originals(installed):
    installed('onedl-mmengine', 'onedl-mmsegmentation', 'onedl-mmpretrain')
    assert find_fork_configs() == ['mmpretrain', 'mmseg']
    assert MODULE2PACKAGE['mmseg'] == 'onedl-mmsegmentation'
    assert MODULE2PACKAGE['mmdet'] == 'mmdet'  # found by the module's name


def test_with_the_original_mmengine_the_table_stays(installed):
    installed('mmengine', 'mmsegmentation', 'onedl-mmsegmentation')
    assert find_fork_configs() == []
    assert MODULE2PACKAGE['mmseg'] == 'mmsegmentation'


def test_an_original_beside_the_forks_keeps_its_name(installed):
    installed('onedl-mmengine', 'mmsegmentation', 'onedl-mmsegmentation')
    assert find_fork_configs() == []


def test_a_second_call_changes_nothing_more(installed):
    installed('onedl-mmengine', 'onedl-mmsegmentation')
    find_fork_configs()
    before = dict(MODULE2PACKAGE)
    assert find_fork_configs() == []
    assert before == MODULE2PACKAGE


def test_what_is_not_installed_has_no_name(installed):
    installed('onedl-mmengine')
    assert installed_name('mmsegmentation') is None


def first_file_to_run(path):
    """The file of a recipe whose body runs before any other: the first base of the first base."""
    bases = Config._get_base_files(str(path))
    if not bases:
        return path.name
    return bases[0] if '::' in bases[0] else first_file_to_run(path.parent / bases[0])


@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_imports_mmsnnet_before_it_looks_for_bases_elsewhere(name):
    assert first_file_to_run(CONFIGS / name) == 'snnetv2_runtime.py'


@pytest.mark.parametrize('module', ['mmseg', 'mmdet'])
def test_a_new_process_reads_a_recipe_with_bases_of_a_host(module):
    pytest.importorskip(module)
    name = dict(mmseg='upernet_snnetv2_ade20k.py', mmdet='mask-rcnn_snnetv2_s-l_coco.py')[module]
    code = ('import sys; from mmengine.config import Config; '
            'sys.exit(not Config.fromfile(sys.argv[1]).model)')
    subprocess.run([sys.executable, '-c', code, str(CONFIGS / name)], check=True)


def test_a_config_that_imports_mmsnnet_in_its_first_line_finds_bases_of_a_host(tmp_path):
    """As README says: with the forks custom_imports, which comes after all bases, is too late."""
    pytest.importorskip('mmseg')
    base = 'mmseg::vit/vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512.py'
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = __import__('mmsnnet') and '{base}'\n", encoding='utf-8')
    code = ('import sys; from mmengine.config import Config; '
            'sys.exit(not Config.fromfile(sys.argv[1]).model)')
    subprocess.run([sys.executable, '-c', code, str(config)], check=True)
