"""What differs between the classes of ViTs that can be anchors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from mmsnnet.stitching import AnchorSpec

from .position_embedding import fit_position_embedding


@dataclass(frozen=True)
class BlockContext:
    """What blocks need besides their tokens.

    Attributes:
        grid: (rows, columns) of patches.
        position: What the anchor's family computed for that grid; None in a plain ViT.
    """

    grid: tuple[int, int]
    position: Any = None


class ViTFamily(ABC):
    """How the ViTs of one class of timm are built, loaded and run block by block.

    Families hold no state: the timm model is an argument of every method.

    Attributes:
        vit_class: Class of the models.
        modules: Modules of timm whose named models are of that class.
        parts: Blocks and attentions whose cost is known.
    """

    vit_class: ClassVar[type[nn.Module]]
    modules: ClassVar[tuple[str, ...]]
    parts: ClassVar[tuple[type[nn.Module], ...]]

    def arguments(self, img_size: tuple[int, int]) -> dict[str, Any]:
        """Arguments of timm for a model without classifier that takes images of any size.

        Args:
            img_size: (height, width) in pixels that position embeddings are laid out for.
        """
        return dict(
            num_classes=0, img_size=img_size, dynamic_img_size=True, dynamic_img_pad=True
        )

    def prepare(self, vit: nn.Module) -> None:
        """Take off what serves classification alone, after the model was built."""
        vit.attn_pool = None
        vit.fc_norm = nn.Identity()

    @abstractmethod
    def embed(self, vit: nn.Module, images: Tensor) -> Tensor:
        """Tokens (B, prefix + H/patch * W/patch, C) of images (B, 3, H, W)."""

    def context(self, vit: nn.Module, grid: tuple[int, int]) -> BlockContext:
        """What the blocks need for a (rows, columns) grid, computed once per forward pass.

        From the grid alone: a route may enter an anchor without its embedding.
        """
        return BlockContext(grid)

    @abstractmethod
    def run_block(
        self, vit: nn.Module, tokens: Tensor, index: int, context: BlockContext | None
    ) -> Tensor:
        """Tokens (B, N, C) after block ``index``."""

    def shared_parameters(self, vit: nn.Module) -> Iterator[nn.Parameter]:
        """Parameters outside the blocks that each of the blocks needs."""
        return iter(())

    def refine_spec(self, vit: nn.Module, spec: AnchorSpec) -> AnchorSpec:
        """Spec of a model, where its layers alone do not tell what is run: as it is."""
        return spec

    @abstractmethod
    def convert(self, state: dict[str, Tensor], vit: nn.Module) -> dict[str, Tensor]:
        """State dict with timm's names, laid out for the image size of a model."""

    def num_embedded_prefix(self, vit: nn.Module) -> int:
        """Prefix tokens that the position embedding has entries for."""
        return 0 if vit.no_embed_class else vit.num_prefix_tokens

    def fit_positions(
        self,
        vit: nn.Module,
        state: MutableMapping[str, Tensor],
        prefix: str,
        old_grid: tuple[int, int] | None = None,
    ) -> None:
        """Resample in place what a state dict, at another image size, has for positions.

        Args:
            vit: Model that will take the state dict.
            state: State dict with timm's names.
            prefix: What the names of the model's weights begin with in it.
            old_grid: (rows, columns) of patches that it is laid out for; None: a square.
        """
        key, num_prefix = f'{prefix}pos_embed', self.num_embedded_prefix(vit)
        fit_position_embedding(vit, state, key, num_prefix, old_grid)
