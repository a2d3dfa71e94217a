"""The file that ``install-ops`` writes, and when the command refuses."""
from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

import mmsnnet.compat
from mmsnnet.compat import __main__ as command
from mmsnnet.compat import ops_file

STAND_IN = Path(mmsnnet.compat.__file__).with_name('mmcv_ext.py')


@pytest.fixture
def mmcv(tmp_path, monkeypatch):
    """An mmcv without ops, which the command takes for the installed one."""
    folder = tmp_path / 'site' / 'mmcv'
    folder.mkdir(parents=True)
    (folder / '__init__.py').write_text('')
    (folder / 'ops.py').write_text('from mmcv import _ext')
    spec = ModuleSpec('mmcv', None, origin=str(folder / '__init__.py'))
    monkeypatch.setattr(ops_file, 'find_spec', lambda name: spec)
    return folder


def run(*arguments, path):
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, path)))
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True,
                          check=False, env=environment, cwd=path[0])


def refusal(capsys, *arguments):
    """Runs the command, checks that it refused, and returns its one line."""
    assert command.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ''
    assert err.count('\n') == 1
    assert err.startswith('mmsnnet.compat: error: ')
    return err


def test_installing_and_removing_leaves_the_folder_as_it_was(mmcv, capsys):
    before = sorted(mmcv.iterdir())
    assert command.main(['install-ops']) == 0
    assert sorted(mmcv.iterdir()) == sorted([*before, mmcv / '_ext.py'])
    assert command.main(['remove-ops']) == 0
    assert sorted(mmcv.iterdir()) == before
    assert capsys.readouterr().out.splitlines() == [
        f'installed: {mmcv / "_ext.py"}', f'removed: {mmcv / "_ext.py"}']


def test_both_commands_can_be_repeated(mmcv):
    ops_file.install_ops()
    changed = (mmcv / '_ext.py').stat().st_mtime_ns
    assert ops_file.install_ops().startswith('already installed')
    assert (mmcv / '_ext.py').stat().st_mtime_ns == changed
    ops_file.remove_ops()
    assert ops_file.remove_ops().startswith('nothing to remove')


def test_a_file_of_an_older_release_is_renewed(mmcv):
    (mmcv / '_ext.py').write_text(f'{ops_file.MARKER} of old\n')
    assert ops_file.install_ops().startswith('installed')
    assert (mmcv / '_ext.py').read_text() == ops_file.EXT_SOURCE


def test_the_status_tells_the_three_states_apart(mmcv, capsys):
    for step in (lambda: None, ops_file.install_ops, (mmcv / '_ext.cpython-39-x.so').touch):
        step()
        assert command.main(['status']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ['in-process', 'stand-in', 'compiled:']


def test_compiled_ops_are_refused_and_named(mmcv, capsys):
    (mmcv / '_ext.cpython-311-x86_64-linux-gnu.so').touch()
    assert '_ext.cpython-311-x86_64-linux-gnu.so' in refusal(capsys, 'install-ops')
    assert not (mmcv / '_ext.py').exists()


def test_a_foreign_file_is_neither_overwritten_nor_removed(mmcv, capsys):
    (mmcv / '_ext.py').write_text('mine = 1\n')
    assert 'not written by mmsnnet' in refusal(capsys, 'install-ops')
    assert 'not written by mmsnnet' in refusal(capsys, 'remove-ops')
    assert (mmcv / '_ext.py').read_text() == 'mine = 1\n'


@pytest.mark.parametrize('name', ['install-ops', 'remove-ops', 'status'])
def test_without_mmcv_every_command_says_so(name, monkeypatch, capsys):
    monkeypatch.setattr(ops_file, 'find_spec', lambda name: None)
    assert 'mmcv is not installed' in refusal(capsys, name)


def test_a_folder_that_cannot_be_written_is_one_line(mmcv, monkeypatch, capsys):
    def deny(*_):
        raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(ops_file.os, 'replace', deny)
    assert 'Permission denied' in refusal(capsys, 'install-ops')
    assert [path.name for path in mmcv.glob('_ext*')] == []


def test_an_unknown_command_exits_with_two(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(['compile-ops'])
    assert stop.value.code == 2
    assert 'install-ops' in capsys.readouterr().err


def test_the_file_loads_the_stand_in_without_executing_mmsnnet(mmcv, tmp_path):
    ops_file.install_ops()
    other = tmp_path / 'lib' / 'mmsnnet'
    (other / 'compat').mkdir(parents=True)
    (other / '__init__.py').write_text('raise SystemExit("executed")')
    shutil.copy(STAND_IN, other / 'compat')
    code = 'import mmcv.ops, sys; print(mmcv._ext.nms.__module__, "mmsnnet" in sys.modules)'
    done = run('-c', code, path=[mmcv.parent, other.parent])
    assert (done.stdout, done.stderr) == ('mmcv._ext False\n', '')


def test_the_file_left_behind_without_mmsnnet_is_a_clear_import_error(mmcv):
    ops_file.install_ops()
    # -S: no site-packages, so that an installed mmsnnet is out of sight.
    done = run('-S', '-c', 'import mmcv.ops', path=[mmcv.parent])
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f'ImportError: {mmcv / "_ext.py"} was written by mmsnnet')
    assert 'delete this file' in last


def test_a_compiled_module_wins_over_the_file(mmcv):
    ops_file.install_ops()
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    # Any extension module of this Python serves: what counts is which file is found.
    (mmcv / f'_ext{suffix}').touch()
    code = 'import importlib.util; print(importlib.util.find_spec("mmcv._ext").origin)'
    assert run('-c', code, path=[mmcv.parent]).stdout.strip().endswith(f'_ext{suffix}')


def test_the_command_runs_as_a_module():
    if importlib.util.find_spec('mmcv') is None:
        pytest.skip('needs mmcv')
    inherited = filter(None, os.environ.get('PYTHONPATH', '').split(os.pathsep))
    done = run('-m', 'mmsnnet.compat', 'status', path=[STAND_IN.parents[2], *inherited])
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout == f'{ops_file.status()}\n'


@pytest.mark.slow
def test_modules_of_mmdet_that_need_ops_import_before_mmsnnet(tmp_path):
    installed = importlib.util.find_spec('mmcv')
    if installed is None or importlib.util.find_spec('mmdet') is None:
        pytest.skip('needs mmcv and mmdet')
    if ops_file.compiled_ext(Path(installed.origin).parent):
        pytest.skip('this mmcv has compiled ops')
    (tmp_path / 'mmcv').mkdir()
    for entry in Path(installed.origin).parent.iterdir():
        if entry.name != '__pycache__' and not entry.name.startswith('_ext'):
            (tmp_path / 'mmcv' / entry.name).symlink_to(entry)
    repository = STAND_IN.parents[2]
    path = [tmp_path, repository]
    assert run('-m', 'mmsnnet.compat', 'install-ops', path=path).returncode == 0
    code = ('import mmdet.engine.hooks, mmcv, sys; assert "mmsnnet" not in sys.modules\n'
            'import mmsnnet; print(mmcv._ext.__file__)')
    done = run('-c', code, path=path)
    assert done.stdout.strip() == str(tmp_path / 'mmcv' / '_ext.py'), done.stderr
