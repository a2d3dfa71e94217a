"""A stitch on its own, in memory and on the disk, against the stitched model under that stitch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, Runner
from torch import Tensor, nn

from mmsnnet.deploy import extract, load, save_extracted
from mmsnnet.evaluation.cost.model_cost import model_costs
from mmsnnet.models import FixedStitchedViT, find_stitched_backbone
from tests import toy_segmentation
from tests.builders import random_images
from tests.test_deploy.models import (
    CONFIGS,
    SIZE,
    attach_statistics,
    described,
    segmentation_config,
    setr_config,
    trained,
)

#: A stitch of two crossings or one, of each space.
CROSSED = {
    'segmentation': 'S1-L2-S1', 'SETR': 'S1-L2', 'relative bias': 'L2-S1', 'depth': 'L2-S1',
    'detection': 'L2-S1', 'EVA-02': 'L2-S1', 'DINOv3': 'S1-L2', 'registers': 'L2-S1',
    'three anchors': 'M1-S1',
}  # fmt: skip


def outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Logits, depth, or of a detector maps of the neck and all raw outputs of the RPN."""
    if not hasattr(model, 'rpn_head'):
        features = model.backbone(images)
        features = model.neck(features) if model.with_neck else features
        return [model.decode_head(features)]
    maps = model.neck(model.backbone(images))
    scores, boxes = model.rpn_head(maps)
    return [*maps, *scores, *boxes]


def assert_equal_outputs(mine: nn.Module, stitched: nn.Module, stitch: str) -> None:
    """To a relative 1e-5, and to the label."""
    images = random_images(3)
    backbone = find_stitched_backbone(stitched)
    with torch.no_grad(), backbone.use_stitch(stitch):
        for own, theirs in zip(outputs(mine, images), outputs(stitched, images), strict=True):
            assert (own - theirs).abs().max() <= 1e-5 * theirs.abs().max()
            assert torch.equal(own.argmax(1), theirs.argmax(1))


@pytest.fixture(scope='module')
def segmentor() -> tuple[nn.Module, Config]:
    config = segmentation_config()
    return trained(config), config


def saved(folder: Path, model: nn.Module, config: Config, stitch: str, **how: str) -> Path:
    extracted, fixed = extract(model, config, stitch)
    return save_extracted(folder, extracted, fixed, described(model, [stitch]), **how)


@pytest.mark.parametrize('kind', CONFIGS)
def test_what_is_loaded_from_the_folder_is_the_stitch(kind: str, tmp_path: Path) -> None:
    config = CONFIGS[kind]()
    model, stitch = trained(config), CROSSED[kind]
    loaded = load(saved(tmp_path / 'out', model, config, stitch))
    assert isinstance(loaded.backbone, FixedStitchedViT) and not loaded.training
    assert_equal_outputs(loaded, model, stitch)


@pytest.mark.parametrize('stitch', toy_segmentation.NAMES)
def test_every_stitch_is_taken_out(segmentor: tuple, stitch: str) -> None:
    model, config = segmentor
    assert_equal_outputs(extract(model, config, stitch)[0], model, stitch)


@pytest.mark.parametrize('kind', [kind for kind in CONFIGS if kind != 'detection'])
def test_the_parameters_are_those_that_the_costs_count(kind: str) -> None:
    config = CONFIGS[kind]()
    model = trained(config)
    costs = model_costs(model, SIZE)
    for stitch in find_stitched_backbone(model).space.names:
        extracted = extract(model, config, stitch)[0]
        assert sum(one.numel() for one in extracted.parameters()) == costs[stitch].params


def test_parameters_of_a_detector_differ_by_tokens_that_windows_leave_unused() -> None:
    config = CONFIGS['detection']()
    model = trained(config)
    extracted = extract(model, config, 'S2')[0]
    tokens = (anchor.vit.cls_token for anchor in extracted.backbone.anchors.values())
    unused = sum(2 * token.numel() for token in tokens)  # and its place in the position embedding
    found = sum(one.numel() for one in extracted.parameters())
    assert found - unused == model_costs(model, SIZE)['S2'].params


def test_the_file_holds_the_tensors_of_the_stitch_and_little_else(
    segmentor: tuple, tmp_path: Path
) -> None:
    folder = saved(tmp_path / 'out', *segmentor, 'S3')
    tensors = sum(one.nbytes for one in load(folder).state_dict().values())
    assert (folder / 'model.safetensors').stat().st_size <= 1.02 * tensors + 65536
    assert tensors < 0.5 * sum(one.nbytes for one in segmentor[0].state_dict().values())


def test_head_statistics_of_the_stitch_become_those_of_its_norms(tmp_path: Path) -> None:
    config = segmentation_config()
    model = trained(config)
    common = load(saved(tmp_path / 'common', model, config, 'L4-S1'))
    statistics = attach_statistics(model)
    loaded = load(saved(tmp_path / 'own', model, config, 'L4-S1'))
    assert_equal_outputs(loaded, model, 'L4-S1')
    name, (means, _) = next(iter(statistics.tables.items()))
    row = means[statistics.names.index('L4-S1')]
    assert torch.equal(loaded.get_submodule(name).running_mean, row)
    assert not torch.equal(common.get_submodule(name).running_mean, row)


def test_the_model_that_it_comes_from_stays_as_it_was(segmentor: tuple) -> None:
    model, config = segmentor
    before, text = {k: v.clone() for k, v in model.state_dict().items()}, config.pretty_text
    extract(model, config, 'S2-L2')
    assert config.pretty_text == text
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize('weights', ['safetensors', 'mmengine'])
def test_mmseg_loads_it_by_its_own_function(
    segmentor: tuple, tmp_path: Path, weights: str
) -> None:
    from mmseg.apis import init_model

    folder = saved(tmp_path / 'out', *segmentor, 'S1-L4', weights=weights)
    file = next(folder.glob('model.*'))
    loaded = init_model(str(folder / 'config.py'), str(file), device='cpu')
    assert_equal_outputs(loaded, segmentor[0], 'S1-L4')
    assert tuple(loaded.dataset_meta['classes']) == toy_segmentation.CLASSES
    assert [list(one) for one in loaded.dataset_meta['palette']][1] == [7, 9, 11]


def test_the_test_of_mmseg_scores_it_as_the_stitched_model(tmp_path: Path) -> None:
    root = toy_segmentation.write_images(tmp_path / 'data', train=1, val=3)
    config = toy_segmentation.toy_config(root, tmp_path / 'stitched')
    model = trained(config)
    folder = saved(tmp_path / 'out', model, config, 'S2-L2')
    fixed = Config.fromfile(folder / 'config.py')
    fixed.merge_from_dict(
        dict(load_from=str(folder / 'model.safetensors'), work_dir=str(tmp_path / 'fixed'))
    )
    found = Runner.from_cfg(fixed).test()
    loop = dict(_delete_=True, type='TestLoop')
    runner = toy_segmentation.toy_runner(root, tmp_path / 'other', test_cfg=loop)
    runner.model.load_state_dict(model.state_dict())
    find_stitched_backbone(runner.model).set_stitch('S2-L2')
    assert found['mIoU'] == runner.test()['mIoU']


LAZY = """
from mmengine.config import read_base  # noqa: F401
from mmseg.models import EncoderDecoder, SegDataPreProcessor, SETRUPHead
from torch.nn import SyncBatchNorm
from mmsnnet.models import StitchedViT

model = dict(
    type=EncoderDecoder, data_preprocessor=dict(type=SegDataPreProcessor, size=(64, 64)),
    backbone={backbone}, decode_head={head}, train_cfg=dict(), test_cfg=dict(mode='whole'))
default_scope = 'mmseg'
"""


def test_a_config_in_pure_python_is_written_with_names(tmp_path: Path) -> None:
    plain = setr_config()
    backbone, head = dict(plain.model.backbone), dict(plain.model.decode_head)
    text = LAZY.format(backbone=repr(backbone).replace("'StitchedViT'", 'StitchedViT'),
                       head=repr(head).replace("'SETRUPHead'", 'SETRUPHead'))
    (tmp_path / 'lazy.py').write_text(text.replace('ConfigDict(', 'dict('))
    config = Config.fromfile(tmp_path / 'lazy.py', lazy_import=True)
    model = trained(config)
    assert_equal_outputs(load(saved(tmp_path / 'out', model, config, 'S1-L2')), model, 'S1-L2')


def test_an_unknown_stitch_is_refused(segmentor: tuple) -> None:
    with pytest.raises(ValueError, match='S9-L9'):
        extract(*segmentor, 'S9-L9')


def test_stitch_layers_that_were_never_fitted_are_refused() -> None:
    config = setr_config()
    model = trained(config, fitted=False)
    with pytest.raises(ValueError, match='fit'):
        extract(model, config, 'S1-L2')
    assert isinstance(extract(model, config, 'L4')[0].backbone, FixedStitchedViT)


def test_a_folder_that_exists_is_kept_unless_it_is_to_be_replaced(
    segmentor: tuple, tmp_path: Path
) -> None:
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine.txt').write_text('kept')
    with pytest.raises(FileExistsError, match='--overwrite'):
        saved(tmp_path / 'out', *segmentor, 'S3')
    assert (tmp_path / 'out' / 'mine.txt').read_text() == 'kept'
    saved(tmp_path / 'out', *segmentor, 'S3', overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ['out']
    assert not (tmp_path / 'out' / 'mine.txt').exists()


def test_a_check_that_fails_leaves_nothing(segmentor: tuple, tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        assert (folder / 'model.safetensors').is_file()
        raise ValueError('not equal')

    with pytest.raises(ValueError, match='not equal'):
        saved(tmp_path / 'out', *segmentor, 'S3', check=fail)
    assert not list(tmp_path.iterdir())


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize('name', ['model.safetensors', 'stitch.json'])
def test_a_damaged_file_is_named(segmentor: tuple, tmp_path: Path, name: str) -> None:
    damage(saved(tmp_path / 'out', *segmentor, 'S3') / name)
    with pytest.raises(ValueError, match=name.replace('.', r'\.')) as caught:
        load(tmp_path / 'out')
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', ['model.safetensors', 'stitch.json', 'config.py'])
def test_a_missing_file_is_named(segmentor: tuple, tmp_path: Path, name: str) -> None:
    (saved(tmp_path / 'out', *segmentor, 'S3') / name).unlink()
    with pytest.raises(FileNotFoundError, match=name.replace('.', r'\.')):
        load(tmp_path / 'out')


def test_weights_of_another_stitch_are_refused(segmentor: tuple, tmp_path: Path) -> None:
    other = saved(tmp_path / 'other', *segmentor, 'L6') / 'model.safetensors'
    other.replace(saved(tmp_path / 'out', *segmentor, 'S3') / 'model.safetensors')
    with pytest.raises(ValueError, match='does not fit the config beside it'):
        load(tmp_path / 'out')


def test_mmengine_names_a_damaged_file_of_safetensors(segmentor: tuple, tmp_path: Path) -> None:
    file = saved(tmp_path / 'out', *segmentor, 'S3') / 'model.safetensors'
    damage(file)
    with pytest.raises(ValueError, match='damaged'):
        CheckpointLoader.load_checkpoint(str(file))


def test_a_file_of_safetensors_of_others_is_loaded_too(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({'weight': torch.ones(2)}, tmp_path / 'x.safetensors')
    found = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.safetensors'))
    assert found['meta'] == {} and torch.equal(found['state_dict']['weight'], torch.ones(2))


def test_neither_format_needs_the_libraries_of_export(segmentor: tuple, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        monkeypatch.setitem(sys.modules, name, None)
    assert load(saved(tmp_path / 'out', *segmentor, 'S3')) is not None
