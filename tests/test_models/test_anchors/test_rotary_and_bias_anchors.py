"""Rotary and relative-bias ViTs of timm, block by block against timm's own forward."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.models.beit import checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional

from mmsnnet.models import AnchorConfig, AnchorViT, build_anchor
from tests.builders import BIAS_KINDS, ROTARY_KINDS, random_images, shake, tiny_anchor, tiny_vit
from tests.by_hand import timm_features

# Deprecations inside timm's interpolation, which serves as the reference here.
pytestmark = pytest.mark.filterwarnings(r'ignore:::timm\.layers\.interpolate')


def make_anchor(kind: str, depth: int = 3, **settings) -> AnchorViT:
    config = AnchorConfig.parse(tiny_anchor(depth, 48, kind))
    anchor = build_anchor(config, **{'img_size': (64, 64), **settings})
    shake(anchor)
    return anchor.eval()


def make_timm(anchor: AnchorViT, kind: str) -> nn.Module:
    """A model that timm alone built, with the weights of an anchor."""
    vit = tiny_vit(len(anchor.vit.blocks), 48, kind)
    missing, extra = vit.load_state_dict(anchor.vit.state_dict(), strict=False)
    assert not extra and all(name.startswith(('fc_norm', 'attn_pool')) for name in missing)
    return vit


def resized_timm(anchor: AnchorViT, kind: str, size: tuple[int, int]) -> nn.Module:
    """A model that timm alone built and resized, from the weights of an anchor."""
    vit = make_timm(anchor, kind)
    if hasattr(vit, 'set_input_size'):
        vit.set_input_size(size)
        return vit
    # timm 1.0.26 resizes a Beit only while it loads weights.
    resized = tiny_vit(len(anchor.vit.blocks), 48, kind, img_size=size)
    resized.load_state_dict(checkpoint_filter_fn(vit.state_dict(), resized))
    return resized


def run_all(anchor: AnchorViT, images: Tensor, **settings) -> list[Tensor]:
    """Tokens behind each block."""
    tokens, behind = anchor.embed(images), []
    context = anchor.context((-(-images.shape[2] // 8), -(-images.shape[3] // 8)))
    for index in range(len(anchor.vit.blocks)):
        tokens = anchor.run_block(tokens, index, context, **settings)
        behind.append(tokens)
    return behind


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs) > 0
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs))


@torch.no_grad()
@pytest.mark.parametrize('size', [(64, 64), (40, 72)])
@pytest.mark.parametrize('kind', ROTARY_KINDS)
def test_rotary_tokens_behind_every_block_equal_those_of_timm_bit_for_bit(kind, size):
    anchor, images = make_anchor(kind), random_images(2, *size)
    assert_equal(run_all(anchor, images), timm_features(make_timm(anchor, kind), images))


@torch.no_grad()
@pytest.mark.parametrize('kind', BIAS_KINDS)
def test_biased_tokens_behind_every_block_equal_those_of_timm_bit_for_bit(kind):
    anchor, images = make_anchor(kind), random_images()
    assert_equal(run_all(anchor, images), timm_features(make_timm(anchor, kind), images))


@torch.no_grad()
@pytest.mark.parametrize('size', [(64, 64), (40, 72)])
@pytest.mark.parametrize('kind', BIAS_KINDS)
def test_a_copy_of_one_grid_gives_the_tokens_that_resampled_tables_give(kind, size):
    anchor, images = make_anchor(kind), random_images(2, *size)
    fixed = copy.deepcopy(anchor)
    fixed.fix_grid((size[0] // 8, size[1] // 8))
    for mine, theirs in zip(run_all(fixed, images), run_all(anchor, images)):
        assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    indices = {id(one) for name, one in fixed.named_buffers() if name.endswith('position_index')}
    assert len(indices) == 1


@torch.no_grad()
@pytest.mark.parametrize('kind', BIAS_KINDS)
def test_a_size_laid_out_at_the_start_need_not_be_square(kind):
    anchor = make_anchor(kind, img_size=(40, 72))
    vit = tiny_vit(3, 48, kind, img_size=(40, 72))
    vit.load_state_dict(anchor.vit.state_dict(), strict=False)
    images = random_images(2, 40, 72)
    assert_equal(run_all(anchor, images), timm_features(vit, images))


@torch.no_grad()
@pytest.mark.parametrize('kind', ['DINOv3', 'EVA-02', 'mixed rotary', 'Perception Encoder'])
def test_normed_tokens_equal_those_of_timm_bit_for_bit(kind):
    anchor, images = make_anchor(kind, final_norm=True), random_images()
    ours = [anchor.norm(tokens) for tokens in run_all(anchor, images)]
    assert_equal(ours, timm_features(make_timm(anchor, kind), images, norm=True))


@torch.no_grad()
@pytest.mark.parametrize('kind', ['DINOv3', 'EVA-02', 'published'])
def test_a_size_that_the_patch_does_not_divide_is_padded_at_the_bottom_and_right(kind):
    anchor, images = make_anchor(kind), random_images(1, 59, 61)
    padded = functional.pad(images, (0, 64 - 61, 0, 64 - 59))
    assert_equal(run_all(anchor, images), timm_features(make_timm(anchor, kind), padded))


@torch.no_grad()
@pytest.mark.parametrize('kind', BIAS_KINDS)
@pytest.mark.parametrize('size', [(40, 72), (96, 64), (16, 136)])
def test_another_grid_gives_what_timm_gives_after_resizing_its_parameters(kind, size):
    anchor, images = make_anchor(kind), random_images(2, *size)
    vit = resized_timm(anchor, kind, size)
    for ours, theirs in zip(run_all(anchor, images), timm_features(vit, images)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize('kind', ['BEiT', 'two tables'])
def test_another_grid_leaves_the_parameters_as_they_are_and_trains_them(kind):
    anchor = make_anchor(kind)
    parameters = dict(anchor.named_parameters())
    before = {name: value.detach().clone() for name, value in anchor.state_dict().items()}
    own = run_all(anchor, random_images())[-1]
    run_all(anchor, random_images(1, 40, 72))[-1].square().sum().backward()
    assert all(anchor.get_parameter(name) is value for name, value in parameters.items())
    assert all(torch.equal(value, before[name]) for name, value in anchor.state_dict().items())
    tables = [value for name, value in parameters.items() if name.endswith('bias_table')]
    assert len(tables) in (3, 4) and all(table.grad.abs().sum() > 0 for table in tables)
    assert torch.equal(run_all(anchor, random_images())[-1], own)


@pytest.mark.parametrize('kind', ['jittered DINOv3', 'mixed rotary', 'two tables'])
@pytest.mark.parametrize('size', [(64, 64), (40, 72)])
def test_recomputing_blocks_gives_the_same_output_and_gradients(kind, size):
    anchor, found = make_anchor(kind).train(), []
    for with_cp in (False, True):
        anchor.zero_grad()
        torch.manual_seed(0)
        tokens = run_all(anchor, random_images(1, *size), with_cp=with_cp)[-1]
        tokens.square().sum().backward()
        grads = [p.grad.clone() for p in anchor.parameters() if p.grad is not None]
        found.append([tokens.detach(), *grads])
    assert len(found[0]) > 30
    assert_equal(*found)


def test_a_training_forward_draws_one_jitter_for_all_blocks_as_timm_does():
    kind = 'jittered DINOv3'
    anchor = make_anchor(kind).train()
    vit, images = make_timm(anchor, kind).train(), random_images()
    torch.manual_seed(3)
    ours = run_all(anchor, images)
    torch.manual_seed(3)
    assert_equal(ours, timm_features(vit, images))
    assert not torch.equal(ours[-1], run_all(anchor, images)[-1])


@pytest.mark.parametrize('kind', ['EVA-02', 'EVA', 'BEiT'])
def test_parts_for_classification_are_gone(kind):
    names = [name for name, _ in make_anchor(kind).named_parameters()]
    assert not [name for name in names if 'head' in name or 'fc_norm' in name]


def test_dropping_patches_is_refused():
    config = AnchorConfig.parse(tiny_anchor(kind='DINOv3'))
    config.model_kwargs['patch_drop_rate'] = 0.5
    with pytest.raises(ValueError, match='patch_drop_rate > 0'):
        build_anchor(config, (64, 64))


@pytest.mark.slow
@pytest.mark.parametrize('module', ['eva', 'beit'])
def test_every_model_of_a_module_of_timm_is_an_anchor(module):
    import timm

    names = timm.list_models(module=module)
    for name in names:
        with torch.device('meta'):
            anchor = build_anchor(AnchorConfig(name))
        assert anchor.spec.depth == len(anchor.vit.blocks)
    assert len(names) >= 7
