"""Naming what stands in the way of mmseg, mmdet and mim."""
from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mmsnnet.compat import __main__ as command
from mmsnnet.compat import installation
from tests.toy_segmentation import child_environment

FITTING = {'timm': '1.0.26', 'torch': '2.1.0+cu118', 'mmcv-lite': '2.1.0', 'openmim': '0.3.9',
           'mmsegmentation': '1.2.2', 'mmdet': '3.3.0', 'setuptools': '80.10.2'}


@pytest.fixture
def environment(monkeypatch):
    """The distributions and the modules that are missing, to be changed by the test."""
    versions, missing = dict(FITTING), set()
    monkeypatch.setattr(installation, 'version_of', versions.get)
    monkeypatch.setattr(installation, 'has_module', lambda name: name not in missing)
    return versions, missing


def test_an_environment_that_fits_has_no_obstacle(environment):
    assert installation.obstacles() == []


@pytest.mark.parametrize(('package', 'version', 'words'), [
    ('timm', '1.0.15', 'pip install "timm>=1.0.26"'),
    ('timm', '0.9.16', 'timm 0.9.16 is too old'),
    ('torch', '2.0.1+cu118', 'pip install "torch>=2.1"'),
    ('mmcv-lite', '2.2.0', 'mmcv-lite 2.2.0 is refused by mmsegmentation and mmdet'),
    ('mmcv', '2.1.0', 'mmcv and mmcv-lite are installed over each other'),
])
def test_a_version_that_does_not_fit_is_one_line(environment, package, version, words):
    environment[0][package] = version
    (line,) = installation.obstacles()
    assert words in line


@pytest.mark.parametrize('package', ['timm', 'torch'])
def test_what_everything_needs_is_missed(environment, package):
    del environment[0][package]
    (line,) = installation.obstacles()
    assert line.startswith(f'{package} is not installed: pip install "{package}>=')


def test_status_names_a_timm_that_is_too_old_for_the_package_to_be_imported(tmp_path):
    """A timm without the layers that the package imports, as releases before the floor are."""
    (tmp_path / 'timm').mkdir()
    (tmp_path / 'timm' / '__init__.py').write_text("__version__ = '0.9.16'\n")
    (tmp_path / 'timm-0.9.16.dist-info').mkdir()
    (tmp_path / 'timm-0.9.16.dist-info' / 'METADATA').write_text(
        'Metadata-Version: 2.1\nName: timm\nVersion: 0.9.16\n')
    environment = child_environment()
    paths = (str(tmp_path), environment.get('PYTHONPATH', ''))
    environment['PYTHONPATH'] = os.pathsep.join(filter(None, paths))
    done = subprocess.run([sys.executable, '-m', 'mmsnnet.compat', 'status'],
                          env=environment, capture_output=True, text=True)
    line = 'obstacle: timm 0.9.16 is too old: pip install "timm>=1.0.26"'
    assert line in done.stdout.splitlines(), done.stderr
    assert done.returncode == 1 and 'Traceback' not in done.stderr


@pytest.mark.parametrize(('module', 'words'), [
    ('ftfy', 'pip install ftfy'),
    ('regex', 'pip install regex'),
    ('pkg_resources', 'pip install "setuptools<81"'),
    ('torchvision', 'pip install torchvision'),
])
def test_a_module_that_is_missing_is_one_line(environment, module, words):
    environment[1].add(module)
    (line,) = installation.obstacles()
    assert words in line


FORKS = {'onedl-mmcv': '2.3.6', 'onedl-mmengine': '0.10.12', 'onedl-mmsegmentation': '1.4.2',
         'onedl-mmdetection': '3.5.1', 'onedl-mim': '0.5.1'}


@pytest.mark.parametrize(('module', 'words'), [
    ('regex', 'onedl-mmsegmentation imports regex'),
    ('imgaug', 'pip install imgaug'),
    ('skimage', 'pip install scikit-image'),
])
def test_a_module_that_the_forks_miss_is_one_line(environment, module, words):
    versions, missing = environment
    for name in ('mmcv-lite', 'mmsegmentation', 'mmdet', 'openmim'):
        versions.pop(name)
    versions.update(FORKS)
    missing.add('pkg_resources')  # which their OpenMIM does not import
    assert installation.obstacles() == []
    missing.add(module)
    (line,) = installation.obstacles()
    assert words in line


@pytest.mark.parametrize('fork', [name for name in FORKS if name != 'onedl-mmcv'])
def test_a_fork_beside_the_original_is_one_line(environment, fork):
    environment[0].update({fork: FORKS[fork], 'mmengine': '0.10.7'})
    (line,) = installation.obstacles()
    assert fork in line and 'installed over each other' in line


def test_what_only_an_absent_package_needs_is_not_missed(environment):
    versions, missing = environment
    for name in set(versions) - {'timm', 'torch'}:  # which all of it needs
        del versions[name]
    missing.update({'ftfy', 'regex', 'pkg_resources', 'torchvision'})
    assert installation.obstacles() == []


def test_a_compiled_mmcv_needs_no_torchvision(environment):
    versions, missing = environment
    versions['mmcv'] = versions.pop('mmcv-lite')
    missing.add('torchvision')
    assert installation.obstacles() == []


@pytest.mark.parametrize(('version', 'numbers'), [
    ('2.14.1+cu130', (2, 14, 1)), ('2.2.0rc1', (2, 2, 0)), ('unknown', ())])
def test_the_numbers_of_a_version(version, numbers):
    assert installation.numbers_of(version) == numbers


def test_the_status_names_every_obstacle_and_fails(environment, monkeypatch, capsys):
    environment[1].update({'ftfy', 'pkg_resources'})
    monkeypatch.setitem(command.COMMANDS, 'status', lambda: 'compiled: x')
    assert command.main(['status']) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'compiled: x'
    assert [line.split(':')[0] for line in lines[1:]] == ['obstacle', 'obstacle']
