"""ViTs whose blocks need nothing but tokens: timm's VisionTransformer."""

from __future__ import annotations

from timm.models import vision_transformer as timm_vit
from torch import Tensor, nn

from .family import BlockContext, ViTFamily


class PlainFamily(ViTFamily):
    """DeiT3, AugReg, MAE, CLIP, DINO, DINOv2 and the like."""

    vit_class = timm_vit.VisionTransformer
    modules = ('timm.models.vision_transformer', 'timm.models.deit')
    parts = (
        timm_vit.Block,
        timm_vit.ResPostBlock,
        timm_vit.ParallelScalingBlock,
        timm_vit.ParallelThingsBlock,
        timm_vit.Attention,
    )

    def embed(self, vit: nn.Module, images: Tensor) -> Tensor:
        """Tokens of images, before the first block."""
        return vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))

    def run_block(
        self, vit: nn.Module, tokens: Tensor, index: int, context: BlockContext | None
    ) -> Tensor:
        """Tokens after block ``index``."""
        return vit.blocks[index](tokens)

    def convert(self, state: dict[str, Tensor], vit: nn.Module) -> dict[str, Tensor]:
        """State dict as timm converts it."""
        return timm_vit.checkpoint_filter_fn(state, vit, adapt_layer_scale=True)
