"""Plain ViTs of timm as anchors."""

from __future__ import annotations

import pytest
import timm
import torch
from torch.nn import functional

from mmsnnet.models import AnchorConfig, AnchorViT, build_anchor
from mmsnnet.models.anchors.anchor_weights import load_anchor_weights
from mmsnnet.models.anchors.build import build_vit
from tests.builders import KINDS, random_images, shake, tiny_anchor, tiny_backbone, tiny_vit


def make_anchor(kind: str = 'class token', depth: int = 3, **settings) -> AnchorViT:
    config = AnchorConfig.parse(tiny_anchor(depth, 48, kind))
    anchor = build_anchor(config, **{'img_size': (64, 64), **settings})
    shake(anchor)
    return anchor.eval()


def copy_weights(anchor: AnchorViT, vit: timm.models.VisionTransformer) -> None:
    missing, extra = vit.load_state_dict(anchor.vit.state_dict(), strict=False)
    assert not extra and not [name for name in missing if not name.startswith('fc_norm')]


def run_all(anchor: AnchorViT, images: torch.Tensor) -> list[torch.Tensor]:
    """Tokens behind each block."""
    tokens, behind = anchor.embed(images), []
    context = anchor.context((images.shape[2] // 8, images.shape[3] // 8))
    for index in range(len(anchor.vit.blocks)):
        tokens = anchor.run_block(tokens, index, context)
        behind.append(tokens)
    return behind


def tokens_of_timm(vit: timm.models.VisionTransformer, images: torch.Tensor, norm: bool) -> list:
    maps = vit.forward_intermediates(
        images, norm=norm, output_fmt='NLC', return_prefix_tokens=True, intermediates_only=True
    )
    return [torch.cat(item[::-1], 1) if isinstance(item, tuple) else item for item in maps]


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('size', [(64, 64), (40, 72)])
def test_tokens_behind_every_block_equal_those_of_timm_bit_for_bit(kind, size):
    anchor = make_anchor(kind)
    vit = tiny_vit(3, 48, kind)
    copy_weights(anchor, vit)
    images = random_images(2, *size)
    ours, theirs = run_all(anchor, images), tokens_of_timm(vit, images, norm=False)
    assert len(ours) == len(theirs) == 3
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs))


@torch.no_grad()
@pytest.mark.parametrize('kind', ['class token', 'registers', 'no class token'])
def test_normed_tokens_equal_those_of_timm_bit_for_bit(kind):
    anchor = make_anchor(kind, final_norm=True)
    vit = tiny_vit(3, 48, kind)
    copy_weights(anchor, vit)
    images = random_images()
    ours = [anchor.norm(tokens) for tokens in run_all(anchor, images)]
    theirs = tokens_of_timm(vit, images, norm=True)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs))


@torch.no_grad()
@pytest.mark.parametrize('kind', ['class token', 'no_embed_class'])
def test_a_size_that_the_patch_does_not_divide_is_padded_at_the_bottom_and_right(kind):
    anchor = make_anchor(kind)
    vit = tiny_vit(3, 48, kind)
    copy_weights(anchor, vit)
    images = random_images(1, 59, 41)
    padded = functional.pad(images, (0, 48 - 41, 0, 64 - 59))
    ours, theirs = run_all(anchor, images), tokens_of_timm(vit, padded, norm=False)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs))


def test_recomputing_a_block_gives_the_same_output_and_gradient():
    anchor = make_anchor()
    tokens = torch.randn(1, 10, 48, generator=torch.Generator().manual_seed(0))
    found = []
    for with_cp in (False, True):
        x = tokens.clone().requires_grad_()
        y = anchor.run_block(x, 1, with_cp=with_cp)
        y.square().sum().backward()
        found.append((y.detach(), x.grad))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_the_final_norm_is_trained_only_where_it_is_used():
    assert not any(p.requires_grad for p in make_anchor().vit.norm.parameters())
    assert all(p.requires_grad for p in make_anchor(final_norm=True).vit.norm.parameters())


def test_parts_for_classification_are_gone():
    names = [name for name, _ in make_anchor('no class token').named_parameters()]
    assert not [name for name in names if 'head' in name or 'fc_norm' in name]


def test_a_final_norm_that_does_not_exist_is_told(log_lines):
    make_anchor('no class token', final_norm=True)
    assert ['normalises after pooling' in line for line in log_lines.text()] == [True]


def test_the_anchors_own_drop_path_rate_goes_before_the_backbones():
    own = build_anchor(
        AnchorConfig.parse(tiny_anchor(drop_path_rate=0.5)), (64, 64), drop_path_rate=0.1
    )
    common = build_anchor(AnchorConfig.parse(tiny_anchor()), (64, 64), drop_path_rate=0.1)
    assert own.vit.blocks[-1].drop_path1.drop_prob == pytest.approx(0.5)
    assert common.vit.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)
    assert common.vit.blocks[3].drop_path1.drop_prob == pytest.approx(0.06)


@pytest.mark.parametrize(
    'kind', ['class token', 'DINOv3', 'EVA-02', 'BEiT', 'parallel', 'parallel things']
)
@pytest.mark.parametrize('rate', [0.0, 0.3])
def test_a_constant_drop_path_is_that_of_every_block(kind, rate):
    if kind == 'parallel things':
        config = dict(tiny_anchor(3, 48), drop_path_rate=rate, drop_path_mode='constant')
        config['model_kwargs']['block_fn'] = timm.models.vision_transformer.ParallelThingsBlock
    else:
        config = tiny_anchor(3, 48, kind, drop_path_rate=rate, drop_path_mode='constant')
    anchor = build_anchor(AnchorConfig.parse(config), (64, 64), drop_path_rate=0.9)
    for block in anchor.vit.blocks:
        found = [m for name, m in block.named_modules() if 'drop_path' in name.split('.')[-1]]
        assert len(found) >= (1 if kind == 'parallel' else 2)
        assert {getattr(module, 'drop_prob', 0.0) for module in found} == {rate}


def test_a_constant_drop_path_drops_paths_of_the_first_block_too():
    config = tiny_anchor(1, 48, drop_path_rate=0.5, drop_path_mode='constant')
    anchor = build_anchor(AnchorConfig.parse(config), (64, 64)).train()
    shake(anchor)
    tokens = torch.randn(64, 5, 48, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        moved = (anchor.run_block(tokens, 0) - tokens).abs().amax((1, 2)) > 0
    assert 0.5 < moved.float().mean() < 0.95, 'three in four keep one of two paths'


def test_normalisation_is_timms_unless_it_is_given():
    assert make_anchor().normalization == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert make_anchor('no_embed_class').normalization[0] == (0.485, 0.456, 0.406)
    config = AnchorConfig.parse(tiny_anchor(mean=(0.1, 0.2, 0.3)))
    assert build_anchor(config, (64, 64)).normalization[0] == (0.1, 0.2, 0.3)


def test_an_unknown_name_is_refused_with_the_closest_ones():
    with pytest.raises(ValueError, match=r'no model .*closest names: .*deit3_small_patch16_224'):
        build_vit(AnchorConfig('deit3_smal_patch16_224'))


def test_an_unknown_tag_of_weights_is_refused():
    with pytest.raises(ValueError, match='Invalid pretrained tag'):
        build_vit(AnchorConfig('deit3_small_patch16_224.nope'))


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('swin_tiny_patch4_window7_224', 'SwinTransformer'),
        ('vit_relpos_small_patch16_224', 'VisionTransformerRelPos'),
        ('samvit_base_patch16', 'VisionTransformerSAM'),
        ('resnet18', 'ResNet'),
    ],
)
def test_models_that_are_no_plain_vit_are_refused_by_their_class(name, kind):
    with torch.device('meta'), pytest.raises(ValueError, match=f'is of class {kind};.*no plain'):
        build_anchor(AnchorConfig(name))


def test_a_network_in_front_of_the_patches_is_refused():
    with torch.device('meta'), pytest.raises(ValueError, match='embeds patches by a HybridEmbed'):
        build_anchor(AnchorConfig('vit_tiny_r_s16_p8_224'))


@pytest.mark.parametrize(
    ('name', 'part'),
    [
        ('vit_dlittle_patch16_reg1_gap_256', 'DiffAttention'),
        ('vit_dpwee_patch16_reg1_gap_256', 'DiffParallelScalingBlock'),
    ],
)
def test_blocks_of_unknown_cost_are_refused(name, part):
    with torch.device('meta'), pytest.raises(ValueError, match=f'{part}, whose cost is not known'):
        build_anchor(AnchorConfig(name))


def test_oblong_patches_are_refused():
    config = AnchorConfig.parse(tiny_anchor())
    config.model_kwargs['patch_size'] = (8, 16)
    with pytest.raises(ValueError, match=r'patches of \(8, 16\) pixels; they must be square'):
        build_anchor(config, (64, 64))


def test_dropping_patches_is_refused():
    config = AnchorConfig.parse(tiny_anchor())
    config.model_kwargs['patch_drop_rate'] = 0.5
    with pytest.raises(ValueError, match='patch_drop_rate > 0'):
        build_anchor(config, (64, 64))


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (dict(detph=3), "unexpected keyword argument 'detph'"),
        (dict(embed_dim=50), 'divisible by num_heads'),
        (dict(num_heads=0), 'timm cannot build'),
        (dict(mlp_ratio=float('nan')), 'timm cannot build'),
        (dict(patch_size=0), 'timm cannot build'),
        (dict(depth='x'), 'timm cannot build'),
        (dict(depth=0), 'needs at least one block'),
        (dict(img_size=32), "multiple values for keyword argument 'img_size'"),
    ],
)
def test_arguments_that_timm_refuses_are_told_in_one_line(arguments, reason):
    config = AnchorConfig('vit_tiny_patch16_224', model_kwargs=arguments)
    with pytest.raises(ValueError, match=reason) as raised:
        build_anchor(config)
    assert '\n' not in str(raised.value)


@pytest.mark.slow
def test_every_plain_vit_of_timm_is_an_anchor_or_refused_with_a_reason():
    refused = []
    names = [*timm.list_models(module='vision_transformer'), *timm.list_models(module='deit')]
    for name in names:
        try:
            with torch.device('meta'):
                anchor = build_anchor(AnchorConfig(name))
            assert anchor.spec.depth == len(anchor.vit.blocks)
        except ValueError as error:
            refused.append(str(error))
    assert len(names) >= 150 and len(refused) <= 5
    assert all('whose cost is not known' in reason for reason in refused)


@pytest.mark.parametrize('kind', ['class token', 'DINOv3', 'BEiT'])
@pytest.mark.parametrize('channels', [1, 2, 4])
def test_files_of_three_channels_are_adapted_as_timm_does(tmp_path, kind, channels):
    vit = tiny_vit(2, 48, kind)
    shake(vit)
    torch.save(vit.state_dict(), tmp_path / 'vit.pth')
    config = tiny_anchor(2, 48, kind, checkpoint=str(tmp_path / 'vit.pth'))
    config['model_kwargs']['in_chans'] = channels
    anchor = build_anchor(AnchorConfig.parse(config), (64, 64))
    load_anchor_weights(anchor)
    given, found = vit.patch_embed.proj.weight, anchor.vit.patch_embed.proj.weight
    if channels == 1:
        expected = given.sum(1, keepdim=True)
    else:
        expected = torch.stack([given[:, i % 3] for i in range(channels)], 1) * 3 / channels
    torch.testing.assert_close(found, expected)
    assert anchor.embed(torch.zeros(1, channels, 64, 64)).shape[-1] == 48
    assert anchor.spec.embed_flops_per_patch == channels * 64 * 48


def test_a_file_of_other_channels_is_refused_by_its_shape(tmp_path):
    torch.save(tiny_vit(2, 48, in_chans=5).state_dict(), tmp_path / 'vit.pth')
    config = tiny_anchor(2, 48, checkpoint=str(tmp_path / 'vit.pth'))
    anchor = build_anchor(AnchorConfig.parse(config), (64, 64))
    with pytest.raises(ValueError, match=r'proj\.weight is \(48, 5, 8, 8\) there and \(48, 3'):
        load_anchor_weights(anchor)


def test_normalisation_has_a_value_for_each_channel():
    config = tiny_anchor(1, 48, 'no_embed_class')
    for channels, mean in ((1, (0.449,)), (4, (0.485, 0.456, 0.406, 0.485))):
        config['model_kwargs']['in_chans'] = channels
        anchor = build_anchor(AnchorConfig.parse(config), (64, 64))
        assert anchor.normalization[0] == pytest.approx(mean, abs=1e-3)
    with pytest.raises(ValueError, match=r'mean=.* has 3 values, but its images have 4 channels'):
        build_anchor(AnchorConfig.parse(config | dict(mean=(0.1, 0.2, 0.3))), (64, 64))


def test_anchors_of_unlike_channels_are_refused():
    anchors = [tiny_anchor(2, 16), tiny_anchor(3, 32)]
    anchors[1]['model_kwargs']['in_chans'] = 4
    with pytest.raises(ValueError, match=r'images of \[3, 4\] channels'):
        tiny_backbone(anchors=anchors, out_indices=(2,))
