"""ViTs whose blocks rotate queries and keys by position: timm's Eva."""

from __future__ import annotations

from collections.abc import Iterator

from timm.layers import AttentionRope
from timm.models import eva as timm_eva
from torch import Tensor, nn

from .family import BlockContext, ViTFamily
from .position_embedding import embed_tokens


class RotaryFamily(ViTFamily):
    """EVA, EVA-02, DINOv3, Perception Encoder and RoPE-ViT, with or without rotary embedding.

    Models trained to jitter the rotary embedding draw it anew for each training forward. It is
    drawn once for all blocks of an anchor, as timm does.
    """

    vit_class = timm_eva.Eva
    modules = ('timm.models.eva',)
    parts = (
        timm_eva.EvaBlock,
        timm_eva.EvaBlockPostNorm,
        timm_eva.EvaAttention,
        AttentionRope,
    )

    def embed(self, vit: nn.Module, images: Tensor) -> Tensor:
        """Tokens of images, before the first block."""
        # timm's _pos_embed would draw a rotary embedding too, that no block would see.
        patches = vit.patch_embed(images)  # (B, rows, columns, C)
        grid = tuple(patches.shape[1:3])
        tokens = embed_tokens(vit, patches.flatten(1, 2), grid, self.num_embedded_prefix(vit))
        return vit.norm_pre(vit.pos_drop(tokens))

    def context(self, vit: nn.Module, grid: tuple[int, int]) -> BlockContext:
        """Rotary embedding of the grid, or one per block; jittered anew in train mode."""
        rope = None if vit.rope is None else vit.rope.get_embed(shape=list(grid))
        return BlockContext(grid, rope)

    def run_block(
        self, vit: nn.Module, tokens: Tensor, index: int, context: BlockContext | None
    ) -> Tensor:
        """Tokens after block ``index``."""
        rope = context.position
        if vit.rope_mixed:  # frequencies of each block's own
            rope = rope[index]
        return vit.blocks[index](tokens, rope=rope)

    def shared_parameters(self, vit: nn.Module) -> Iterator[nn.Parameter]:
        """Frequencies, where they are learned."""
        return iter(()) if vit.rope is None else vit.rope.parameters()

    def convert(self, state: dict[str, Tensor], vit: nn.Module) -> dict[str, Tensor]:
        """State dict as timm converts it."""
        return timm_eva.checkpoint_filter_fn(state, vit)
