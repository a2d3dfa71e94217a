"""Learned position embeddings at other grids than their own."""

from __future__ import annotations

import math
from collections.abc import MutableMapping

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn


def embed_tokens(
    vit: nn.Module, patches: Tensor, grid: tuple[int, int], num_embedded_prefix: int
) -> Tensor:
    """Put prefix tokens in front of patches and add the position embedding.

    Args:
        vit: Model with ``cls_token``, ``pos_embed`` and ``patch_embed``.
        patches: Embedded patches (B, rows * columns, C).
        grid: Their (rows, columns).
        num_embedded_prefix: Prefix tokens that the position embedding has entries for.

    Returns:
        Tokens (B, prefix + rows * columns, C), before dropout and norm.
    """
    prefix = [
        token.expand(patches.shape[0], -1, -1)
        for token in (vit.cls_token, getattr(vit, 'reg_token', None))
        if token is not None
    ]
    if vit.pos_embed is None:
        return torch.cat([*prefix, patches], dim=1)
    position = resample_abs_pos_embed(
        vit.pos_embed,
        new_size=list(grid),
        old_size=list(vit.patch_embed.grid_size),
        num_prefix_tokens=num_embedded_prefix,
    )
    if num_embedded_prefix:
        return torch.cat([*prefix, patches], dim=1) + position
    return torch.cat([*prefix, patches + position], dim=1)


def fit_position_embedding(
    vit: nn.Module,
    state: MutableMapping[str, Tensor],
    key: str,
    num_embedded_prefix: int,
    old_grid: tuple[int, int] | None = None,
) -> None:
    """Resample in place the position embedding (1, N, C) of a state dict.

    Args:
        vit: Model that will take it.
        state: State dict.
        key: Name of the embedding there.
        num_embedded_prefix: Prefix tokens that it has entries for.
        old_grid: (rows, columns) that it is laid out for; None, as the files of others do not
            say, takes a square if the number of patches is one.
    """
    own, given = vit.pos_embed, state.get(key)
    if own is None or given is None or given.ndim != 3 or given.shape[-1] != own.shape[-1]:
        return
    patches, grid = given.shape[1] - num_embedded_prefix, tuple(vit.patch_embed.grid_size)
    if old_grid is None:
        side = math.isqrt(max(patches, 0))
        old_grid = grid if given.shape == own.shape else (side, side)
    if old_grid != grid and math.prod(old_grid) == patches > 0:
        state[key] = resample_abs_pos_embed(
            given,
            new_size=list(grid),
            old_size=list(old_grid),
            num_prefix_tokens=num_embedded_prefix,
        )
