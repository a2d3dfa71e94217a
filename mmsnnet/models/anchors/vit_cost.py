"""Spec of a timm ViT, summed from the shapes of its actual layers."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from mmsnnet.stitching import AnchorSpec, BlockCost
from mmsnnet.stitching.anchor import NORM_FLOPS_PER_ELEMENT


def _is_norm(module: nn.Module) -> bool:
    return 'norm' in type(module).__name__.lower() and hasattr(module, 'normalized_shape')


def _num_params(module: nn.Module | None) -> int:
    return 0 if module is None else sum(param.numel() for param in module.parameters())


def block_cost(block: nn.Module) -> BlockCost:
    """Cost of one block: its linear layers, norms and attention products.

    A norm over single heads (``q_norm``, ``k_norm``) runs once per head. Rotary embedding and
    relative position bias are not counted, as softmax and additions are not.
    """
    per_token = per_token_pair = 0
    for module in block.modules():
        if isinstance(module, nn.Linear):
            per_token += module.in_features * module.out_features
        if hasattr(module, 'num_heads'):
            head_dim = _head_dim(module)
            per_token_pair += 2 * module.num_heads * head_dim
            key_heads = getattr(module, 'num_kv_heads', module.num_heads)
            for name, heads in (('q_norm', module.num_heads), ('k_norm', key_heads)):
                if _is_norm(getattr(module, name, nn.Identity())):
                    per_token += NORM_FLOPS_PER_ELEMENT * heads * head_dim
    for name, module in block.named_modules():
        if _is_norm(module) and name.rsplit('.', 1)[-1] not in ('q_norm', 'k_norm'):
            per_token += NORM_FLOPS_PER_ELEMENT * module.normalized_shape[0]
    return BlockCost(per_token, per_token_pair, _num_params(block))


def _head_dim(attention: nn.Module) -> int:
    """Channels of one head; BEiT's attention does not keep them."""
    known = getattr(attention, 'head_dim', None)
    return known or attention.qkv.out_features // (3 * attention.num_heads)


def vit_spec(
    vit: nn.Module, label: str = '', shared: Iterable[nn.Parameter] = ()
) -> AnchorSpec:
    """Spec of a ViT: width, depth, tokens, and the exact cost of embedding, blocks and norm.

    Args:
        vit: Model of timm.
        label: Label of the anchor.
        shared: Parameters outside the blocks that each of the blocks needs.
    """
    width, patch = vit.embed_dim, vit.patch_embed.patch_size[0]
    tokens = ('cls_token', 'reg_token', 'dist_token', 'pos_embed')
    embed = (getattr(vit, name, None) for name in tokens)
    norm_pre = getattr(vit, 'norm_pre', nn.Identity())
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
        embed_flops_per_token=norm if _is_norm(norm_pre) else 0,
        embed_params=(
            _num_params(vit.patch_embed)
            + _num_params(norm_pre)
            + sum(param.numel() for param in embed if param is not None)
        ),
        shared_params=sum(param.numel() for param in shared),
        norm_flops_per_token=norm if _is_norm(vit.norm) else 0,
        norm_params=_num_params(vit.norm),
        label=label,
    )
