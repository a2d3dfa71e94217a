"""What configs of mmseg and mmdet find without a prefix."""

from __future__ import annotations

import logging

import pytest
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope, init_default_scope

import mmsnnet.registry
from mmsnnet.models import StitchedViT
from mmsnnet.registry import STITCH_SAMPLERS
from mmsnnet.stitching import AnchorSpec, CostTable, StitchSpace
from tests.builders import tiny_anchor
from tests.toy_segmentation import run_python


@pytest.fixture
def space() -> StitchSpace:
    anchors = [AnchorSpec.plain_vit(3, 48), AnchorSpec.plain_vit(6, 96)]
    return StitchSpace(anchors, taps=(5,))


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet', 'mmengine'])
@pytest.mark.parametrize('name', ['StitchedViT', 'StitchedViTBackbone'])
def test_the_backbone_is_found_from_every_scope(scope, name):
    if scope != 'mmengine':
        pytest.importorskip(scope)
    with DefaultScope.overwrite_default_scope(scope):
        init_default_scope(scope)
        config = dict(type=name, anchors=[tiny_anchor(1, 32)], img_size=64, out_indices=(0,))
        assert isinstance(MODELS.build(config), StitchedViT)


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet', 'mmengine', 'mmsnnet'])
def test_the_backbone_is_found_with_the_prefix_from_every_scope(scope):
    with DefaultScope.overwrite_default_scope(scope):
        assert MODELS.get('mmsnnet.StitchedViT') is StitchedViT
        config = dict(
            type='mmsnnet.StitchedViT',
            anchors=[tiny_anchor(1, 32)], img_size=64, out_indices=(0,),
        )  # fmt: skip
        assert isinstance(MODELS.build(config), StitchedViT)


@pytest.mark.parametrize(
    ('registry', 'name'),
    [
        ('HOOKS', 'StitchInitHook'),
        ('HOOKS', 'StitchSamplingHook'),
        ('LOOPS', 'StitchValLoop'),
        ('LOOPS', 'StitchTestLoop'),
        ('MODEL_WRAPPERS', 'StitchDistributedDataParallel'),
        ('MODELS', 'SigLoss'),
        ('OPTIM_WRAPPER_CONSTRUCTORS', 'StitchLayerDecayOptimWrapperConstructor'),
        ('PARAM_SCHEDULERS', 'GroupOneCycleLR'),
        ('TRANSFORMS', 'NYUCrop'),
    ],
)
@pytest.mark.parametrize('host', ['mmengine', 'mmseg', 'mmdet'])
def test_every_kind_is_found_with_the_prefix_by_the_registries_of_every_host(host, registry, name):
    registries = pytest.importorskip(f'{host}.registry')
    found = getattr(registries, registry).get(f'mmsnnet.{name}')
    assert found is not None and found is getattr(mmsnnet.registry, registry).get(name)


def test_an_unknown_type_with_the_prefix_is_refused():
    with pytest.raises((KeyError, RuntimeError), match=r'mmsnnet\.NoSuchViT'):
        MODELS.build(dict(type='mmsnnet.NoSuchViT'))


def test_the_prefix_imports_the_package_by_itself():
    code = (
        'import sys\n'
        'from mmengine.registry import MODELS\n'
        "sys.stdout.write(MODELS.get('mmsnnet.StitchedViT').__name__)\n"
    )
    assert run_python('-c', code).stdout == 'StitchedViT'


def test_samplers_take_the_prefix_too(space):
    sampler = STITCH_SAMPLERS.build(
        dict(type='mmsnnet.FixedStitchSampler', stitch='S1-L4'),
        default_args=dict(space=space, flops=CostTable(space, 64).flops),
    )
    assert sampler.sample(0).name == 'S1-L4'


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet'])
def test_the_backbone_is_found_by_the_registry_of_the_scope_itself(scope):
    registry = pytest.importorskip(f'{scope}.registry').MODELS
    config = dict(type='StitchedViT', anchors=[tiny_anchor(1, 32)], img_size=64, out_indices=(0,))
    assert isinstance(registry.build(config), StitchedViT)


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet', 'mmengine'])
def test_samplers_are_built_in_every_scope_without_a_word_in_the_log(scope, space):
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        with DefaultScope.overwrite_default_scope(scope):
            init_default_scope(scope)
            sampler = STITCH_SAMPLERS.build(
                dict(type='FixedStitchSampler', stitch='S1-L4'),
                default_args=dict(space=space, flops=CostTable(space, 64).flops),
            )
    finally:
        logger.removeHandler(handler)
    assert sampler.sample(0).name == 'S1-L4'
    assert [record.getMessage() for record in records if record.levelno >= 30] == []


def test_all_samplers_are_registered():
    assert sorted(STITCH_SAMPLERS.module_dict) == [
        'CostBinStitchSampler',
        'FixedStitchSampler',
        'SandwichStitchSampler',
        'UniformStitchSampler',
    ]


def test_an_unknown_sampler_is_refused_with_those_there_are(space):
    message = "'RandomSampler' is not a registered stitch sampler; there are CostBinStitchSampler"
    with pytest.raises(KeyError, match=message):
        STITCH_SAMPLERS.build(dict(type='RandomSampler'), default_args=dict(space=space, flops={}))


@pytest.mark.parametrize('config', [{}, dict(seed=3), dict(type=None)])
def test_a_sampler_without_a_type_is_refused(config):
    with pytest.raises(TypeError, match='needs type'):
        STITCH_SAMPLERS.build(config)


def test_the_config_goes_before_the_default_arguments_and_is_left_as_it_is(space):
    config = dict(type='UniformStitchSampler', seed=5)
    defaults = dict(space=space, flops=CostTable(space, 64).flops, seed=1)
    assert STITCH_SAMPLERS.build(config, default_args=defaults).seed == 5
    assert config == dict(type='UniformStitchSampler', seed=5) and defaults['seed'] == 1


def test_the_registries_offered_are_the_roots_of_mmengine():
    from mmengine import registry as roots

    for name in ('HOOKS', 'LOOPS', 'MODELS', 'OPTIM_WRAPPER_CONSTRUCTORS'):
        assert getattr(mmsnnet.registry, name) is getattr(roots, name)
