"""Anchors run block by block through timm's own parts, each class as timm's forward does it."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from torch import Tensor, nn


def timm_tokens(vit: nn.Module, images: Tensor) -> Tensor:
    """Tokens of images before the first block; a Beit takes its own size alone."""
    if isinstance(vit, Beit):
        patches = vit.patch_embed(images)
        tokens = torch.cat((vit.cls_token.expand(len(images), -1, -1), patches), dim=1)
        return tokens if vit.pos_embed is None else tokens + vit.pos_embed
    embedded = vit._pos_embed(vit.patch_embed(images))
    return vit.norm_pre(embedded[0] if isinstance(vit, Eva) else embedded)


def timm_block(vit: nn.Module, tokens: Tensor, index: int, grid: tuple[int, int]) -> Tensor:
    """Tokens behind a block."""
    if isinstance(vit, Beit):
        shared = None if vit.rel_pos_bias is None else vit.rel_pos_bias()
        return vit.blocks[index](tokens, shared_rel_pos_bias=shared)
    if isinstance(vit, Eva) and vit.rope is not None:
        rope = vit.rope.get_embed(shape=list(grid))
        return vit.blocks[index](tokens, rope=rope[index] if vit.rope_mixed else rope)
    return vit.blocks[index](tokens)


def timm_features(vit: nn.Module, images: Tensor, **settings: Any) -> list[Tensor]:
    """Tokens (B, N, C) behind each block, from timm's ``forward_intermediates``."""
    maps = vit.forward_intermediates(
        images, output_fmt='NLC', return_prefix_tokens=True, intermediates_only=True, **settings
    )
    return [torch.cat(item[::-1], 1) if isinstance(item, tuple) else item for item in maps]
