"""Plain ViTs whose blocks attend within windows, but for a few global ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mmsnnet.stitching import AnchorSpec, BlockCost
from mmsnnet.stitching.alignment import Alignment

from .anchor_config import AnchorConfig
from .anchor_vit import AnchorViT, BlockContext, recompute
from .plain import PlainAnchor
from .vit_cost import block_cost
from .window_attention import run_windowed_block

#: Blocks with global attention by default: ViTDet's number, evenly spaced.
NUM_GLOBAL_BLOCKS = 4


class WindowedAnchor(PlainAnchor):
    """A plain ViT as ViTDet turns it into a backbone of detectors.

    Class and register tokens belong to no window and are left out behind the position embedding,
    as ViTDet leaves out the class token; their weights stay where they are, so files of pretrained
    weights fit as ever.

    Args:
        config: Which timm model, and its own arguments.
        vit: That model, of timm's ordinary blocks.
        final_norm: Whether the model's final norm will be used; else it is frozen.
        window: Side of a window in tokens.
        global_blocks: Blocks that attend to the whole map all the same.
    """

    def __init__(
        self,
        config: AnchorConfig,
        vit: nn.Module,
        final_norm: bool = False,
        *,
        window: int,
        global_blocks: Sequence[int],
    ) -> None:
        super().__init__(config, vit, final_norm)
        self.window = window
        self.global_blocks = frozenset(global_blocks)
        self.spec = self._windowed(self.spec)

    def embed(self, images: Tensor) -> Tensor:
        """Tokens (B, H/patch * W/patch, C) of images, before the first block."""
        vit = self.vit
        tokens = vit._pos_embed(vit.patch_embed(images))[:, vit.num_prefix_tokens :]
        return vit.norm_pre(vit.patch_drop(tokens))

    def run_block(
        self,
        tokens: Tensor,
        index: int,
        context: BlockContext | None = None,
        with_cp: bool = False,
    ) -> Tensor:
        """Tokens after block ``index``."""
        if index in self.global_blocks:
            return super().run_block(tokens, index, context, with_cp)
        arguments = self.vit.blocks[index], tokens, context.grid, self.window
        return recompute(run_windowed_block, *arguments) if with_cp else (
            run_windowed_block(*arguments)
        )

    def _windowed(self, spec: AnchorSpec) -> AnchorSpec:
        """Spec without prefix tokens, with the cost of windows where there are some."""
        vit = self.vit
        tokens = (getattr(vit, name, None) for name in ('cls_token', 'reg_token', 'dist_token'))
        unused = sum(token.numel() for token in tokens if token is not None)
        if vit.pos_embed is not None:
            unused += self.num_embedded_prefix * spec.width
        blocks = tuple(
            cost if index in self.global_blocks else _windowed_cost(cost, block, self.window)
            for index, (cost, block) in enumerate(zip(spec.blocks, vit.blocks))
        )
        params = spec.embed_params - unused
        return replace(spec, prefix_tokens=0, embed_params=params, blocks=blocks)


def _windowed_cost(cost: BlockCost, block: Block, window: int) -> BlockCost:
    """Cost of a block with its attention in windows."""
    inside = block_cost(block.attn).per_token
    return replace(
        cost, per_token=cost.per_token - inside, per_window_token=inside, window=window
    )


def spread_global_blocks(depth: int) -> tuple[int, ...]:
    """The last block of each quarter of an anchor: 5, 11, 17, 23 of 24, as in ViTDet."""
    ends = (depth * part // NUM_GLOBAL_BLOCKS for part in range(1, NUM_GLOBAL_BLOCKS + 1))
    return tuple(sorted({end - 1 for end in ends if end > 0}))


def with_windows(
    anchors: Sequence[AnchorViT], window: int | None, global_blocks: Sequence[int] | None
) -> list[AnchorViT]:
    """The ViTs of anchors as anchors with attention in windows, global blocks at the same places.

    A global block of the largest anchor makes that block of each other anchor global whose span
    holds it, as taps are mapped: every route then passes each of them once.

    Args:
        anchors: Anchors from cheap to costly.
        window: Side of a window in tokens; None gives the anchors as they are.
        global_blocks: Blocks of the largest anchor with global attention; None spreads four.

    Raises:
        TypeError: If a number is not an integer.
        ValueError: If a value is not possible, or an anchor is of another kind.
    """
    if window is None:
        if global_blocks is not None:
            raise ValueError(
                f'global_blocks={global_blocks} needs window_size too, such as window_size=14; '
                'without windows every block is global.'
            )
        return list(anchors)
    depths = [anchor.spec.depth for anchor in anchors]
    if global_blocks is None:
        global_blocks = spread_global_blocks(depths[-1])
    _check_window(window, anchors[-1].vit.patch_embed.grid_size)
    _check_global_blocks(global_blocks, depths[-1])
    alignment = Alignment(sorted(depths))
    windowed = []
    for number, anchor in enumerate(anchors):
        _check_anchor(anchor)
        mine = {alignment.tap_block(number, block) for block in global_blocks}
        windowed.append(
            WindowedAnchor(
                anchor.config, anchor.vit, anchor.final_norm, window=window, global_blocks=mine
            )
        )
    return windowed


def _check_window(window: int, grid: tuple[int, int]) -> None:
    """Refuse what is no side of a window.

    A window beyond both sides of the map would be global attention that spends most of its time
    on padding: minutes or hours of it where pixels were meant.
    """
    if isinstance(window, bool) or not isinstance(window, int):
        raise TypeError(f'window_size={window!r} must be one integer, in patches; ViTDet takes 14.')
    if window < 1:
        raise ValueError(f'window_size={window} must be 1 or more patches; ViTDet takes 14.')
    if window > max(grid):
        raise ValueError(
            f'window_size={window} is larger than the {grid[0]} x {grid[1]} patches of img_size: '
            'it counts patches, not pixels (ViTDet takes 14); without window_size all attention '
            'is global.'
        )


def _check_global_blocks(global_blocks: Sequence[int], depth: int) -> None:
    """Refuse what are no blocks of the largest anchor."""
    if not isinstance(global_blocks, (list, tuple)):
        raise TypeError(
            f'global_blocks={global_blocks!r} must be a list of blocks of the largest anchor, '
            f'such as {list(spread_global_blocks(depth))}.'
        )
    for block in global_blocks:
        if isinstance(block, bool) or not isinstance(block, int):
            raise TypeError(f'global_blocks must be integers, got {block!r}.')
        if not 0 <= block < depth:
            raise ValueError(
                f'global_blocks {tuple(global_blocks)} hold {block}, but the largest anchor has '
                f'the blocks 0 to {depth - 1}.'
            )
    if len(set(global_blocks)) < len(global_blocks):
        raise ValueError(f'global_blocks {tuple(global_blocks)} name a block twice.')


def _check_anchor(anchor: AnchorViT) -> None:
    """Refuse anchors whose blocks cannot be taken apart at their attention."""
    name = anchor.config.model_name
    if type(anchor) is not PlainAnchor:
        raise ValueError(
            f'window_size does not go with {name!r}, a {type(anchor.vit).__name__}, whose position '
            'embedding works on the whole map: take a plain ViT (DeiT3, MAE, DINOv2, ...), or '
            'leave window_size out.'
        )
    other = next((block for block in anchor.vit.blocks if type(block) is not Block), None)
    if other is not None:
        raise ValueError(
            f'window_size does not go with {name!r}, whose blocks are of {type(other).__name__}: '
            "take an anchor of timm's ordinary Block, or leave window_size out."
        )
