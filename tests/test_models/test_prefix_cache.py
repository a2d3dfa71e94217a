"""Shared prefixes against forwards that know nothing of them."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from mmsnnet.models.prefix_cache import PrefixCache
from tests.builders import random_images, tiny_backbone

THREE = ((2, 16), (4, 32), (6, 48))


@pytest.fixture(scope='module')
def backbone():
    return tiny_backbone(((3, 16), (6, 32)))


@contextmanager
def counted(backbone):
    """Blocks and lifts that run meanwhile."""
    counts = dict(block=0, layer=0)

    def note(kind):
        return lambda *_: counts.update({kind: counts[kind] + 1})

    blocks = [block for anchor in backbone.anchors.values() for block in anchor.vit.blocks]
    handles = [block.register_forward_hook(note('block')) for block in blocks]
    layers = backbone.stitch_layers.values()
    handles += [layer.register_forward_hook(note('layer')) for layer in layers]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def flat(features):
    return [part for one in features for part in (one if isinstance(one, tuple) else (one,))]


def assert_same(found, expected):
    assert len(found) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(flat(found), flat(expected)))


@torch.no_grad()
def one_by_one(backbone, batch, names=None):
    """Features of each stitch for each input of a batch."""
    result = {}
    for name in names or backbone.space.names:
        with backbone.use_stitch(name):
            result[name] = [backbone(images) for images in batch]
    return result


@torch.no_grad()
def one_pass(cache, batch):
    with cache.activate():
        return {s.name: [cache.backbone(images) for images in batch] for s in cache.routes()}


@pytest.mark.parametrize(
    ('shape', 'settings'),
    [
        (((3, 16), (6, 32)), {}),
        (((4, 32),), {}),
        (THREE, dict(scheme=dict(max_crossings=2))),
        (((3, 16), (6, 32)), dict(scheme='one_way', final_norm=True)),
        (((3, 16), (6, 32)), dict(output_cls_token=True, lora_rank=0)),
        (((3, 16), (6, 32)), dict(scheme=dict(max_crossings=4))),
    ],
)
def test_features_are_the_same_bit_for_bit_and_every_block_runs_once(shape, settings):
    backbone = tiny_backbone(shape, **settings)
    batch = [random_images(2)]
    cache = PrefixCache(backbone, backbone.space)
    expected = one_by_one(backbone, batch)
    with counted(backbone) as counts:
        found = one_pass(cache, batch)
    assert counts['block'] == cache.tree.num_blocks
    assert set(found) == set(backbone.space.names)
    for name, features in expected.items():
        assert_same(found[name][0], features[0])


def test_crossings_and_lifted_taps_are_shared_too(backbone):
    steps = {backbone.space.program(s)[:n] for s in backbone.space for n in range(1, 40)}
    layers = sum(bool(getattr(p[-1], 'layer', None) or getattr(p[-1], 'lift', None)) for p in steps)
    with counted(backbone) as counts:
        one_pass(PrefixCache(backbone, backbone.space), [random_images(1)])
    assert counts['layer'] == layers


def test_each_forward_of_a_batch_shares_with_its_like(backbone):
    """As windows and augmented copies do; sizes may differ and inputs may repeat."""
    first = random_images(1, seed=1)
    batch = [first, random_images(1, 48, 80, seed=2), first.clone(), random_images(2, seed=3)]
    cache = PrefixCache(backbone, backbone.space)
    expected = one_by_one(backbone, batch)
    with counted(backbone) as counts:
        found = one_pass(cache, batch)
    assert counts['block'] == len(batch) * cache.tree.num_blocks
    for name, features in expected.items():
        for a, b in zip(found[name], features):
            assert_same(a, b)


@torch.no_grad()
def test_other_input_at_the_same_place_is_run_in_full(backbone):
    """A model may show each stitch something else."""
    images = {name: random_images(1, seed=i) for i, name in enumerate(backbone.space.names)}
    cache = PrefixCache(backbone, backbone.space)
    with cache.activate():
        found = {s.name: backbone(images[s.name]) for s in cache.routes()}
    for name, features in found.items():
        assert_same(features, one_by_one(backbone, [images[name]], [name])[name][0])


@torch.no_grad()
def test_input_that_was_changed_in_place_is_run_in_full(backbone):
    images, other = random_images(1), random_images(1, seed=1)
    cache = PrefixCache(backbone, backbone.space)
    found = {}
    with cache.activate():
        for number, stitch in enumerate(cache.routes()):
            images.copy_(random_images(1) if number % 2 else other)
            found[stitch.name] = backbone(images)
    for number, name in enumerate(cache.tree.order):
        expected = one_by_one(backbone, [random_images(1) if number % 2 else other], [name])
        assert_same(found[name], expected[name][0])


@torch.no_grad()
def test_equal_input_in_other_memory_is_shared(backbone):
    cache = PrefixCache(backbone, backbone.space)
    with cache.activate(), counted(backbone) as counts:
        for _ in cache.routes():
            backbone(random_images(1))
    assert counts['block'] == cache.tree.num_blocks


@torch.no_grad()
def test_a_model_may_stop_early_or_call_more_often(backbone):
    batch = [random_images(1, seed=i) for i in range(3)]
    cache = PrefixCache(backbone, backbone.space)
    found = {}
    with cache.activate():
        for number, stitch in enumerate(cache.routes()):
            found[stitch.name] = [backbone(images) for images in batch[: 1 + number % 3]]
    expected = one_by_one(backbone, batch)
    for name, features in found.items():
        for a, b in zip(features, expected[name]):
            assert_same(a, b)


@torch.no_grad()
def test_nothing_of_a_batch_is_left_for_the_next(backbone):
    cache = PrefixCache(backbone, backbone.space)
    with cache.activate():
        for seed in (1, 2):
            images = random_images(1, seed=seed)
            found = {s.name: [backbone(images)] for s in cache.routes()}
            assert cache._held.total == 0 and not cache._calls
    for name, features in one_by_one(backbone, [images]).items():
        assert_same(found[name][0], features[0])


@pytest.mark.parametrize('states', [0, 0.5, 1, 1.5, 3, 4.5])
def test_kept_memory_stays_within_its_bound_and_features_stay_the_same(backbone, states):
    """Measured as the tensors that are alive between the routes, in units of one state's tokens."""
    batch = [random_images(1, seed=seed) for seed in range(3)]
    bound = states * 4 * 65 * (32 + 32 + 16)
    cache = PrefixCache(backbone, backbone.space, max_memory=bound)
    found, most = {}, 0
    with torch.no_grad(), cache.activate(), counted(backbone) as counts:
        for stitch in cache.routes():
            found[stitch.name] = [backbone(images) for images in batch]
            alive = {}
            for call in cache._calls:
                for state, _ in call.states.values():
                    for tensor in (state.images, state.tokens, *state.taps.values()):
                        alive[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            most = max(most, sum(alive.values()))
            assert cache._held.total == sum(alive.values())
    assert most <= cache.peak_bytes <= bound
    assert counts['block'] >= 3 * cache.tree.num_blocks
    for name, features in one_by_one(backbone, batch).items():
        for a, b in zip(found[name], features):
            assert_same(a, b)


def test_less_memory_costs_more_blocks(backbone):
    batch = [random_images(1, seed=seed) for seed in range(2)]
    cache = PrefixCache(backbone, backbone.space)
    one_pass(cache, batch)
    runs = []
    for bound in (cache.peak_bytes, 0.7 * cache.peak_bytes, 0):
        cache = PrefixCache(backbone, backbone.space, bound)
        with counted(backbone) as counts:
            one_pass(cache, batch)
        runs.append(counts['block'])
    assert runs[0] == 2 * cache.tree.num_blocks and runs[-1] == 2 * cache.tree.num_blocks_apart
    assert runs[0] < runs[1] < runs[-1]


def test_what_spares_least_is_given_up_first():
    """One state fits: the cheap beginning in the small anchor is run again, not the costly one."""
    backbone = tiny_backbone(((6, 16), (12, 64)))
    images = random_images(1)
    tokens = 4 * 65 * 64
    bound = images.untyped_storage().nbytes() + 2 * tokens  # with one tap
    cache = PrefixCache(backbone, backbone.space, bound)
    with counted(backbone) as counts:
        one_pass(cache, [images])
    apart, together = cache.tree.num_blocks_apart, cache.tree.num_blocks
    assert together < counts['block'] < together + 0.3 * (apart - together)


@torch.no_grad()
def test_outside_the_block_the_backbone_is_as_ever(backbone):
    cache = PrefixCache(backbone, backbone.space)
    backbone.set_stitch('S2-L2')
    with cache.activate():
        for _ in cache.routes():
            backbone(random_images(1))
        assert backbone.stitch.name == 'S2-L2'
    assert backbone.executor is None and not cache._calls
    with counted(backbone) as counts:
        backbone(random_images(1))
        backbone(random_images(1))
    assert counts['block'] == 8


def test_training_and_gradients_are_not_shared():
    backbone = tiny_backbone(((3, 16), (6, 32)))
    cache = PrefixCache(backbone, ['S1-L4', 'S2-L2'])
    with cache.activate(), counted(backbone) as counts:
        for _ in cache.routes():
            features = backbone(random_images(1))
            assert features[0].requires_grad
        assert counts['block'] == 5 + 4
        with torch.no_grad():
            backbone.train()
            backbone.set_training_stitch('S1-L4')
            for _ in cache.routes():
                backbone(random_images(1))
        assert counts['block'] == 9 + 10


def test_the_stitch_is_restored_after_an_error(backbone):
    backbone.set_stitch('L4-S1')
    cache = PrefixCache(backbone, ['S3', 'L6'])

    def fail():
        with cache.activate():
            for stitch in cache.routes():
                assert backbone.stitch == stitch
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert backbone.executor is None
    assert backbone.stitch.name == 'L4-S1'


def test_a_subset_runs_in_the_cheapest_order_whatever_order_is_given(backbone):
    names = ['S1-L4', 'L6', 'S2-L2', 'L2-S2', 'S3', 'S1-L2-S1', 'L2-S1-L2']
    for order in (names, names[::-1]):
        cache = PrefixCache(backbone, order)
        with counted(backbone) as counts:
            found = one_pass(cache, [random_images(1)])
        assert set(found) == set(names)
        assert counts['block'] == cache.tree.num_blocks < cache.tree.num_blocks_apart


def test_a_negative_bound_and_a_second_cache_are_refused(backbone):
    with pytest.raises(ValueError, match='max_memory=-1 is not possible'):
        PrefixCache(backbone, ['S3'], max_memory=-1)
    cache = PrefixCache(backbone, ['S3'])
    runs = 'A PrefixCache runs this backbone already'
    with cache.activate(), pytest.raises(RuntimeError, match=runs):
        cache.activate().__enter__()
