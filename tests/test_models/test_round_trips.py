"""A backbone that was copied, pickled, compiled or cast is still the same backbone."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from mmsnnet.models import StitchedViT
from mmsnnet.models.anchors.compiled_blocks import TensorDropPath
from tests.builders import random_images, tiny_anchor, tiny_backbone

SMALL = ((2, 48), (4, 96))


def stored(backbone: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(backbone, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    'copy.deepcopy': copy.deepcopy,
    'pickle': lambda backbone: pickle.loads(pickle.dumps(backbone)),
    'torch.save': stored,
}


@pytest.mark.parametrize('how', COPIES)
@pytest.mark.parametrize('kind', ['class token', 'DINOv3', 'BEiT'])
def test_a_copy_runs_the_same_stitch_and_goes_its_own_way(how, kind):
    backbone, images = tiny_backbone(SMALL, kind), random_images(1)
    backbone.set_stitch('S1-L2')
    maps = backbone(images)
    twin = COPIES[how](backbone)
    assert twin.stitch.name == 'S1-L2' and twin.is_fitted
    assert torch.equal(twin(images)[1], maps[1])
    assert twin.costs.flops == backbone.costs.flops
    twin.set_stitch('S2')
    with torch.no_grad():
        next(twin.parameters()).add_(1.0)
    assert backbone.stitch.name == 'S1-L2' and torch.equal(backbone(images)[1], maps[1])


@pytest.mark.parametrize('how', COPIES)
def test_a_copy_made_in_training_samples_on_as_the_backbone_does(how):
    backbone, images = tiny_backbone(SMALL, drop_path_rate=0.0).train(), random_images(1)
    for _ in range(3):
        backbone(images)[0].mean().backward()
    twin = COPIES[how](backbone)
    for _ in range(4):
        ours, theirs = backbone(images), twin(images)
        assert twin.last_stitch == backbone.last_stitch
        assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize('how', COPIES)
def test_a_copy_made_between_fits_adds_up_as_the_backbone_does(how):
    backbone = tiny_backbone(SMALL, fitted=False)
    backbone.fit_stitches(random_images(2, seed=1))
    twin = COPIES[how](backbone)
    ours = backbone.fit_stitches(random_images(2, seed=2))
    assert twin.fit_stitches(random_images(2, seed=2)) == ours


class Counting:
    """A backend of torch.compile that runs graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: nn.Module, _: object) -> nn.Module:
        self.graphs += 1
        return graph


@pytest.fixture
def backend():
    torch.compiler.reset()
    yield Counting()
    torch.compiler.reset()


def test_a_compiled_backbone_follows_set_stitch(backend):
    backbone, images = tiny_backbone(SMALL), random_images(1)
    compiled = torch.compile(backbone, backend=backend, fullgraph=True)
    for name in ('S2', 'L4', 'S1-L2', 'S2'):
        backbone.set_stitch(name)
        assert torch.allclose(compiled(images)[1], backbone.run(images, name)[1], atol=1e-5)
    assert backend.graphs == 3  # one a stitch


def test_a_compiled_backbone_samples_in_training(backend):
    backbone = tiny_backbone(SMALL, drop_path_rate=0.0).train()
    compiled, images, ran = torch.compile(backbone, backend=backend), random_images(1), set()
    for step in range(6):
        maps = compiled(images)
        assert int(backbone.training_steps) == step + 1
        expected = backbone.run(images, backbone.last_stitch)
        assert torch.allclose(maps[1], expected[1], atol=1e-5)
        maps[0].mean().backward()
        ran.add(backbone.last_stitch.name)
    assert len(ran) > 1 and backend.graphs > 0


def test_a_compiled_backbone_saves_a_folder_that_is_not_compiled(backend, tmp_path):
    backbone, images = tiny_backbone(SMALL, stitch='S1-L2'), random_images(1)
    compiled = torch.compile(backbone, backend=backend)
    compiled(images)
    compiled.save_pretrained(tmp_path)
    again = StitchedViT.from_pretrained(tmp_path)
    assert again.state_dict().keys() == backbone.state_dict().keys()
    assert torch.equal(again(images)[1], backbone.run(images, 'S1-L2')[1])


#: Largest difference over the largest feature: some roundings of 5e-4 and of 4e-3.
ROUNDING = {torch.float16: 5e-3, torch.bfloat16: 4e-2}


@pytest.mark.parametrize('precision', ROUNDING)
@pytest.mark.parametrize('kind', ['class token', 'DINOv3', 'BEiT'])
def test_half_precision_rounds_and_changes_no_more(precision, kind):
    backbone, images = tiny_backbone(SMALL, kind), random_images(1)
    exact = backbone.run(images, 'S1-L2')[1]
    half = copy.deepcopy(backbone).to(precision)
    half.set_stitch('S1-L2')
    rounded = half(images.to(precision))[1]
    assert rounded.dtype is precision
    assert (rounded.float() - exact).abs().max() < ROUNDING[precision] * exact.abs().max()
    half.train()(images.to(precision))[1].float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in half.parameters() if p.grad is not None)


@pytest.mark.parametrize('precision', [*ROUNDING, torch.float64])
def test_the_fit_takes_the_precision_of_the_weights(precision):
    backbone, images = tiny_backbone(SMALL, fitted=False), random_images(4)
    other = copy.deepcopy(backbone).to(precision)
    exact, found = backbone.fit_stitches(images), other.fit_stitches(images)
    assert found.keys() == exact.keys()
    assert all(abs(found[name] - exact[name]) < 0.01 for name in exact)
    assert {one.dtype for one in other.stitch_layers.parameters()} == {precision}


@pytest.mark.parametrize('precision', [torch.float16, torch.bfloat16, torch.float64])
def test_a_folder_gives_back_the_precision_it_was_saved_in(tmp_path, precision):
    backbone = tiny_backbone(SMALL, 'DINOv3', stitch='S1-L2').to(precision)
    backbone.save_pretrained(tmp_path)
    again, images = StitchedViT.from_pretrained(tmp_path), random_images(1).to(precision)
    assert again.dtype is precision
    assert torch.equal(again(images)[1], backbone(images)[1])


def test_rates_of_compiled_blocks_can_be_set_anew_after_a_build_without_memory():
    settings = dict(img_size=64, out_indices=(1,), drop_path_rate=0.3, compile_blocks=True)
    with torch.device('meta'):
        backbone = StitchedViT([tiny_anchor(2, 48), tiny_anchor(2, 96)], **settings)
    backbone.to_empty(device='cpu')
    paths = [one for one in backbone.modules() if isinstance(one, TensorDropPath)]
    for path in paths:
        path.keep_prob.fill_(torch.nan)
        path.init_non_persistent_buffers()
    assert [path.keep_prob.item() for path in paths] == pytest.approx([1.0, 1.0, 0.7, 0.7] * 2)
