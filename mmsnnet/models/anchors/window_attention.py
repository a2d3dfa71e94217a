"""Attention within square windows of the token map, as ViTDet restricts it."""

from __future__ import annotations

from timm.models.vision_transformer import Block
from torch import Tensor
from torch.nn import functional


def partition(tokens: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """Cut a token map into windows that do not overlap.

    Args:
        tokens: Tokens (B, rows * columns, C) of a map.
        grid: Its (rows, columns).
        window: Side of a window in tokens. A map that it does not divide is padded with zeros at
            the bottom and right.

    Returns:
        Windows (B * windows, window * window, C), row by row within each image.
    """
    rows, columns = grid
    below, right = -rows % window, -columns % window
    x = tokens.unflatten(1, (rows, columns))  # (B, H, W, C)
    if below or right:
        x = functional.pad(x, (0, 0, 0, right, 0, below))
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # (B, down, w, across, w, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def unpartition(windows: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """Join what :func:`partition` cut, without the padding.

    Args:
        windows: Windows (B * windows, window * window, C).
        grid: (rows, columns) of the map.
        window: Side of a window in tokens.

    Returns:
        Tokens (B, rows * columns, C).
    """
    rows, columns = grid
    down, across = -(-rows // window), -(-columns // window)
    x = windows.unflatten(1, (window, window)).unflatten(0, (-1, down, across))
    x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, padded H, padded W, C)
    return x[:, :rows, :columns].flatten(1, 2)


def run_windowed_block(
    block: Block, tokens: Tensor, grid: tuple[int, int], window: int
) -> Tensor:
    """Tokens after a block whose attention sees the token's own window alone.

    ViTDet (arXiv 2203.16527, section 3): the normalised map is partitioned, padding included, and
    joined again behind attention; all else runs on the map as it is. Padding takes part in
    attention, as zeros behind the norm, as in ViTDet's released code. Drop path decides per
    image, not per window. The lines are those of timm's ``Block.forward``, which leaves no room
    between norm and attention.

    Args:
        block: Block of a plain ViT.
        tokens: Tokens (B, rows * columns, C), without class or register tokens.
        grid: (rows, columns) of the map.
        window: Side of a window in tokens.
    """
    attended = block.attn(partition(block.norm1(tokens), grid, window))
    attended = unpartition(attended, grid, window)
    tokens = tokens + block.drop_path1(block.ls1(attended))
    return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
