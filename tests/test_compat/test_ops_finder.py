"""Which ``mmcv._ext`` Python finds, in interpreters with a made-up mmcv."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mmsnnet.compat
from mmsnnet.compat import ops_finder

PACKAGE = Path(mmsnnet.compat.__file__).parent


def run(code, *folders):
    """Runs code with the given import folders first; returns its standard output."""
    start = f'import sys; sys.path[:0] = {[str(folder) for folder in folders]!r}\n'
    done = subprocess.run([sys.executable, '-c', start + code], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fake_mmcv(folder, **files):
    """A package called mmcv with the given modules."""
    (folder / 'mmcv').mkdir(parents=True)
    for name, text in dict(__init__='', **files).items():
        (folder / 'mmcv' / f'{name}.py').write_text(text)
    return folder


INSTALL = '''
import importlib.util
spec = importlib.util.spec_from_file_location("ops_finder", {path!r})
finder = importlib.util.module_from_spec(spec); spec.loader.exec_module(finder)
finder.install_finder(); finder.install_finder()
'''.format(path=str(PACKAGE / 'ops_finder.py'))


def test_an_ext_of_mmcv_itself_always_wins(tmp_path):
    folder = fake_mmcv(tmp_path, _ext='WHO = "mmcv"')
    assert run(INSTALL + 'import mmcv._ext; print(mmcv._ext.WHO)', folder) == 'mmcv'


def test_without_one_the_stand_in_is_found_and_bound_to_mmcv(tmp_path):
    code = ('print(importlib.util.find_spec("mmcv._ext").origin)\n'
            'import mmcv._ext; print(mmcv._ext.__name__, mmcv._ext.PROVIDED[0])')
    origin, loaded = run(INSTALL + code, fake_mmcv(tmp_path)).splitlines()
    assert Path(origin) == PACKAGE / 'mmcv_ext.py'
    assert loaded == 'mmcv._ext nms'


def test_installing_twice_leaves_one_finder_at_the_end(tmp_path):
    code = 'print(sum(entry is finder.StandInFinder for entry in sys.meta_path), sys.meta_path[-1])'
    assert run(INSTALL + code, fake_mmcv(tmp_path)).startswith("1 <class 'ops_finder.StandIn")


def test_installing_imports_neither_torch_nor_mmcv(tmp_path):
    code = 'print({"torch", "torchvision", "mmcv"} & set(sys.modules))'
    assert run(INSTALL + code, fake_mmcv(tmp_path)) == 'set()'


def test_an_mmcv_ops_imported_earlier_stays_as_it_is(tmp_path):
    folder = fake_mmcv(tmp_path, _ext='WHO = "mmcv"', ops='from mmcv import _ext')
    code = 'import mmcv.ops; before = mmcv.ops._ext\n' + INSTALL
    assert run(code + 'import mmcv._ext; print(mmcv._ext is before)', folder) == 'True'


def test_other_modules_are_none_of_its_business():
    assert ops_finder.StandInFinder.find_spec('mmcv._ext2') is None
    assert ops_finder.StandInFinder.find_spec('os') is None


ALONE = f'''
class Refuse:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in ("mmcv", "mmseg", "mmdet"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse)
import types
package = types.ModuleType("mmsnnet"); package.__path__ = [{str(PACKAGE.parent)!r}]
sys.modules["mmsnnet"] = package
from mmsnnet import compat
compat.install(); compat.install()
print("fine")
'''


def test_compat_installs_silently_without_mmcv_mmseg_and_mmdet():
    assert run(ALONE) == 'fine'
