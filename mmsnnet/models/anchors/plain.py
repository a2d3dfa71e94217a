"""ViTs whose blocks need nothing but tokens: timm's VisionTransformer."""

from __future__ import annotations

from timm.models import vision_transformer as timm_vit
from torch import Tensor

from .anchor_vit import AnchorViT, BlockContext, recompute


class PlainAnchor(AnchorViT):
    """DeiT3, AugReg, MAE, CLIP, DINO, DINOv2 and the like."""

    vit_class = timm_vit.VisionTransformer
    timm_modules = ('timm.models.vision_transformer', 'timm.models.deit')
    known_parts = (
        timm_vit.Block,
        timm_vit.ResPostBlock,
        timm_vit.ParallelScalingBlock,
        timm_vit.ParallelThingsBlock,
        timm_vit.Attention,
    )

    def embed(self, images: Tensor) -> Tensor:
        """Tokens of images, before the first block."""
        vit = self.vit
        return vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))

    def run_block(
        self,
        tokens: Tensor,
        index: int,
        context: BlockContext | None = None,
        with_cp: bool = False,
    ) -> Tensor:
        """Tokens after block ``index``."""
        block = self.vit.blocks[index]
        return recompute(block, tokens) if with_cp else block(tokens)

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """State dict as timm converts it."""
        return timm_vit.checkpoint_filter_fn(state, self.vit, adapt_layer_scale=True)
