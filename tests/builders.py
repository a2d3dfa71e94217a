"""Small models and images that the tests build on."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import pytest
import timm
import torch
from timm.layers import SwiGLU, SwiGLUPacked
from timm.models.eva import Eva
from timm.models.vision_transformer import (
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
)
from torch import Tensor, nn

from mmsnnet.models import StitchedViT

#: One timm name and its own arguments for each way in which plain ViTs differ.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    'class token': ('vit_tiny_patch16_224', {}),
    'registers': ('vit_small_patch14_reg4_dinov2', {}),
    'no_embed_class': ('deit3_small_patch16_224', {}),
    'pre-norm': ('vit_base_patch16_clip_224', {}),
    'qk-norm': ('vit_tiny_patch16_224', dict(qk_norm=True)),
    'no class token': ('vit_tiny_patch16_224', dict(class_token=False, global_pool='avg')),
    'distilled': ('deit_tiny_distilled_patch16_224', {}),
    'SwiGLU': ('vit_tiny_patch16_224', dict(mlp_layer=SwiGLU, mlp_ratio=2.5)),
    'packed SwiGLU': (
        'vit_tiny_patch16_224',
        dict(mlp_layer=SwiGLUPacked, mlp_ratio=5, act_layer=nn.SiLU),
    ),
    'inner norms': ('vit_tiny_patch16_224', dict(scale_attn_norm=True, scale_mlp_norm=True)),
    'norm after': ('vit_tiny_patch16_224', dict(block_fn=ResPostBlock)),
    'parallel': ('vit_tiny_patch16_224', dict(block_fn=ParallelScalingBlock, qk_norm=True)),
    'parallel pairs': ('vit_tiny_patch16_224', dict(block_fn=ParallelThingsBlock)),
}

#: The same for ViTs with rotary position embedding, and for blocks like theirs.
ROTARY_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    'EVA': ('eva_giant_patch14_224', {}),
    'EVA-02': ('eva02_base_patch14_224', {}),
    'packed EVA-02': ('eva02_tiny_patch14_224', {}),
    'EVA-02 with inner norms': ('eva02_base_patch16_clip_224', {}),
    'EVA-02 with norm after': ('eva02_enormous_patch14_clip_224', {}),
    'DINOv3': ('vit_small_patch16_dinov3', {}),
    'jittered DINOv3': ('vit_small_patch16_dinov3', dict(rope_rescale_coords=2.0)),
    'mixed rotary': ('vit_small_patch16_rope_mixed_ape_224', {}),
    'Perception Encoder': ('vit_pe_core_tiny_patch16_384', {}),
    'grouped queries': ('vit_base_patch16_sapiens2', dict(num_kv_heads=1)),
}

#: The same for ViTs with relative position bias.
BIAS_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    'BEiT': ('beit_base_patch16_224', {}),
    'published': ('beit_base_patch16_224', dict(init_values=1.0, use_abs_pos_emb=True)),
    'shared table': (
        'beit_base_patch16_224',
        dict(use_rel_pos_bias=False, use_shared_rel_pos_bias=True, use_abs_pos_emb=True),
    ),
    'two tables': ('beit_base_patch16_224', dict(use_shared_rel_pos_bias=True)),
    'BEiT with SwiGLU': ('beit_base_patch16_224', dict(swiglu_mlp=True, scale_mlp=True)),
}

ALL_KINDS = {**KINDS, **ROTARY_KINDS, **BIAS_KINDS}


def tiny_anchor(
    depth: int = 6, width: int = 48, kind: str = 'class token', **settings: Any
) -> dict[str, Any]:
    """Config of an anchor with patches of 8 pixels and heads of 16 channels, without weights.

    A test of a kind that an older timm does not have is skipped.
    """
    name, arguments = ALL_KINDS[kind]
    if not timm.is_model(name):
        pytest.skip(f'timm {timm.__version__} has no {name}')
    if 'rope_rescale_coords' in set(arguments) - set(inspect.signature(Eva).parameters):
        pytest.skip(f'timm {timm.__version__} does not jitter rotary coordinates')
    arguments = dict(
        patch_size=8, depth=depth, embed_dim=width, num_heads=width // 16, **arguments
    )
    return dict(model_name=name, pretrained=False, model_kwargs=arguments, **settings)


def tiny_vit(
    depth: int = 6, width: int = 48, kind: str = 'class token', img_size: int = 64, **more: Any
) -> nn.Module:
    """The timm model of :func:`tiny_anchor`, built by timm alone, in eval mode."""
    anchor = tiny_anchor(depth, width, kind)
    arguments = {**anchor['model_kwargs'], **more}
    if kind not in BIAS_KINDS:  # timm's Beit takes one size
        arguments['dynamic_img_size'] = True
    vit = timm.create_model(anchor['model_name'], num_classes=0, img_size=img_size, **arguments)
    return vit.eval()


def tiny_backbone(
    shape: Sequence[tuple[int, int]] = ((6, 48), (12, 96)),
    kind: str = 'class token',
    fitted: bool = True,
    seed: int = 0,
    **settings: Any,
) -> StitchedViT:
    """Backbone of anchors of (depth, width) at 64 px, all its weights random and far from zero."""
    depth = max(depth for depth, _ in shape)
    settings = dict(img_size=64, out_indices=(depth // 2 - 1, depth - 1)) | settings
    settings.setdefault('anchors', [tiny_anchor(*one, kind=kind) for one in shape])
    backbone = StitchedViT(**settings)
    shake(backbone, seed)
    if fitted:
        backbone.mark_fitted()
    return backbone.eval()


def shake(module: nn.Module, seed: int = 0) -> None:
    """Draw all parameters anew, so that none is zero and every part of a network matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if 'norm' in name and name.endswith('weight'):
                parameter.copy_(1 + 0.2 * noise)
            elif 'gamma' in name:
                parameter.copy_(0.5 + 0.1 * noise)
            elif parameter.ndim > 1 and 'token' not in name and 'pos_embed' not in name:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.3 * noise)


def random_images(
    batch: int = 2, height: int = 64, width: int | None = None, seed: int = 0
) -> Tensor:
    """Normalised images (B, 3, H, W) of noise."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, height, width or height, generator=generator)
