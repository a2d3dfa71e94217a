"""ViTs whose blocks rotate queries and keys by position: timm's Eva."""

from __future__ import annotations

from collections.abc import Iterator

from timm.layers import AttentionRope
from timm.models import eva as timm_eva
from torch import Tensor, nn

from .anchor_vit import AnchorViT, BlockContext, recompute
from .position_embedding import embed_tokens


class RotaryAnchor(AnchorViT):
    """EVA, EVA-02, DINOv3, Perception Encoder and RoPE-ViT, with or without rotary embedding.

    Models trained to jitter the rotary embedding draw it anew for each training forward. It is
    drawn once for all blocks of an anchor, as timm does.
    """

    vit_class = timm_eva.Eva
    timm_modules = ('timm.models.eva',)
    known_parts = (
        timm_eva.EvaBlock,
        timm_eva.EvaBlockPostNorm,
        timm_eva.EvaAttention,
        AttentionRope,
    )

    def embed(self, images: Tensor) -> Tensor:
        """Tokens of images, before the first block."""
        # timm's _pos_embed would draw a rotary embedding too, that no block would see.
        patches = self.vit.patch_embed(images)  # (B, rows, columns, C)
        grid = tuple(patches.shape[1:3])
        tokens = embed_tokens(self.vit, patches.flatten(1, 2), grid, self.num_embedded_prefix)
        return self.vit.norm_pre(self.vit.pos_drop(tokens))

    def context(self, grid: tuple[int, int]) -> BlockContext:
        """Rotary embedding of the grid, or one per block; jittered anew in train mode."""
        rope = None if self.vit.rope is None else self.vit.rope.get_embed(shape=list(grid))
        return BlockContext(grid, rope)

    def run_block(
        self,
        tokens: Tensor,
        index: int,
        context: BlockContext | None = None,
        with_cp: bool = False,
    ) -> Tensor:
        """Tokens after block ``index``."""
        block, rope = self.vit.blocks[index], context.position
        if self.vit.rope_mixed:  # frequencies of each block's own
            rope = rope[index]
        return recompute(block, tokens, rope=rope) if with_cp else block(tokens, rope=rope)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Frequencies, where they are learned."""
        return iter(()) if self.vit.rope is None else self.vit.rope.parameters()

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """State dict as timm converts it."""
        return timm_eva.checkpoint_filter_fn(state, self.vit)
