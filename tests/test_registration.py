"""When the package registers itself, and that its run time needs nothing to register in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mmsnnet
from mmsnnet.registration import LIGHT
from tests.fresh_processes import NEEDS_FORK, run_each
from tests.toy_segmentation import child_environment

HEAVY = ('matplotlib', 'mmengine', 'timm', 'torch')
WITHOUT = """
class Absent:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in {names}:
            raise ModuleNotFoundError('No module named ' + name, name=name)

sys.meta_path.insert(0, Absent)
"""
IS_REGISTERED = """
from mmengine.registry import HOOKS, LOOPS, MODELS
from mmsnnet.import_watch import ImportWatch
names = [MODELS.get('StitchedViT'), HOOKS.get('StitchInitHook'), LOOPS.get('StitchValLoop')]
assert [one.__name__ for one in names] == ['StitchedViT', 'StitchInitHook', 'StitchValLoop']
assert sys.modules['mmsnnet.models'].StitchedViT is names[0]
assert not [one for one in sys.meta_path if isinstance(one, ImportWatch)]
for module in (sys.modules['mmengine'], sys.modules['mmsnnet.models']):
    assert type(module.__loader__).__name__ == 'SourceFileLoader', module
    assert module.__spec__.loader is module.__loader__
"""


def run(code: str, *arguments: str, folder: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', 'import sys\n' + code, *arguments],
        env=child_environment(), capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_light_needs_none_of_what_is_heavy():
    code = ''.join(f'import mmsnnet.{room}\n' for room in sorted(LIGHT))
    run(WITHOUT.format(names=HEAVY) + code + f'assert not set({HEAVY}) & set(sys.modules)')


def test_the_names_of_light_rooms_need_none_of_what_is_heavy():
    code = (
        'import mmsnnet\nmmsnnet.runtime.StitchSession, mmsnnet.StitchSpace, mmsnnet.results\n'
        f"mmsnnet.config_path('upernet_snnetv2_ade20k.py')\n"
        f'assert not set({HEAVY}) & set(sys.modules)'
    )
    run(WITHOUT.format(names=HEAVY) + code)


FIRST = [
    'import mmsnnet, mmengine',
    'import mmengine, mmsnnet',
    'import mmsnnet.runtime; import mmengine',
    'import mmsnnet; from mmsnnet import StitchedViT',
    'import mmsnnet.models.stitched_vit',
    'import mmsnnet.registry',
    'from mmsnnet.compat import load_allowed',
    'from mmsnnet import engine',
    'import mmsnnet, mmseg, mmdet; import mmcv.ops; import mmdet.models, mmseg.models',
    'import mmdet, mmsnnet; import mmcv.ops; import mmdet.models, mmseg.models',
]
#: What plain PyTorch imports, and does with a backbone.
PLAIN = [
    'from mmsnnet import StitchedViT',
    'import timm, mmengine; from mmsnnet import StitchedViT',
    'import mmsnnet; import mmengine.logging; from mmsnnet.models import StitchedViT',
]
#: Of the package, of MMEngine (whose training imports transformers and peft) and of others.
NOT_FOR_PLAIN = (
    'mmsnnet.datasets', 'mmsnnet.engine', 'mmsnnet.evaluation', 'mmsnnet.deploy', 'mmsnnet.apis',
    'mmengine.model', 'mmengine.optim', 'mmengine.runner',
    'mmcv', 'mmdet', 'mmpretrain', 'mmseg', 'peft', 'transformers', 'pandas', 'scipy',
)  # fmt: skip
PLAIN_USE = f"""
import torch
anchors = [
    dict(model_name='vit_tiny_patch16_224', pretrained=False,
         model_kwargs=dict(depth=2, embed_dim=width, num_heads=3))
    for width in (24, 48)
]
backbone = StitchedViT(anchors, img_size=32, out_indices=(0, 1))
backbone.init_weights()
images = torch.randn(2, 3, 32, 32)
backbone.fit_stitches(images)
backbone.train()
backbone(images)[-1].mean().backward()
backbone.eval().set_stitch('S1-L1')
with torch.no_grad():
    assert backbone(images)[-1].shape == (2, 48, 2, 2)
backbone.set_budget(gflops=1)
backbone.load_state_dict(backbone.state_dict())
assert not [name for name in {NOT_FOR_PLAIN} if name in sys.modules]
"""
#: After which MMEngine's loaders run nothing of what a checkpoint says.
SAFE = """
from mmengine.runner import CheckpointLoader
for scheme in ('', 'http://', 'https://'):
    loader = CheckpointLoader._schemes[scheme]
    assert loader.__module__ == 'mmsnnet.compat.safe_schemes', loader
"""
LOADERS = [
    'import mmsnnet, mmengine; import mmengine.runner',
    'import mmengine.runner; import mmsnnet',
    'from mmsnnet import StitchedViT',
]
THREADS = """
from concurrent.futures import ThreadPoolExecutor
from mmengine.registry import HOOKS, Registry
import mmsnnet
before = Registry.get
with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(HOOKS.get, ['StitchInitHook'] * 4))
assert {one.__name__ for one in found} == {'StitchInitHook'}
assert Registry.get is not before and Registry.get is before.__wrapped__
from mmengine.model import BaseModule
assert issubclass(mmsnnet.StitchedViT, BaseModule)
"""


@pytest.fixture(scope='module')
def failures():
    codes = [first + IS_REGISTERED for first in FIRST]
    codes += [plain + '\n' + PLAIN_USE for plain in PLAIN]
    codes += [*(loaders + SAFE for loaders in LOADERS), THREADS]
    return {code: outcome.error for code, outcome in run_each(codes).items()}


@NEEDS_FORK
@pytest.mark.parametrize('first', FIRST)
def test_the_package_is_registered_whatever_is_imported_first(first, failures):
    if 'mmseg' in first:
        pytest.importorskip('mmdet')
        pytest.importorskip('mmseg')
    assert failures[first + IS_REGISTERED] == ''


@NEEDS_FORK
@pytest.mark.parametrize('first', PLAIN)
def test_a_backbone_in_plain_pytorch_needs_no_runner_no_host_and_no_transformers(first, failures):
    assert failures[first + '\n' + PLAIN_USE] == ''


@NEEDS_FORK
@pytest.mark.parametrize('first', LOADERS)
def test_checkpoints_are_read_safely_whatever_is_imported_first(first, failures):
    assert failures[first + SAFE] == ''


@NEEDS_FORK
def test_the_first_lookup_registers_once_for_all_threads(failures):
    assert failures[THREADS] == ''


def test_a_spawned_worker_unpickles_a_config_of_the_package_and_builds_it(tmp_path):
    (tmp_path / 'job.py').write_text(
        'import mmsnnet\n'
        'def work(config):\n'
        '    from mmengine.registry import LOOPS, MODELS\n'
        '    return MODELS.get(config["type"]).__name__\n'
    )
    code = (
        'import multiprocessing\nfrom job import work\n'
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        sys.stdout.write(pool.apply(work, [dict(type='StitchedViT')]))\n"
    )
    assert run(code, folder=tmp_path) == 'StitchedViT'


def test_a_failing_import_of_what_needs_more_is_an_error_every_time():
    code = """
for attempt in range(2):
    try:
        import mmsnnet.models
    except ModuleNotFoundError as error:
        sys.stdout.write(f'{error.name} ')
"""
    assert run(WITHOUT.format(names=('timm',)) + code) == 'timm timm '


def test_mmengine_can_be_used_where_what_the_package_needs_besides_is_missing():
    code = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    import mmsnnet.runtime, mmengine
assert mmengine.Config(dict(a=1)).a == 1
sys.stdout.write([str(w.message) for w in caught if 'mmsnnet' in str(w.message)][0])
"""
    assert run(WITHOUT.format(names=('timm',)) + code) == (
        'mmsnnet registers nothing in mmengine: No module named timm'
    )


def test_the_command_of_the_package_runs():
    done = subprocess.run(
        [sys.executable, '-W', 'error::RuntimeWarning', '-m', 'mmsnnet.compat', 'status'],
        env=child_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.strip() and not done.stderr


def test_importing_again_adds_no_second_finder():
    code = """
from mmsnnet.registration import register_in_time
before = list(sys.meta_path)
register_in_time()
assert sys.meta_path == before
"""
    run(code)


def test_what_is_light_is_a_room_or_a_file_of_the_package():
    folder = Path(mmsnnet.__file__).parent
    assert all((folder / name).is_dir() or (folder / f'{name}.py').is_file() for name in LIGHT)
