"""One anchor: a plain ViT of timm that embeds images and runs single blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .anchor_config import AnchorConfig
from .position_embedding import fit_position_embedding
from .vit_cost import vit_spec


@dataclass(frozen=True)
class BlockContext:
    """What blocks need besides their tokens.

    Attributes:
        grid: (rows, columns) of patches.
        position: What the anchor computed for that grid; None in a plain ViT.
    """

    grid: tuple[int, int]
    position: Any = None


class AnchorViT(nn.Module, ABC):
    """A ViT of timm and how those of its class embed, run and load.

    It never has a control flow of blocks of its own. ``build_anchor`` chooses the subclass.

    Args:
        config: Which timm model, and its own arguments.
        vit: That model.
        final_norm: Whether the model's final norm will be used; else it is frozen.

    Attributes:
        spec: Shape and cost.
        in_channels: Channels of images.
        normalization: Mean and standard deviation per channel, in [0, 1], that the weights expect.
        vit_class: Class of timm whose models the subclass serves.
        timm_modules: Modules of timm whose named models are of that class.
        known_parts: Blocks and attentions whose cost is known.
        keeps_classifier: Whether loading the anchor's weights keeps what they have of its
            classifier, for a head to take over.
        classifier: Where those weights came from, and what they had by timm's names (``head.*``,
            ``fc_norm.*``); None before loading.
    """

    keeps_classifier: bool = False
    classifier: tuple[str, dict[str, Tensor]] | None = None

    vit_class: ClassVar[type[nn.Module]]
    timm_modules: ClassVar[tuple[str, ...]]
    known_parts: ClassVar[tuple[type[nn.Module], ...]]

    def __init__(self, config: AnchorConfig, vit: nn.Module, final_norm: bool = False) -> None:
        super().__init__()
        self.config = config
        self.vit = vit
        self.final_norm = final_norm
        self._keep_dense_parts()
        if not final_norm:
            vit.norm.requires_grad_(False)
        # Not properties: nn.Module turns an AttributeError inside one into one that denies the
        # property itself.
        self.spec = vit_spec(vit, config.label, self.shared_parameters())
        self.in_channels = vit.patch_embed.proj.in_channels
        self.normalization = (self._channel_values('mean'), self._channel_values('std'))

    def _channel_values(self, key: str) -> tuple[float, ...]:
        """Mean or deviation that the config gives, or timm's.

        timm knows three channels. For another number it repeats the weights of red, green and
        blue in this order, or sums them for one channel; the values follow.

        Raises:
            ValueError: If the config gives another number of values.
        """
        given = getattr(self.config, key)
        if given is None:
            known = self.vit.pretrained_cfg[key]
            if self.in_channels == 1:
                return (sum(known) / len(known),)
            return tuple(known[channel % len(known)] for channel in range(self.in_channels))
        if len(given) != self.in_channels:
            raise ValueError(
                f'{key}={given} of anchor {self.config.model_name} has {len(given)} values, but '
                f'its images have {self.in_channels} channels: give one for each.'
            )
        return tuple(given)

    @classmethod
    def timm_arguments(cls, img_size: tuple[int, int]) -> dict[str, Any]:
        """Arguments of timm for a model without classifier that takes images of any size.

        Args:
            img_size: (height, width) in pixels that position embeddings are laid out for.
        """
        return dict(
            num_classes=0, img_size=img_size, dynamic_img_size=True, dynamic_img_pad=True
        )

    def _keep_dense_parts(self) -> None:
        """Take off what serves classification alone."""
        self.vit.attn_pool = None
        self.vit.fc_norm = nn.Identity()

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Tokens (B, prefix + H/patch * W/patch, C) of images (B, channels, H, W).

        Sides that the patch size does not divide are padded with zeros at the bottom and right.
        """

    def context(self, grid: tuple[int, int]) -> BlockContext:
        """What the blocks need besides tokens for a (rows, columns) grid.

        To be computed once per forward pass and handed to all blocks of the anchor: a rotary
        embedding may be jittered anew at each call in train mode. It follows from the grid alone,
        since a route may enter an anchor without its embedding.
        """
        return BlockContext(grid)

    @abstractmethod
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

    def norm(self, tokens: Tensor) -> Tensor:
        """Tokens after the final norm."""
        return self.vit.norm(tokens)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters outside the blocks that each of the blocks needs."""
        return iter(())

    def keep_only(self, blocks: Collection[int], embedding: bool, norm: bool) -> None:
        """Drop the weights that a route does not run; what is kept goes by the same names.

        Args:
            blocks: Numbers of the blocks to keep; each other one becomes an Identity.
            embedding: Whether to keep what turns images into tokens.
            norm: Whether to keep the final norm.
        """
        vit = self.vit
        for index in range(len(vit.blocks)):
            if index not in blocks:
                vit.blocks[index] = nn.Identity()
        if not norm:
            vit.norm = nn.Identity()
        if not embedding:
            # The module itself stays: it knows the grid, which relative positions ask for.
            vit.patch_embed.proj = vit.patch_embed.norm = nn.Identity()
            if hasattr(vit, 'norm_pre'):
                vit.norm_pre = nn.Identity()
            for name in ('cls_token', 'reg_token', 'dist_token', 'pos_embed'):
                if getattr(vit, name, None) is not None:
                    setattr(vit, name, None)

    @abstractmethod
    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """State dict with timm's names, laid out for the anchor's image size."""

    @property
    def num_embedded_prefix(self) -> int:
        """Prefix tokens that the position embedding has entries for."""
        return 0 if self.vit.no_embed_class else self.vit.num_prefix_tokens

    def fit_positions(
        self,
        state: MutableMapping[str, Tensor],
        prefix: str,
        old_grid: tuple[int, int] | None = None,
    ) -> None:
        """Resample in place what a state dict, of another image size, has for positions.

        Args:
            state: State dict with timm's names.
            prefix: What the names of ``vit``'s weights begin with in it.
            old_grid: (rows, columns) of patches that it is laid out for; None: a square.
        """
        key = f'{prefix}pos_embed'
        fit_position_embedding(self.vit, state, key, self.num_embedded_prefix, old_grid)


def recompute(call: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """Result of a call whose inner values the backward pass, if any, computes anew."""
    if torch.is_grad_enabled() and any(map(_learns, (call, *args, *kwargs.values()))):
        return checkpoint(call, *args, use_reentrant=False, **kwargs)
    return call(*args, **kwargs)  # checkpointing would keep its input even so


def _learns(value: Any) -> bool:
    """Whether gradients of a tensor, or of weights of a module or of a method's, are asked for."""
    value = getattr(value, '__self__', value)
    if isinstance(value, nn.Module):
        return any(parameter.requires_grad for parameter in value.parameters())
    return isinstance(value, Tensor) and value.requires_grad
