"""Whose environment the Makefile makes anew or removes, with an interpreter that does nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which('make') is None, reason='make is not installed')

PYTHON = """#!/bin/sh
case "$1" in
    -c) exit 0;;
    --version) echo "Python 3.11 in play";;
    -m) mkdir -p "$3/bin" && echo made > "$3/content";;
esac
"""


@pytest.fixture
def python(tmp_path):
    path = tmp_path / 'python'
    path.write_text(PYTHON, encoding='utf-8')
    path.chmod(0o755)
    return path


def checkout(folder: Path) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(ROOT / 'Makefile', folder)
    for name in ('mmsnnet', 'tests', 'tools', 'configs'):
        (folder / name).mkdir()
    return folder


@pytest.fixture
def here(tmp_path):
    return checkout(tmp_path / 'here')


@pytest.fixture
def there(tmp_path):
    return checkout(tmp_path / 'there')


def make(project: Path, target: str, python: object, venv: object = '.venv'):
    target = f'{venv}/.base-ready' if target == 'environment' else target
    command = ['make', '-C', project, target, f'VENV={venv}', f'PYTHON={python}']
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def is_made(venv: Path) -> bool:
    return (venv / 'content').is_file()


def test_an_environment_is_made_and_then_found(here, python):
    assert make(here, 'environment', python).returncode == 0
    (here / '.venv' / 'kept').touch()
    assert make(here, 'environment', python).returncode == 0
    assert is_made(here / '.venv') and (here / '.venv' / 'kept').is_file()


@pytest.mark.parametrize('target', ['environment', 'clean-env'])
def test_an_environment_of_another_checkout_is_left_alone(here, there, python, tmp_path, target):
    venv = tmp_path / 'shared'
    assert make(there, 'environment', python, venv).returncode == 0
    run = make(here, target, python, venv)
    assert (run.returncode != 0) == (target == 'environment')
    assert f'was made by another checkout ({there})' in run.stdout + run.stderr
    assert is_made(venv)


def test_an_environment_that_another_checkout_put_into_this_one_is_left_alone(here, there, python):
    assert make(there, 'environment', python, here / '.venv').returncode == 0
    assert make(here, 'environment', python).returncode != 0
    assert is_made(here / '.venv')


@pytest.mark.parametrize('target', ['environment', 'clean-env'])
def test_an_environment_without_a_mark_is_left_alone(here, python, target):
    (here / '.venv').mkdir()
    (here / '.venv' / 'content').touch()
    run = make(here, target, python)
    assert 'was not made by this Makefile' in run.stdout + run.stderr
    assert is_made(here / '.venv')


def test_nothing_is_removed_where_no_interpreter_is_found(here, python):
    assert make(here, 'environment', python).returncode == 0
    (here / '.venv' / '.base-ready').unlink()
    run = make(here, 'environment', '/no/such/python')
    assert run.returncode != 0 and 'no Python of version 3.11' in run.stderr
    assert is_made(here / '.venv')


def test_an_environment_that_was_begun_is_made_anew(here, python):
    assert make(here, 'environment', python).returncode == 0
    (here / '.venv' / '.base-ready').unlink()
    (here / '.venv' / 'old').touch()
    assert make(here, 'environment', python).returncode == 0
    assert is_made(here / '.venv') and not (here / '.venv' / 'old').exists()


@pytest.mark.parametrize('act', ['move', 'copy'])
def test_an_environment_that_came_along_with_its_project_is_made_anew(here, python, tmp_path, act):
    assert make(here, 'environment', python).returncode == 0
    (here / '.venv' / 'old').touch()
    new = tmp_path / 'new'
    shutil.move(here, new) if act == 'move' else shutil.copytree(here, new)
    assert make(new, 'environment', python).returncode == 0
    assert is_made(new / '.venv') and not (new / '.venv' / 'old').exists()


def test_an_environment_of_an_earlier_version_of_the_makefile_stays_ours(here, python):
    assert make(here, 'environment', python).returncode == 0
    (here / '.venv' / '.made-for-mmsnnet').write_text('')
    assert make(here, 'clean-env', python).returncode == 0
    assert not (here / '.venv').exists()


def test_the_environment_of_an_earlier_version_elsewhere_stays_its_own(
    here, there, python, tmp_path
):
    venv = tmp_path / 'shared'
    assert make(there, 'environment', python, venv).returncode == 0
    (venv / '.made-for-mmsnnet').write_text('')
    assert make(here, 'environment', python, venv).returncode != 0
    assert is_made(venv)


def test_a_path_with_spaces_is_refused(here, python):
    run = make(here, 'setup', python, 'my env')
    assert run.returncode != 0 and "one path without spaces, got 'my env'" in run.stderr
