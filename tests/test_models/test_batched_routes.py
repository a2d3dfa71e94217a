"""Stitches that run in groups against forwards one by one."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from mmsnnet.models.batched_routes import BatchedRoutes
from mmsnnet.models.prefix_cache import PrefixCache
from mmsnnet.stitching import Block
from tests.builders import random_images, tiny_backbone

SHAPE = ((3, 16), (6, 32))


@pytest.fixture(scope='module')
def backbone():
    return tiny_backbone(SHAPE)


@contextmanager
def batch_sizes(backbone):
    """Batch size of each block that runs meanwhile."""
    sizes = []
    blocks = [block for anchor in backbone.anchors.values() for block in anchor.vit.blocks]
    handles = [
        block.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
        for block in blocks
    ]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def one_by_one(backbone, batch, names=None):
    result = {}
    for name in names or backbone.space.names:
        with backbone.use_stitch(name):
            result[name] = [backbone(images) for images in batch]
    return result


@torch.no_grad()
def in_groups(cache, batch):
    with cache.activate():
        return {s.name: [cache.backbone(images) for images in batch] for s in cache.routes()}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, forwards in expected.items():
        for ours, theirs in zip(found[name], forwards):
            flat = [[p for one in f for p in (one if isinstance(one, tuple) else (one,))]
                    for f in (ours, theirs)]  # fmt: skip
            assert len(flat[0]) == len(flat[1])
            for one, other in zip(*flat):
                torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def groups_by_hand(order, program_of, size):
    """Calls of blocks for a batch: each block of a group that no route before has done, once."""
    done, calls = set(), 0
    for first in range(0, len(order), size):
        fresh = {
            program[: n + 1]
            for program in map(program_of, order[first : first + size])
            for n, step in enumerate(program)
            if isinstance(step, Block)
        } - done
        calls += len({beginning[-1] for beginning in fresh})
        done |= fresh
    return calls, len(done)


@pytest.mark.parametrize('size', [1, 2, 5, 100])
def test_features_agree_and_a_block_runs_once_for_a_group(backbone, size):
    batch = [random_images(2, seed=1), random_images(1, 48, 80, seed=2)]
    cache = BatchedRoutes(backbone, backbone.space, batch_routes=size)
    calls, blocks = groups_by_hand(cache.tree.order, backbone.space.program, size)
    with batch_sizes(backbone) as sizes:
        found = in_groups(cache, batch)
    assert_close(found, one_by_one(backbone, batch))
    assert len(sizes) == 2 * calls and sum(sizes) == 3 * blocks
    assert not cache._held.total


@pytest.mark.parametrize(
    ('kind', 'settings'),
    [
        ('mixed rotary', {}),
        ('DINOv3', dict(final_norm=True)),
        ('published', {}),
        ('class token', dict(output_cls_token=True, scheme=dict(max_crossings=3))),
        ('class token', dict(window_size=3)),
        ('no class token', dict(scheme='one_way', lora_rank=0)),
    ],
)
def test_what_blocks_need_besides_tokens_is_that_of_one_forward(kind, settings):
    backbone = tiny_backbone(((2, 32), (4, 48)), kind, **settings)
    batch = [random_images(2, 48, 80)]
    found = in_groups(BatchedRoutes(backbone, backbone.space, batch_routes=6), batch)
    assert_close(found, one_by_one(backbone, batch))


def test_three_anchors_wait_for_each_other_too():
    backbone = tiny_backbone(((2, 16), (4, 32), (6, 48)), scheme=dict(max_crossings=2))
    batch = [random_images(1)]
    cache = BatchedRoutes(backbone, backbone.space, batch_routes=len(backbone.space))
    with batch_sizes(backbone) as sizes:
        found = in_groups(cache, batch)
    assert len(sizes) == 12 and sum(sizes) == cache.tree.num_blocks
    assert_close(found, one_by_one(backbone, batch))


def test_the_order_given_does_not_matter(backbone):
    names, batch = ['S1-L4', 'L6', 'L2-S1-L2', 'S3', 'S2-L2'], [random_images(1)]
    first = in_groups(BatchedRoutes(backbone, names, batch_routes=3), batch)
    second = in_groups(BatchedRoutes(backbone, names[::-1], batch_routes=3), batch)
    assert_close(first, one_by_one(backbone, batch, names))
    assert_close(second, first)


@pytest.mark.parametrize('share', [0, 0.2, 0.6])
def test_memory_is_bounded_by_smaller_groups(backbone, share):
    batch = [random_images(1, seed=seed) for seed in range(3)]
    free = BatchedRoutes(backbone, backbone.space, batch_routes=16)
    with batch_sizes(backbone) as unbounded:
        in_groups(free, batch)
    cache = BatchedRoutes(backbone, backbone.space, share * free.peak_bytes, batch_routes=16)
    most, found = 0, {}
    with torch.no_grad(), cache.activate(), batch_sizes(backbone) as sizes:
        for stitch in cache.routes():
            found[stitch.name] = [backbone(images) for images in batch]
            alive = {
                tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
                for call in cache._calls
                for state, _ in call.states.values()
                for tensor in (state.images, state.tokens, *state.taps.values())
                if tensor is not None
            }
            most = max(most, sum(alive.values()))
            assert cache._held.total == sum(alive.values())
    assert most <= cache.peak_bytes <= share * free.peak_bytes
    assert len(sizes) > len(unbounded)
    assert (max(sizes) > 1) == (share > 0)
    assert_close(found, one_by_one(backbone, batch))


def test_without_a_bound_the_memory_counted_is_that_of_the_group(backbone):
    """15 of 16 stitches wait: two taps of 65 tokens of 32 channels, those of one beginning once."""
    images = random_images(1)
    cache = BatchedRoutes(backbone, backbone.space, batch_routes=16)
    in_groups(cache, [images])
    features = 2 * 65 * 32 * 4
    assert 8 * features < cache.peak_bytes <= images.nbytes + (15 + 3) * features


@torch.no_grad()
def test_inputs_that_differ_from_stitch_to_stitch_are_run_alone(backbone):
    names = backbone.space.names[:6]
    inputs = {name: random_images(1, seed=seed) for seed, name in enumerate(names)}
    cache = BatchedRoutes(backbone, names, batch_routes=6)
    with cache.activate(), batch_sizes(backbone) as sizes:
        found = {s.name: [backbone(inputs[s.name])] for s in cache.routes()}
    expected = {name: one_by_one(backbone, [inputs[name]], [name])[name] for name in names}
    assert_close(found, expected)
    first = cache.tree.order[1:]
    rest = sum(isinstance(step, Block) for n in first for step in backbone.space.program(n))
    assert sizes[-rest:] == [1] * rest  # after the first, which could not know


@torch.no_grad()
def test_an_input_changed_in_place_is_run_anew(backbone):
    cache, images = BatchedRoutes(backbone, ['S3', 'L6'], batch_routes=2), random_images(1)
    with cache.activate():
        for stitch in cache.routes():
            found = backbone(images)
            with backbone.use_stitch(stitch):
                expected = backbone.advance(backbone.begin(images), backbone.space.program(stitch))
            assert torch.allclose(found[-1], backbone.outputs(expected)[-1], atol=1e-4)
            images.add_(1)


def test_gradients_and_training_are_not_batched(backbone):
    cache = BatchedRoutes(backbone, ['S1-L4', 'S2-L2'], batch_routes=2)
    with cache.activate(), batch_sizes(backbone) as sizes:
        for _ in cache.routes():
            assert backbone(random_images(1))[0].requires_grad
    assert sizes == [1] * 9


def test_groups_of_no_stitch_are_refused_in_one_line(backbone):
    with pytest.raises(ValueError, match=r'^batch_routes=0 is not possible: give 1 .* or more\.$'):
        BatchedRoutes(backbone, ['S3'], batch_routes=0)


def test_narrow_and_wide_anchors_agree_with_shared_prefixes():
    backbone = tiny_backbone(((2, 16), (5, 64)))
    batch = [random_images(1)]
    shared = in_groups(PrefixCache(backbone, backbone.space), batch)
    assert_close(in_groups(BatchedRoutes(backbone, backbone.space, batch_routes=7), batch), shared)
