"""Windows of attention, against loops over windows and against timm's own blocks."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from mmsnnet.models import StitchFit
from mmsnnet.models.anchors.window_attention import partition, run_windowed_block, unpartition
from mmsnnet.models.anchors.windowed import spread_global_blocks
from mmsnnet.stitching import BlockCost
from tests.builders import random_images, shake, tiny_anchor, tiny_backbone, tiny_vit

GRIDS = [((6, 6), 3), ((5, 7), 3), ((4, 4), 6), ((3, 8), 1), ((1, 9), 4)]


def random_tokens(grid, width=8, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, grid[0] * grid[1], width, generator=generator)


def windows_by_hand(tokens, grid, window):
    """Windows (image, place, C) one by one, with zeros for what lies outside of the map."""
    rows, columns = grid
    found = []
    for image in tokens:
        cells = image.reshape(rows, columns, -1)
        for top in range(0, rows, window):
            for left in range(0, columns, window):
                one = torch.zeros(window, window, cells.shape[-1])
                part = cells[top : top + window, left : left + window]
                one[: part.shape[0], : part.shape[1]] = part
                found.append(one.flatten(0, 1))
    return torch.stack(found)


@pytest.mark.parametrize(('grid', 'window'), GRIDS)
def test_windows_are_cut_row_by_row_and_padded_with_zeros(grid, window):
    tokens = random_tokens(grid)
    assert torch.equal(partition(tokens, grid, window), windows_by_hand(tokens, grid, window))


@pytest.mark.parametrize(('grid', 'window'), GRIDS)
def test_joining_is_the_inverse_of_cutting(grid, window):
    tokens = random_tokens(grid)
    assert torch.equal(unpartition(partition(tokens, grid, window), grid, window), tokens)


def block_of_timm(**settings):
    arguments = dict(patch_size=8, depth=1, embed_dim=32, num_heads=2, init_values=1e-5)
    vit = timm.create_model('vit_tiny_patch16_224', **arguments | settings)
    shake(vit)
    return vit.blocks[0].eval()


def attention_by_hand(attention, x):
    """Softmax attention of tokens (N, C) by the weights of timm's module."""
    heads, width = attention.num_heads, x.shape[-1]
    q, k, v = (attention.qkv(x)).reshape(-1, 3, heads, width // heads).permute(1, 2, 0, 3)
    weights = (q @ k.transpose(-1, -2) / (width // heads) ** 0.5).softmax(-1)
    return attention.proj((weights @ v).transpose(0, 1).reshape(-1, width))


@pytest.mark.parametrize(('grid', 'window'), [((5, 7), 3), ((6, 4), 2), ((2, 3), 4)])
def test_a_windowed_block_is_attention_window_by_window(grid, window):
    block, tokens = block_of_timm(), random_tokens(grid, 32)
    with torch.no_grad():
        windows = windows_by_hand(block.norm1(tokens), grid, window)
        attended = torch.stack([attention_by_hand(block.attn, one) for one in windows])
        # back to the map, place by place
        down, across = -(-grid[0] // window), -(-grid[1] // window)
        joined = torch.zeros_like(tokens)
        for image in range(len(tokens)):
            for row in range(grid[0]):
                for column in range(grid[1]):
                    number = (image * down + row // window) * across + column // window
                    place = row % window * window + column % window
                    joined[image, row * grid[1] + column] = attended[number, place]
        expected = tokens + block.ls1(joined)
        expected = expected + block.ls2(block.mlp(block.norm2(expected)))
        found = run_windowed_block(block, tokens, grid, window)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('settings', [{}, dict(qk_norm=True), dict(scale_attn_norm=True)])
def test_one_window_over_the_whole_map_is_the_block_itself(settings):
    block, tokens = block_of_timm(**settings), random_tokens((4, 4), 32)
    with torch.no_grad():
        found = run_windowed_block(block, tokens, (4, 4), 4)
        torch.testing.assert_close(found, block(tokens), rtol=1e-5, atol=1e-6)


def test_drop_path_drops_whole_images():
    block = block_of_timm(drop_path_rate=0.0)
    block.drop_path1 = timm.layers.DropPath(0.5)
    tokens = random_tokens((4, 4), 32, batch=32)
    torch.manual_seed(0)
    moved = run_windowed_block(block.train(), tokens, (4, 4), 2)
    block.drop_path1 = nn.Identity()
    without = tokens + block.ls2(block.mlp(block.norm2(tokens)))
    dropped = (moved - without).abs().flatten(1).amax(1) < 1e-6
    assert 0 < dropped.sum() < 32
    places = (moved - without).abs().amax(2)[~dropped]
    assert (places > 1e-6).all()


def windowed(shape=((3, 32), (6, 48)), **settings):
    settings = dict(window_size=3, global_blocks=(1, 5), out_indices=(2, 5)) | settings
    return tiny_backbone(shape, **settings)


def test_anchors_run_windowed_and_global_blocks_on_patches_alone():
    backbone = windowed()
    images = random_images(2, 64, 40)
    for label, blocks in (('S', {0, 2}), ('L', {1, 5})):
        assert backbone.anchors[label].global_blocks == blocks
    vit, grid = backbone.anchors['L'].vit, (8, 5)
    with torch.no_grad():
        x = vit._pos_embed(vit.patch_embed(images))[:, 1:]
        maps = []
        for index, block in enumerate(vit.blocks):
            x = block(x) if index in (1, 5) else run_windowed_block(block, x, grid, 3)
            maps.append(x.transpose(1, 2).unflatten(2, grid))
        found = backbone.run(images, 'L6')
    assert [tuple(item.shape) for item in found] == [(2, 48, 8, 5)] * 2
    for item, expected in zip(found, (maps[2], maps[5])):
        torch.testing.assert_close(item, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('kind', ['class token', 'registers', 'no_embed_class', 'no class token'])
def test_windows_do_without_prefix_tokens_of_every_kind(kind):
    backbone = windowed(kind=kind)
    vit = tiny_vit(6, 48, kind)
    images = random_images()
    with torch.no_grad():
        shake(vit)
        backbone.anchors['L'].vit.load_state_dict(vit.state_dict(), strict=False)
        tokens = backbone.anchors['L'].embed(images)
        expected = vit.patch_drop(vit._pos_embed(vit.patch_embed(images)))
    torch.testing.assert_close(tokens, expected[:, vit.num_prefix_tokens :])
    assert backbone.space.anchors[-1].prefix_tokens == 0


def test_training_reaches_every_block_and_stitch_layer_of_a_route():
    backbone = windowed(drop_path_rate=0.3, with_cp=True).train()
    backbone.set_training_stitch('L2-S1-L2')
    sum(item.square().sum() for item in backbone(random_images())).backward()
    steps = [f'anchors.L.vit.blocks.{i}.' for i in (0, 1, 4, 5)] + ['anchors.S.vit.blocks.1.']
    names = [name for name, weight in backbone.named_parameters() if weight.grad is not None]
    for step in steps:
        assert any(name.startswith(step) for name in names), step
    assert not any('anchors.L.vit.blocks.2.' in name for name in names)


def test_stitch_layers_are_fitted_without_prefix_tokens():
    backbone, images = windowed(fitted=False), random_images(6)
    fit = StitchFit(backbone)
    fit.add(images)
    assert fit.num_samples == 6 * 64
    fit.solve()
    features = []
    for anchor, blocks in ((backbone.anchors['S'], 1), (backbone.anchors['L'], 2)):
        with torch.no_grad():
            tokens = anchor.embed(images)
            for index in range(blocks):
                tokens = anchor.run_block(tokens, index, anchor.context((8, 8)))
        features.append(tokens.flatten(0, 1).double())
    source = torch.cat([features[0], torch.ones(6 * 64, 1)], 1)
    expected = torch.linalg.lstsq(source, features[1]).solution
    layer = backbone.stitch_layers['S1_to_L2']
    torch.testing.assert_close(layer.weight.double().T, expected[:-1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(layer.bias.double(), expected[-1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ('depth', 'blocks'),
    [(24, (5, 11, 17, 23)), (12, (2, 5, 8, 11)), (6, (0, 2, 3, 5)), (2, (0, 1)), (1, (0,))],
)
def test_global_blocks_end_the_quarters(depth, blocks):
    assert spread_global_blocks(depth) == blocks


def test_default_global_blocks_of_s_and_l_face_each_other():
    anchors = [tiny_anchor(12, 16), tiny_anchor(24, 16)]
    backbone = tiny_backbone(
        ((12, 16), (24, 16)), anchors=anchors, window_size=4, out_indices=(23,)
    )
    found = {label: anchor.global_blocks for label, anchor in backbone.anchors.items()}
    assert found == {'S': {2, 5, 8, 11}, 'L': {5, 11, 17, 23}}


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(window_size=0), 'window_size=0 must be 1 or more'),
        (dict(window_size=-3), 'window_size=-3 must be 1 or more'),
        (dict(window_size=float('nan')), 'window_size=nan must be one integer'),
        (dict(window_size=9), 'window_size=9 is larger than the 8 x 8 patches of img_size'),
        (dict(window_size=224), '224 is larger .* it counts patches, not pixels'),
        (dict(global_blocks=(1, 1)), r'global_blocks \(1, 1\) name a block twice'),
        (dict(global_blocks=(-1,)), 'hold -1, but the largest anchor has'),
        (dict(global_blocks=(True,)), 'global_blocks must be integers, got True'),
        (dict(window_size=2.0), r'window_size=2\.0 must be one integer'),
        (dict(window_size=True), 'window_size=True must be one integer'),
        (dict(window_size=(3, 3)), r'window_size=\(3, 3\) must be one integer'),
        (dict(global_blocks=(1, 6)), r'hold 6, but the largest anchor has the blocks 0 to 5'),
        (dict(global_blocks=(1.5,)), r'global_blocks must be integers, got 1\.5'),
        (dict(global_blocks=3), 'global_blocks=3 must be a list of blocks'),
        (dict(window_size=None), r'global_blocks=\(1, 5\) needs window_size too'),
        (dict(kind='parallel'), 'whose blocks are of ParallelScalingBlock'),
        (dict(output_cls_token=True), 'output_cls_token=True needs anchors with a class token'),
    ],
)
def test_impossible_windows_are_refused_in_one_line(settings, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        windowed(**settings)
    assert '\n' not in str(caught.value)


def test_a_window_may_span_the_longer_side_of_an_oblong_map():
    backbone = windowed(img_size=(32, 64), window_size=8)
    with torch.no_grad():
        assert backbone.run(random_images(1, 32, 64), 'L6')[0].shape == (1, 48, 4, 8)


@pytest.mark.parametrize('name', ['eva02_tiny_patch14_224', 'beit_base_patch16_224'])
def test_anchors_with_positions_inside_blocks_are_refused(name):
    arguments = dict(depth=2, embed_dim=32, num_heads=2)
    anchor = dict(model_name=name, pretrained=False, model_kwargs=arguments)
    with pytest.raises(ValueError, match=f'window_size does not go with {name!r}, a '):
        windowed(anchors=[anchor], out_indices=(1,), global_blocks=())


def test_the_cost_of_windows_needs_a_grid():
    with pytest.raises(ValueError, match='needs the grid'):
        BlockCost(1, 1, 1, window=2).flops(16)
