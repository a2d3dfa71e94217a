"""Packaging of mmsnnet.

Three things differ from an ordinary package.

1. mmcv, mmengine, mmsegmentation and mmdetection are not in ``install_requires``. mmcv comes as a
   build compiled for one torch and one CUDA version, or without operators as ``mmcv-lite``; pip
   sees two unrelated packages and would put one over the other. They are listed in
   ``requirements/mminstall.txt`` for ``mim install -r``. torch is not listed either: timm needs
   some torch, any will do, and a new one would break an mmcv compiled for the old one.

2. ``configs/``, ``tools/`` and ``model-index.yml`` are installed as ``mmsnnet/.mim``, where
   OpenMIM looks for them (``mim run mmsnnet test_all_stitches ...``): copies in a wheel, links
   into the checkout for an editable install.

3. An editable install tells OpenMIM where the package is. OpenMIM (0.3.9) takes the folder that
   holds the package's metadata and appends the package's name; where that does not exist, it
   appends the first line of ``top_level.txt``. An editable install by PEP 660, compat mode
   included, has its metadata in site-packages and its modules in the checkout, so both guesses
   are wrong and ``mim run`` ends in an UnboundLocalError. The old ``setup.py develop`` does
   not have this problem, but setuptools 80 and pip 25.3 no longer have the old command. The
   first line of an editable install's ``top_level.txt`` is therefore the absolute path of
   the package, which appended to any folder is itself; the module's name follows on the
   second line.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / 'mmsnnet'
MIM_ENTRIES = ('configs', 'tools', 'model-index.yml')
"""What OpenMIM reads, as paths relative to the project."""


def read_version() -> str:
    """Return the version stated in mmsnnet/version.py, without importing the package."""
    scope: dict[str, str] = {}
    exec((PACKAGE / 'version.py').read_text(encoding='utf-8'), scope)
    return scope['__version__']


def read_readme() -> str:
    """Return the README, or an empty text where only a part of the project was copied."""
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.is_file() else ''


def read_requirements(*names: str) -> list[str]:
    """Return the requirements stated in the files requirements/<name>.txt, without comments."""
    texts = ((ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8') for name in names)
    bare = (line.split('#', 1)[0].strip() for text in texts for line in text.splitlines())
    return [line for line in bare if line]


def add_mim_extension(package_dir: Path, link: bool) -> list[Path]:
    """Put what OpenMIM reads into ``package_dir/.mim`` and return the entries made.

    Args:
        package_dir: the mmsnnet folder that is going to be imported.
        link: symbolic links into the checkout, so that edits show at once, instead of copies.
            Where the system forbids links, copies are made.
    """
    mim_dir = package_dir / '.mim'
    if mim_dir.is_dir():
        shutil.rmtree(mim_dir)  # does not follow the links in it
    mim_dir.mkdir(parents=True)
    sources = [ROOT / entry for entry in MIM_ENTRIES if (ROOT / entry).exists()]
    for source in sources:
        target = mim_dir / source.name
        if not (link and try_link(source, target)):
            copy(source, target)
    return [mim_dir / source.name for source in sources]


def try_link(source: Path, target: Path) -> bool:
    """Link target to source by a relative path; return whether the system allowed it."""
    try:
        target.symlink_to(os.path.relpath(source, target.parent), source.is_dir())
    except OSError:
        return False
    return True


def copy(source: Path, target: Path) -> None:
    """Copy a file, or a folder without compiled Python files."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))
    else:
        shutil.copy2(source, target)


class BuildPy(build_py):
    """Build the package with its .mim folder: copies in a wheel, links for an editable one."""

    def run(self) -> None:
        """Build the modules, then add the .mim folder."""
        super().run()
        if self.editable_mode:
            add_mim_extension(PACKAGE, link=True)
        else:
            add_mim_extension(Path(self.build_lib, PACKAGE.name), link=False)


class Develop(develop):
    """``setup.py develop`` of setuptools before 80, which does not build."""

    def run(self) -> None:
        """Link the .mim folder, then install in place."""
        add_mim_extension(PACKAGE, link=True)
        super().run()


class EditableWheel(editable_wheel):
    """An editable wheel whose metadata lead OpenMIM to the checkout (point 3 above)."""

    def run(self) -> None:
        """Complete the metadata, which a front end may have made before, then build."""
        if self.dist_info_dir is None:
            os.makedirs(self.dist_dir, exist_ok=True)
            dist_info = self.reinitialize_command('dist_info', output_dir=self.dist_dir)
            dist_info.ensure_finalized()
            dist_info.run()
            self.dist_info_dir = dist_info.dist_info_dir
        names = f'{PACKAGE}\n{PACKAGE.name}\n'
        Path(self.dist_info_dir, 'top_level.txt').write_text(names, encoding='utf-8')
        super().run()


setup(
    name='mmsnnet',
    version=read_version(),
    description='Stitched vision transformers for OpenMMLab: train one backbone, '
    'run it at any cost between two pretrained models',
    long_description=read_readme(),
    long_description_content_type='text/markdown',
    author='The mmsnnet authors',
    license='Apache-2.0',
    keywords=['computer vision', 'semantic segmentation', 'model stitching', 'transformer'],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.9',
        'Programming Language :: Python :: 3.11',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    packages=find_packages(include=['mmsnnet', 'mmsnnet.*']),
    package_data={'': ['*.csv', '*.css', '*.html', '*.js', '*.json', 'py.typed']},
    include_package_data=False,
    python_requires='>=3.9',
    install_requires=read_requirements('runtime'),
    extras_require={
        'seg': read_requirements('seg'),
        'det': read_requirements('det'),
        'optional': read_requirements('optional'),
        'cls': read_requirements('cls'),
        'deploy': read_requirements('deploy'),
        'guide': read_requirements('guide'),
        'hub': read_requirements('hub'),
        'lora': read_requirements('lora'),
        'openvino': read_requirements('openvino'),
        'smp': read_requirements('smp'),
        'transformers': read_requirements('transformers'),
        'web': read_requirements('web'),
        'tests': read_requirements('tests'),
        'all': read_requirements('seg', 'det', 'optional', 'tests'),
        # Read by OpenMIM, which installs these with builds that fit the installed torch.
        'mim': read_requirements('mminstall'),
    },
    cmdclass={'build_py': BuildPy, 'develop': Develop, 'editable_wheel': EditableWheel},
    zip_safe=False,
)
