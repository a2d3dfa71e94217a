"""Spec of a timm ViT, summed from the shapes of its actual layers."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mmsnnet.stitching import AnchorSpec, BlockCost
from mmsnnet.stitching.anchor import NORM_FLOPS_PER_ELEMENT


def _is_norm(module: nn.Module) -> bool:
    return 'norm' in type(module).__name__.lower() and hasattr(module, 'normalized_shape')


def _num_params(module: nn.Module | None) -> int:
    return 0 if module is None else sum(param.numel() for param in module.parameters())


def block_cost(block: nn.Module) -> BlockCost:
    """Cost of one block: its linear layers, norms and attention products.

    A norm over single heads (``q_norm``, ``k_norm``) runs once per head.
    """
    per_token = per_token_pair = 0
    for module in block.modules():
        if isinstance(module, nn.Linear):
            per_token += module.in_features * module.out_features
        if hasattr(module, 'num_heads') and hasattr(module, 'head_dim'):
            attention_width = module.num_heads * module.head_dim
            per_token_pair += 2 * attention_width
            for name in ('q_norm', 'k_norm'):
                if _is_norm(getattr(module, name, nn.Identity())):
                    per_token += NORM_FLOPS_PER_ELEMENT * attention_width
    for name, module in block.named_modules():
        if _is_norm(module) and name.rsplit('.', 1)[-1] not in ('q_norm', 'k_norm'):
            per_token += NORM_FLOPS_PER_ELEMENT * module.normalized_shape[0]
    return BlockCost(per_token, per_token_pair, _num_params(block))


def vit_spec(vit: VisionTransformer, label: str = '') -> AnchorSpec:
    """Spec of a ViT: width, depth, tokens, and the exact cost of embedding, blocks and norm."""
    width, patch = vit.embed_dim, vit.patch_embed.patch_size[0]
    embed = (vit.cls_token, vit.reg_token, vit.pos_embed, getattr(vit, 'dist_token', None))
    norm = NORM_FLOPS_PER_ELEMENT * width
    return AnchorSpec(
        width=width,
        blocks=tuple(block_cost(block) for block in vit.blocks),
        patch_size=patch,
        prefix_tokens=vit.num_prefix_tokens,
        embed_flops_per_patch=(
            vit.patch_embed.proj.in_channels * patch * patch * width
            + (norm if _is_norm(vit.patch_embed.norm) else 0)
        ),
        embed_flops_per_token=norm if _is_norm(vit.norm_pre) else 0,
        embed_params=(
            _num_params(vit.patch_embed)
            + _num_params(vit.norm_pre)
            + sum(param.numel() for param in embed if param is not None)
        ),
        norm_flops_per_token=norm if _is_norm(vit.norm) else 0,
        norm_params=_num_params(vit.norm),
        label=label,
    )
