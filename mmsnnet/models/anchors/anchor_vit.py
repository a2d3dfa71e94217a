"""A plain ViT of timm as an anchor: it embeds images and runs single blocks."""

from __future__ import annotations

import difflib
from functools import partial
from typing import Any

import timm
import torch
from mmengine.logging import print_log
from timm.layers import PatchEmbed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmsnnet.stitching import AnchorSpec

from .anchor_config import AnchorConfig
from .families import FAMILIES, BlockContext, family_of, family_of_name
from .vit_cost import vit_spec


def build_vit(
    config: AnchorConfig, img_size: tuple[int, int] = (224, 224), **more: Any
) -> nn.Module:
    """Build the timm model of an anchor, without loading weights.

    Args:
        config: Which model, and its own arguments.
        img_size: (height, width) in pixels that position embeddings are laid out for.
        more: Further arguments of the timm model.

    Raises:
        ValueError: If timm does not know the name, does not take the arguments, or the model is
            not a plain ViT.
    """
    name = config.model_name
    known = name.split('.')[0]
    if not timm.is_model(known):
        close = difflib.get_close_matches(known, timm.list_models(), n=4)
        raise ValueError(
            f'timm has no model {name!r}; closest names: {", ".join(close) or "none"}. '
            "List the names with timm.list_models('*vit*')."
        )
    arguments = {**family_of_name(name).arguments(img_size), **more}
    try:
        vit = timm.create_model(name, pretrained=False, **arguments, **config.model_kwargs)
    except (TypeError, RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if any(reason.endswith(f'unexpected keyword argument {key!r}') for key in arguments):
            raise ValueError(_not_plain(name, reason.split('.')[0])) from error
        raise ValueError(
            f'timm cannot build {name!r} as a plain ViT with '
            f'{ {**arguments, **config.model_kwargs} }: {reason}'
        ) from error
    _check_plain(vit, name)
    return vit


def _not_plain(name: str, kind: str) -> str:
    allowed = ', '.join(family.vit_class.__name__ for family in FAMILIES)
    return (
        f'{name!r} is of class {kind}; an anchor must be a {allowed} of timm (DeiT3, AugReg, MAE, '
        'CLIP, DINO, DINOv2, DINOv3, EVA-02, BEiT, ...): hierarchical and windowed models have no '
        'plain sequence of blocks to stitch.'
    )


def _check_plain(vit: nn.Module, name: str) -> None:
    """Raise a ValueError with the reason if a model cannot be an anchor."""
    family = family_of(vit)
    if family is None:
        raise ValueError(_not_plain(name, type(vit).__name__))
    if not isinstance(vit.patch_embed, PatchEmbed):
        raise ValueError(
            f'{name!r} embeds patches by a {type(vit.patch_embed).__name__}; an anchor must embed '
            'them by one projection, without a network in front.'
        )
    attentions = (part for part in vit.blocks.modules() if hasattr(part, 'num_heads'))
    for part in (*vit.blocks, *attentions):
        if not isinstance(part, family.parts):
            raise ValueError(
                f'{name!r} has blocks with a {type(part).__name__}, whose cost is not known; '
                f'allowed are {[kind.__name__ for kind in family.parts]}.'
            )
    if not isinstance(getattr(vit, 'patch_drop', None), (nn.Identity, type(None))):
        raise ValueError(
            f'{name!r} has patch_drop_rate > 0, which removes tokens from the map that dense '
            'heads need; leave it 0.'
        )
    patch = vit.patch_embed.patch_size
    if patch[0] != patch[1]:
        raise ValueError(f'{name!r} has patches of {patch} pixels; they must be square.')


class AnchorViT(nn.Module):
    """One anchor. It holds the timm model and never its own control flow of blocks.

    Args:
        config: Which timm model, and its own arguments.
        img_size: Input (height, width) in pixels that the position embedding is laid out for;
            other sizes interpolate it.
        drop_path_rate: Stochastic depth of the last block, rising linearly from 0.
        final_norm: Whether the model's final norm will be used; else it is frozen.

    Raises:
        ValueError: If the model cannot be an anchor.
    """

    def __init__(
        self,
        config: AnchorConfig,
        img_size: tuple[int, int] = (224, 224),
        drop_path_rate: float = 0.0,
        final_norm: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        rate = drop_path_rate if config.drop_path_rate is None else config.drop_path_rate
        if not 0 <= rate < 1:
            raise ValueError(f'drop_path_rate={rate} is not possible: it must be in [0, 1).')
        self.vit = build_vit(config, img_size, drop_path_rate=rate)
        self.family = family_of(self.vit)
        self.family.prepare(self.vit)
        if not final_norm:
            self.vit.norm.requires_grad_(False)
        elif isinstance(self.vit.norm, nn.Identity):
            print_log(
                f'{config.model_name} normalises after pooling, so final_norm=True leaves its '
                'taps as they are.',
                logger='current',
                level=30,
            )

    @property
    def spec(self) -> AnchorSpec:
        """Shape and cost of the anchor."""
        shared = self.family.shared_parameters(self.vit)
        return self.family.refine_spec(
            self.vit, vit_spec(self.vit, self.config.label, shared)
        )

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel, in [0, 1], that the weights expect."""
        known = self.vit.pretrained_cfg
        mean, std = self.config.mean or known['mean'], self.config.std or known['std']
        return tuple(mean), tuple(std)

    def embed(self, images: Tensor) -> Tensor:
        """Tokens (B, prefix + H/patch * W/patch, C) of images (B, 3, H, W).

        Sides that the patch size does not divide are padded with zeros at the bottom and right.
        """
        return self.family.embed(self.vit, images)

    def context(self, grid: tuple[int, int]) -> BlockContext:
        """What the blocks need besides tokens for a (rows, columns) grid.

        To be computed once per forward pass and handed to all blocks of the anchor: a rotary
        embedding may be jittered anew at each call in train mode.
        """
        return self.family.context(self.vit, grid)

    def run_block(
        self,
        tokens: Tensor,
        index: int,
        context: BlockContext | None = None,
        with_cp: bool = False,
    ) -> Tensor:
        """Tokens (B, N, C) after block ``index``.

        Args:
            tokens: Tokens (B, N, C) before it.
            index: Number of the block.
            context: Result of :meth:`context` for the grid of the tokens; plain ViTs need none.
            with_cp: Whether to recompute the block in the backward pass.
        """
        run = partial(self.family.run_block, self.vit, index=index, context=context)
        if with_cp and torch.is_grad_enabled():
            return checkpoint(run, tokens, use_reentrant=False)
        return run(tokens)

    def norm(self, tokens: Tensor) -> Tensor:
        """Tokens after the final norm."""
        return self.vit.norm(tokens)
