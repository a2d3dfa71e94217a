"""The package as it is installed, and the requirements it states."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import mmsnnet.version
from mmsnnet.compat.fork_packages import installed_version

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'mmsnnet'
REQUIREMENT_FILES = sorted((ROOT / 'requirements').glob('*.txt'))
ENVIRONMENTS = ('pins', 'floors', 'forks')
"""Files of whole environments, each tested on its own; the others give ranges."""
EXTRAS_OF_THEIR_OWN = (
    'cls', 'deploy', 'guide', 'hub', 'lora', 'openvino', 'smp', 'transformers', 'web'
)  # fmt: skip
"""Extras that the pinned environments do not have to hold."""
RANGE_FILES = [path for path in REQUIREMENT_FILES
               if path.stem not in (*ENVIRONMENTS, *EXTRAS_OF_THEIR_OWN)]

def read_setup_version() -> str:
    """Return the version that setup.py gives to pip, asked in a process of its own."""
    run = subprocess.run([sys.executable, '-W', 'ignore', 'setup.py', '--version'], cwd=ROOT,
                         capture_output=True, text=True, check=True)
    return run.stdout.strip().splitlines()[-1]


@pytest.fixture(scope='module')
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project, so that building leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp('project')
    ignore = shutil.ignore_patterns('.mim', '__pycache__', 'build', '*.egg-info')
    for name in ('mmsnnet', 'configs', 'tools', 'requirements'):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'model-index.yml', 'LICENSE'):
        shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope='module')
def wheel_names(project: Path) -> set[str]:
    """Return the names of the files in the wheel built from the project."""
    out = project / 'wheels'
    pip(project, 'wheel', '--wheel-dir', str(out), '.')
    with zipfile.ZipFile(next(out.glob('mmsnnet-*.whl'))) as wheel:
        return set(wheel.namelist())


def pip(folder: Path, command: str, *args: str) -> None:
    """Run a pip command that neither asks the network nor touches this environment."""
    flags = ('--no-deps', '--no-build-isolation', '--no-index', '--quiet')
    run = subprocess.run([sys.executable, '-m', 'pip', command, *flags, *args], cwd=folder,
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def files_below(folder: Path) -> set[str]:
    files = (path for path in folder.rglob('*') if path.is_file())
    return {path.relative_to(folder.parent).as_posix() for path in files
            if '__pycache__' not in path.parts}


def test_the_wheel_holds_every_config_and_tool_for_openmim(wheel_names: set[str]) -> None:
    wanted = {'model-index.yml'} | files_below(ROOT / 'configs') | files_below(ROOT / 'tools')
    packed = {name.removeprefix('mmsnnet/.mim/') for name in wheel_names
              if name.startswith('mmsnnet/.mim/')}
    assert packed == wanted


def test_the_wheel_holds_every_module_and_nothing_foreign(wheel_names: set[str]) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob('*.py')
               if '.mim' not in path.parts}
    assert modules <= wheel_names
    assert {name.split('/')[0].split('-')[0] for name in wheel_names} == {'mmsnnet'}


@pytest.mark.parametrize('mode', ['lenient', 'compat'])
def test_openmim_finds_the_tools_of_an_editable_install(
        project: Path, tmp_path: Path, mode: str) -> None:
    """Install into a folder of its own and ask pkg_resources as OpenMIM does."""
    pip(project, 'install', '--target', str(tmp_path), '--config-settings',
        f'editable_mode={mode}', '--editable', '.')
    code = ('from mim.utils import get_installed_path, is_installed\n'
            'print(is_installed("mmsnnet"), get_installed_path("mmsnnet"))')
    pytest.importorskip('mim')
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    run = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=tmp_path,
                         env=environment, capture_output=True, text=True, check=True)
    # The fork's OpenMIM looks for tools in the checkout, the original in .mim of the package.
    place = project if installed_version('onedl-mim') else project / 'mmsnnet'
    assert run.stdout.split() == ['True', str(place)]
    assert (project / 'mmsnnet' / '.mim' / 'model-index.yml').resolve() \
        == project / 'model-index.yml'


def test_the_version_of_the_installed_package_is_that_of_the_module() -> None:
    assert read_setup_version() == mmsnnet.version.__version__


@pytest.mark.parametrize('path', REQUIREMENT_FILES, ids=lambda path: path.name)
def test_every_requirement_parses(path: Path) -> None:
    assert read_requirements(path)


def read_requirements(path: Path) -> dict[str, Requirement]:
    lines = (line.split('#')[0].strip() for line in path.read_text('utf-8').splitlines())
    parsed = (Requirement(line) for line in lines if line)
    return {requirement.name: requirement for requirement in parsed}


@pytest.mark.parametrize('name', ENVIRONMENTS)
def test_every_pin_is_exact(name: str) -> None:
    for requirement in read_requirements(ROOT / 'requirements' / f'{name}.txt').values():
        assert [part.operator for part in requirement.specifier] == ['=='], requirement


@pytest.mark.parametrize(('name', 'left_out'), [
    ('pins', set()),
    ('floors', {'ruff'}),  # of the style of the code, which versions do not change
])
def test_the_pins_fulfil_all_ranges(name: str, left_out: set[str]) -> None:
    pins = read_requirements(ROOT / 'requirements' / f'{name}.txt')
    pins['mmcv'] = pins['mmcv-lite']
    for path in RANGE_FILES:
        for wanted, requirement in read_requirements(path).items():
            if wanted not in left_out:
                (pin,) = pins[wanted].specifier
                assert requirement.specifier.contains(pin.version), (path.name, wanted)


def test_the_floors_are_the_lowest_versions_that_the_ranges_allow() -> None:
    floors = read_requirements(ROOT / 'requirements' / 'floors.txt')
    for path in RANGE_FILES:
        for name, requirement in read_requirements(path).items():
            lowest = [part.version for part in requirement.specifier if part.operator == '>=']
            if lowest and name != 'mmcv' and not name.startswith('pytest'):
                assert str(floors[name].specifier) == f'=={lowest[0]}', (path.name, name)


def test_pip_is_never_told_to_install_mmcv_or_torch() -> None:
    """Only the extra that OpenMIM reads names mmcv; see the head of setup.py."""
    for name in ('runtime', 'seg', 'det', 'optional', 'tests', *EXTRAS_OF_THEIR_OWN):
        named = read_requirements(ROOT / 'requirements' / f'{name}.txt')
        assert not named.keys() & {'mmcv', 'mmcv-lite', 'mmcv-full', 'torch', 'torchvision'}


def test_the_model_index_names_configs_that_exist() -> None:
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text('utf-8'))
    names = [model['Name'] for model in index['Models']]
    assert sorted(names) == sorted(set(names))
    collections = {collection['Name'] for collection in index['Collections']}
    for model in index['Models']:
        assert model['In Collection'] in collections
        assert (ROOT / model['Config']).is_file()
        assert Path(model['Config']).stem == model['Name']


def test_openmim_reads_the_model_index() -> None:
    modelindex = pytest.importorskip('modelindex')
    search = pytest.importorskip('mim.commands.search')
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    table = search.convert2df(index)
    recipes = sorted(path.stem for path in (ROOT / 'configs').glob('*_snnetv[12]_*.py'))
    assert len(recipes) >= 20
    assert sorted(table.index) == recipes


def test_openmim_downloads_a_recipe_without_weights(tmp_path: Path) -> None:
    """No weights are published: the config alone is written, and nothing is asked of a network."""
    download = pytest.importorskip('mim.commands.download').download
    name = 'upernet_snnetv2_rooms'
    download('mmsnnet', [name], str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [f'{name}.py']
    assert 'StitchedViT' in (tmp_path / f'{name}.py').read_text('utf-8')


def test_every_extra_of_setup_has_its_file_of_requirements() -> None:
    text = (ROOT / 'setup.py').read_text('utf-8')
    for path in REQUIREMENT_FILES:
        if path.stem not in (*ENVIRONMENTS, 'runtime', 'mminstall'):
            assert f"'{path.stem}': read_requirements('{path.stem}')" in text
