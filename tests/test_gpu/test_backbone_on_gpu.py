"""The backbone on CUDA against the CPU: values, gradients, fit, types under autocast, compiling."""

from __future__ import annotations

import copy

import pytest
import torch

from mmsnnet.evaluation.latency.measure import LatencyMeasurement, clock_of
from mmsnnet.models.prefix_cache import PrefixCache
from tests.builders import ALL_KINDS, random_images, tiny_backbone

pytestmark = pytest.mark.gpu
DEVICE = 'cuda'


@pytest.fixture(autouse=True)
def full_precision():
    """Products of float32 without TF32, whose errors would hide others."""
    places = torch.backends.cuda.matmul, torch.backends.cudnn
    former = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = False
    yield
    for place, value in zip(places, former):
        place.allow_tf32 = value


def one_of_each_family(backbone):
    return [stitches[0].name for stitches in backbone.space.families.values()]


def assert_close(found, expected, tolerance=1e-3):
    assert {item.device.type for item in found} == {DEVICE}
    for one, other in zip(found, expected):
        scale = float(other.detach().abs().max())
        error = float((one.detach().cpu().float() - other.detach()).abs().max())
        assert error <= tolerance * scale


@pytest.mark.parametrize('kind', ALL_KINDS)
def test_every_family_gives_the_values_of_the_cpu(kind):
    backbone = tiny_backbone(kind=kind)
    on_gpu = copy.deepcopy(backbone).to(DEVICE)
    for size in ((64, 64), (48, 72)):
        images = random_images(2, *size)
        for stitch in one_of_each_family(backbone):
            with torch.no_grad():
                assert_close(on_gpu.run(images.to(DEVICE), stitch), backbone.run(images, stitch))


@pytest.mark.parametrize('settings', [dict(), dict(with_cp=True)], ids=str)
def test_gradients_are_those_of_the_cpu(settings):
    backbone = tiny_backbone(drop_path_rate=0.0, **settings).train()
    on_gpu = copy.deepcopy(backbone).to(DEVICE)
    images = random_images()
    for stitch in one_of_each_family(backbone):
        for model, inputs in ((backbone, images), (on_gpu, images.to(DEVICE))):
            model.zero_grad(set_to_none=True)
            sum(item.square().mean() for item in model.run(inputs, stitch)).backward()
        expected = {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}
        found = {n: p.grad for n, p in on_gpu.named_parameters() if p.grad is not None}
        assert found.keys() == expected.keys()
        assert_close(found.values(), expected.values(), 1e-2)


@pytest.mark.parametrize('precision', [torch.float16, torch.bfloat16], ids=str)
def test_autocast_lowers_products_and_leaves_the_types_of_the_cpu(precision):
    backbone = tiny_backbone()
    on_gpu = copy.deepcopy(backbone).to(DEVICE)
    images = random_images()
    types = []
    on_gpu.anchor(1).vit.blocks[0].attn.qkv.register_forward_hook(
        lambda *call: types.append(call[2].dtype)
    )
    for stitch in one_of_each_family(backbone):
        with torch.no_grad():
            expected = backbone.run(images, stitch)
            with torch.autocast('cpu', torch.bfloat16):
                on_cpu = backbone.run(images, stitch)
            with torch.autocast(DEVICE, precision):
                found = on_gpu.run(images.to(DEVICE), stitch)
        assert [item.dtype for item in found] == [item.dtype for item in on_cpu]
        assert_close(found, expected, 0.1)
    assert set(types) == {precision}


def test_the_fit_is_that_of_the_cpu():
    backbone = tiny_backbone(fitted=False)
    on_gpu = copy.deepcopy(backbone).to(DEVICE)
    batches = [random_images(8, seed=seed) for seed in range(3)]
    backbone.fit_stitches(batches)
    on_gpu.fit_stitches([batch.to(DEVICE) for batch in batches])
    assert on_gpu.is_fitted and on_gpu.stitches_fitted.device.type == DEVICE
    images = random_images(seed=9)
    for stitch in one_of_each_family(backbone):
        with torch.no_grad():
            assert_close(
                on_gpu.run(images.to(DEVICE), stitch), backbone.run(images, stitch), 2e-2
            )


def test_shared_beginnings_give_the_same_bits():
    backbone = tiny_backbone().to(DEVICE)
    images = random_images().to(DEVICE)
    cache = PrefixCache(backbone, backbone.space.names)
    with torch.no_grad(), cache.activate():
        for stitch in cache.routes():
            shared = backbone(images)
            alone = backbone.advance(backbone.begin(images), backbone.space.program(stitch))
            assert all(torch.equal(a, b) for a, b in zip(shared, backbone.outputs(alone)))


def test_compiled_blocks_give_the_values_of_eager_ones_in_both_modes():
    eager = tiny_backbone(drop_path_rate=0.0).to(DEVICE)
    compiled = tiny_backbone(drop_path_rate=0.0, compile_blocks=True).to(DEVICE)
    compiled.load_state_dict(eager.state_dict())
    images = random_images().to(DEVICE)
    for training in (False, True):
        for stitch in one_of_each_family(eager):
            outputs = [m.train(training).run(images, stitch) for m in (compiled, eager)]
            assert_close(outputs[0], [item.cpu() for item in outputs[1]])


def test_latency_is_that_of_the_device_and_composes():
    """A clock that did not wait for the GPU would find all stitches equally fast."""
    backbone = tiny_backbone(((6, 192), (12, 768)), img_size=128).to(DEVICE)
    images = random_images(16, 128).to(DEVICE)

    def infer():
        with torch.no_grad():
            return backbone(images)

    clock = clock_of(images.device)
    measurement = LatencyMeasurement(backbone, infer, clock, [backbone.space['L12']])
    latency = measurement.run_until_reliable(rounds=5)
    medians = {name: sorted(values)[2] for name, values in latency.composed.items()}
    assert medians['L12'] > 2 * medians['S6'] > 0
    assert latency.errors()['L12'] < 0.25
