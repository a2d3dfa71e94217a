"""What importing the package imports, and what it does without."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mmsnnet
from tests.toy_segmentation import child_environment

#: Nothing of these may be imported, or need be installed, for the backbone.
OTHERS = ('fvcore', 'matplotlib', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg', 'pandas', 'rich')
WITHOUT = f"""
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {OTHERS[:-2]}:
            raise ModuleNotFoundError('No module named ' + name, name=name)

sys.meta_path.insert(0, Absent())
"""
BUILD = """
import torch
from mmengine.registry import MODELS
from mmsnnet import StitchedViT
vit = dict(model_name='deit_tiny_patch16_224', pretrained=False)
anchors = [
    dict(model_kwargs=dict(depth=2, embed_dim=24, num_heads=3), **vit),
    dict(model_kwargs=dict(depth=4, embed_dim=48, num_heads=3), **vit),
]
config = dict(type='StitchedViT', anchors=anchors, img_size=32, out_indices=(1, 3))
backbone = MODELS.build(config).eval()
assert type(backbone) is StitchedViT
sys.stdout.write(str([tuple(map.shape) for map in backbone(torch.zeros(1, 3, 32, 32))]))
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', 'import sys\n' + code],
        env=child_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_nothing_that_only_some_of_it_needs():
    code = f'import mmsnnet\nsys.stdout.write(str([m for m in {OTHERS} if m in sys.modules]))'
    # mmengine's logger imports rich where it is installed.
    assert run(code) in ('[]', "['rich']")


def test_the_backbone_works_with_torch_timm_and_mmengine_alone():
    assert run(WITHOUT + BUILD) == '[(1, 48, 2, 2), (1, 48, 2, 2)]'


@pytest.mark.parametrize('name', ['ColorAug', 'NYUCrop'])
def test_a_transform_says_that_it_needs_mmcv(name):
    code = f"""
import mmsnnet
from mmengine.registry import TRANSFORMS
try:
    TRANSFORMS.build(dict(type='{name}'))
except ImportError as error:
    sys.stdout.write(str(error))
"""
    assert 'extends a transform of mmcv, which is not installed' in run(WITHOUT + code)


@pytest.mark.parametrize('name', sorted(set(mmsnnet.__all__) | set(mmsnnet._LAZY)))
def test_every_name_that_the_package_offers_is_there(name):
    assert getattr(mmsnnet, name) is not None
    assert name in dir(mmsnnet)


def test_a_lazy_name_is_the_object_of_its_module():
    from mmsnnet.apis import init_model
    from mmsnnet.models import StitchedViT

    assert mmsnnet.init_model is init_model
    assert mmsnnet.StitchedViT is StitchedViT


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'StitchedVit'"):
        _ = mmsnnet.StitchedVit


def test_the_transforms_are_classes_for_pure_python_configs():
    from mmcv.transforms import BaseTransform

    from mmsnnet.datasets.transforms import ColorAug, NYUCrop

    assert issubclass(ColorAug, BaseTransform) and issubclass(NYUCrop, BaseTransform)
