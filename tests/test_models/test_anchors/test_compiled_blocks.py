"""Compiled blocks: how often they are compiled, and that they compute the same."""

from __future__ import annotations

import copy
import pickle
import shutil

import pytest
import torch

from mmsnnet.compat.torch_versions import SHARES_COMPILED_BLOCKS, is_older_than
from mmsnnet.models.anchors.compiled_blocks import TensorDropPath
from mmsnnet.runtime import BudgetController
from tests.builders import random_images, tiny_anchor, tiny_backbone

SHAPE = ((3, 32), (6, 64))
pytestmark = pytest.mark.skipif(
    is_older_than(SHARES_COMPILED_BLOCKS), reason='blocks are compiled with torch 2.5 or newer'
)


@pytest.fixture(autouse=True)
def _forget_what_was_compiled():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Compiler:
    """A backend of torch.compile that runs graphs as they are and counts them."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


def compiled(compiler, **settings):
    options = dict(backend=compiler, fullgraph=True)
    settings.setdefault('shape', SHAPE)
    return tiny_backbone(compile_blocks=options, drop_path_rate=0.2, **settings)


def rotary_anchor(depth, width):
    arguments = dict(patch_size=8, depth=depth, embed_dim=width, num_heads=width // 16)
    return dict(model_name='vit_small_patch16_dinov3', pretrained=False, model_kwargs=arguments)


KINDS = {
    'plain': {},
    'windowed': dict(window_size=3),
    'rotary': dict(anchors=[rotary_anchor(*one) for one in SHAPE]),
}


@pytest.mark.parametrize('kind', KINDS)
def test_every_stitch_computes_what_it_does_without_compiling(kind):
    compiler = Compiler()
    ours = compiled(compiler, **KINDS[kind])
    plain = tiny_backbone(SHAPE, drop_path_rate=0.2, **KINDS[kind])
    plain.load_state_dict(ours.state_dict())
    images = random_images(1)
    for stitch in ours.space:
        with torch.no_grad():
            pairs = zip(ours.run(images, stitch), plain.run(images, stitch))
        assert all(torch.equal(a, b) for a, b in pairs), stitch.name
    assert compiler.graphs > 0


def test_all_blocks_and_routes_of_an_anchor_share_what_is_compiled():
    """One graph an anchor in eval mode, one in train mode, though each block drops otherwise."""
    compiler = Compiler()
    backbone = compiled(compiler)
    images = random_images(2)
    with torch.no_grad():
        for stitch in backbone.space:
            backbone.run(images, stitch)
    assert compiler.graphs == 2
    backbone.train()
    for stitch in backbone.space:
        backbone.set_training_stitch(stitch)
        sum(feature.square().mean() for feature in backbone(images)).backward()
    assert compiler.graphs == 4
    for size in ((96, 64), (64, 128), (72, 48)):
        for stitch in backbone.space:
            backbone.set_training_stitch(stitch)
            backbone(random_images(2, *size))
    assert compiler.graphs == 6, 'one more for images of any size'


def test_a_controller_that_switches_between_frames_compiles_nothing_anew():
    compiler = Compiler()
    backbone, images = compiled(compiler), random_images(1)
    latency = {stitch.name: backbone.costs[stitch.name].flops / 1e6 for stitch in backbone.space}
    with torch.no_grad():
        for stitch in backbone.space.anchor_stitches:  # each anchor's blocks once
            backbone.run(images, stitch)
        graphs, ran = compiler.graphs, set()
        controller = BudgetController(
            backbone, latency=latency, deadline_ms=max(latency.values()) * 1.1, patience=1
        )
        for frame in range(60):
            backbone(images)
            ran.add(backbone.stitch.name)
            controller.observe(latency[controller.stitch] * (1 + 0.1 * (frame % 20)))
    assert len(ran) > 3 and controller.switches > 5
    assert compiler.graphs == graphs == 2


def test_anchors_do_not_use_up_each_others_share_of_recompilation():
    """torch gives up on a function after 8 graphs: 5 anchors alike in one would have 10."""
    compiler = Compiler()
    anchors = [tiny_anchor(1, 16 * width) for width in range(1, 6)]
    backbone = compiled(compiler, anchors=anchors, out_indices=(0,))
    images = random_images(2)
    for mode in (False, True):
        for stitch in backbone.space.anchor_stitches:
            backbone.train(mode).set_training_stitch(stitch)
            backbone.set_stitch(stitch)
            backbone(images)
    assert compiler.graphs == 2 * 5


def test_gradients_are_those_without_compiling():
    ours = compiled(Compiler()).train()
    plain = tiny_backbone(SHAPE).train()
    for module in ours.modules():
        if isinstance(module, TensorDropPath):
            module.keep_prob.fill_(1.0)
    plain.load_state_dict(ours.state_dict())
    for block in plain.modules():
        for name in ('drop_path1', 'drop_path2'):
            if hasattr(block, name):
                setattr(block, name, torch.nn.Identity())
    for backbone in (ours, plain):
        backbone.set_training_stitch('L2-S1-L2')
        sum(feature.square().mean() for feature in backbone(random_images(2))).backward()
    one, two = dict(ours.named_parameters()), dict(plain.named_parameters())
    assert {n for n in one if one[n].grad is not None} == {
        n for n in two if two[n].grad is not None
    }
    assert all(torch.equal(one[n].grad, two[n].grad) for n in one if one[n].grad is not None)


def test_recomputing_blocks_in_the_backward_pass_draws_the_same_paths():
    grads = []
    for with_cp in (False, True):
        backbone = compiled(Compiler(), with_cp=with_cp).train()
        backbone.set_training_stitch('S1-L4')
        torch.manual_seed(3)
        sum(feature.square().mean() for feature in backbone(random_images(4))).backward()
        grads.append({n: p.grad for n, p in backbone.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


def test_state_dicts_are_those_without_compiling():
    ours, plain = compiled(Compiler()), tiny_backbone(SHAPE, drop_path_rate=0.2)
    assert list(ours.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in plain.named_parameters()]


def test_copies_are_not_compiled_and_have_weights_of_their_own():
    """EMA copies the model: a compiled call must not lead back to the weights of the original."""
    compiler = Compiler()
    backbone = compiled(compiler)
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.zero_()
        maps = twin(random_images(1))
    assert all(feature.abs().max() > 0 for feature in maps)
    assert compiler.graphs == 0
    assert b'Compiler' not in pickle.dumps(backbone.anchors['S'].vit.blocks[0])


def test_paths_are_dropped_as_often_as_the_rate_says_and_scaled_up():
    module = TensorDropPath(0.3).train()
    ones = torch.ones(20_000, 2, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = module(ones)
    assert torch.equal(out, out[:, :1, :1].expand_as(out)), 'whole samples'
    assert sorted(out.unique().tolist()) == pytest.approx([0.0, 1 / 0.7])
    assert (out[:, 0, 0] == 0).float().mean() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(module.eval()(ones), ones)
    assert not TensorDropPath(1.0).train()(ones).any(), 'and no NaN'


def test_the_rates_are_those_of_the_blocks():
    backbone = compiled(Compiler())
    plain = tiny_backbone(SHAPE, drop_path_rate=0.2)
    for label, anchor in backbone.anchors.items():
        rates = [1 - block.drop_path1.keep_prob.item() for block in anchor.vit.blocks]
        blocks = plain.anchors[label].vit.blocks
        assert rates == pytest.approx([getattr(b.drop_path1, 'drop_prob', 0) for b in blocks])


def test_other_values_are_refused():
    with pytest.raises(TypeError, match=r"compile_blocks='inductor' must be True, False or a dict"):
        tiny_backbone(SHAPE, compile_blocks='inductor')


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='torch compiles for CPU with g++')
def test_torch_compiles_it_by_default():
    ours, plain = tiny_backbone(SHAPE, compile_blocks=True), tiny_backbone(SHAPE)
    plain.load_state_dict(ours.state_dict())
    images = random_images(2)
    with torch.no_grad():
        for name in ('S3', 'L6', 'S1-L4', 'L2-S2'):
            for a, b in zip(ours.run(images, name), plain.run(images, name)):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    ours.train()
    ours.set_training_stitch('L2-S2')
    sum(feature.square().mean() for feature in ours(images)).backward()
    assert ours.anchors['S'].vit.blocks[2].mlp.fc1.weight.grad.abs().max() > 0


@pytest.mark.parametrize('kind', KINDS)
def test_forward_hooks_of_blocks_are_called_and_may_change_what_passes(kind):
    compiler = Compiler()
    ours, plain = compiled(compiler, **KINDS[kind]), tiny_backbone(SHAPE, **KINDS[kind])
    plain.load_state_dict(ours.state_dict())
    images, results = random_images(1), []
    with torch.no_grad():
        ours.run(images, 'L6')  # compiled before there are hooks
        graphs = compiler.graphs
        for backbone in (ours, plain):
            seen, blocks = [], backbone.anchors['L'].vit.blocks
            parts = [b.attn for b in blocks] if kind == 'windowed' else blocks
            handles = [
                parts[1].register_forward_hook(
                    lambda m, i, o, s=seen: s.append(('post', m)) or 2 * o
                ),
                parts[2].register_forward_pre_hook(lambda m, i, s=seen: s.append(('pre', m))),
                parts[3].register_forward_hook(
                    lambda m, i, k, o, s=seen: s.append(('with kwargs', m)), with_kwargs=True
                ),
            ]
            results.append(backbone.run(images, 'L6'))
            assert seen == [('post', parts[1]), ('pre', parts[2]), ('with kwargs', parts[3])]
            for handle in handles:
                handle.remove()
            assert not any('forward' in vars(part) for part in parts)
            backbone.run(images, 'L6')
            assert len(seen) == 3
    assert all(torch.equal(a, b) for a, b in zip(*results))
    assert compiler.graphs == graphs, 'hooks run outside of what is compiled'


def test_backward_hooks_of_blocks_are_called():
    backbone, seen = compiled(Compiler()).train(), []
    backbone.anchors['L'].vit.blocks[2].register_full_backward_hook(lambda *args: seen.append(1))
    backbone.set_training_stitch('L6')
    sum(feature.square().mean() for feature in backbone(random_images(1))).backward()
    assert seen == [1]


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        (dict(mode='reduce-overhead'), "mode='reduce-overhead'"),
        (dict(mode='max-autotune'), "mode='max-autotune'"),
        (dict(options={'triton.cudagraphs': True}), r"options={'triton.cudagraphs': True}"),
        (dict(backend='cudagraphs'), "backend='cudagraphs'"),
    ],
)
def test_cuda_graphs_are_refused(options, named):
    with pytest.raises(ValueError, match=f'compile_blocks cannot take {named}: its CUDA graphs'):
        tiny_backbone(SHAPE, compile_blocks=options)


@pytest.mark.parametrize(
    'options',
    [dict(mode='max-autotune-no-cudagraphs'), dict(options={'triton.cudagraphs': False}), {}],
)
def test_other_modes_are_accepted(options):
    tiny_backbone(SHAPE, compile_blocks=options)
