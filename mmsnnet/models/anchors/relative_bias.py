"""ViTs whose attention adds a learned bias by relative position: timm's Beit."""

from __future__ import annotations

import copy
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from timm.models import beit as timm_beit
from torch import Tensor, nn

from .anchor_vit import AnchorViT, BlockContext, recompute
from .bias_table import TableLayout
from .position_embedding import embed_tokens

_TABLE = 'relative_position_bias_table'


@dataclass(frozen=True)
class RelativeBias:
    """Bias of one grid.

    Attributes:
        shared: Bias (heads, N, N) that all blocks add; None if each has its own alone.
        layout: How tables serve the grid; None if it is their own.
    """

    shared: Tensor | None
    layout: TableLayout | None


class RelativeBiasAnchor(AnchorViT):
    """BEiT, BEiTv2 and the published SN-Netv2 segmentors, with tables per block or shared.

    At another grid than its own a table is interpolated for the length of one block: parameters
    stay as they are.
    """

    vit_class = timm_beit.Beit
    timm_modules = ('timm.models.beit',)
    known_parts = (timm_beit.Block, timm_beit.Attention)

    @classmethod
    def timm_arguments(cls, img_size: tuple[int, int]) -> dict[str, Any]:
        """Without those for other sizes, which timm does not know here."""
        return dict(num_classes=0, img_size=img_size)

    def _keep_dense_parts(self) -> None:
        """Take off the norm behind pooling, and let images of any size in."""
        self.vit.fc_norm = nn.Identity()
        # timm has no switch for these: images of any size are welcome.
        self.vit.patch_embed.strict_img_size = False
        self.vit.patch_embed.dynamic_img_pad = True

    def embed(self, images: Tensor) -> Tensor:
        """Tokens of images, before the first block."""
        grid = self.vit.patch_embed.dynamic_feat_size(images.shape[-2:])
        return self.vit.pos_drop(embed_tokens(self.vit, self.vit.patch_embed(images), grid, 1))

    def context(self, grid: tuple[int, int]) -> BlockContext:
        """Bias that all blocks share, and how their own tables serve the grid."""
        shared, own = self.vit.rel_pos_bias, tuple(self.vit.patch_embed.grid_size)
        if tuple(grid) == own:
            bias = RelativeBias(None if shared is None else shared(), None)
        else:
            layout = TableLayout.between(own, tuple(grid), next(self.parameters()).device)
            table = None if shared is None else shared.relative_position_bias_table
            bias = RelativeBias(None if table is None else layout.bias(table), layout)
        return BlockContext(grid, bias)

    def run_block(
        self,
        tokens: Tensor,
        index: int,
        context: BlockContext | None = None,
        with_cp: bool = False,
    ) -> Tensor:
        """Tokens after block ``index``."""
        return recompute(self._run, tokens, index, context.position) if with_cp else (
            self._run(tokens, index, context.position)
        )

    def _run(self, tokens: Tensor, index: int, position: RelativeBias) -> Tensor:
        block = self.vit.blocks[index]
        bias, table = position.shared, block.attn.relative_position_bias_table
        if position.layout is not None and table is not None:
            own = position.layout.bias(table)
            bias = own if bias is None else own + bias
            block = _without_table(block)
        return block(tokens, shared_rel_pos_bias=bias)

    @torch.no_grad()
    def fix_grid(self, grid: tuple[int, int]) -> None:
        """Make (rows, columns) of patches the only grid that the anchor serves, as for an export.

        Tables and position embedding are resampled to it for good, and attention with their bias
        is spelled out: torch's exporter cannot take the fused one apart inside of a branch.
        """
        vit, device = self.vit, next(self.parameters()).device
        layout = TableLayout.between(tuple(vit.patch_embed.grid_size), tuple(grid), device)
        is_own = layout.source == tuple(grid)
        for module in self.modules():
            if hasattr(module, 'fused_attn'):
                module.fused_attn = False
            table = getattr(module, _TABLE, None)
            if table is None:
                continue
            resampled = table if is_own else layout.resample(table)
            setattr(module, _TABLE, nn.Parameter(resampled, requires_grad=False))
            module.relative_position_index = layout.index  # one for all blocks
            module.window_size, module.window_area = tuple(grid), grid[0] * grid[1]
        if vit.pos_embed is not None and not is_own:
            position = resample_abs_pos_embed(
                vit.pos_embed, list(grid), list(layout.source), vit.num_prefix_tokens
            )
            vit.pos_embed = nn.Parameter(position, requires_grad=False)
        vit.patch_embed.grid_size = tuple(grid)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Table that all blocks share, if there is one."""
        shared = self.vit.rel_pos_bias
        return iter(()) if shared is None else shared.parameters()

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """State dict as timm converts it."""
        return timm_beit.checkpoint_filter_fn(state, self.vit)

    @property
    def num_embedded_prefix(self) -> int:
        """All of them: the class token."""
        return self.vit.num_prefix_tokens

    def fit_positions(
        self,
        state: MutableMapping[str, Tensor],
        prefix: str,
        old_grid: tuple[int, int] | None = None,
    ) -> None:
        """Resample in place position embedding and tables of a state dict.

        Raises:
            ValueError: If tables are laid out for another grid, which is not square.
        """
        super().fit_positions(state, prefix, old_grid)
        grid = tuple(self.vit.patch_embed.grid_size)
        parameters = self.vit.named_parameters()
        tables = {name: own for name, own in parameters if name.endswith(_TABLE)}
        if tables and old_grid is not None and old_grid[0] != old_grid[1] and old_grid != grid:
            raise ValueError(
                f'The checkpoint has tables of relative positions for {old_grid} patches, and '
                f'img_size asks for {grid}: tables of an oblong size serve that size alone. '
                'Images of other sizes can be tested without changing img_size.'
            )
        for name, own in tables.items():
            given = state.get(prefix + name)
            if given is None or given.shape == own.shape:
                continue
            if given.ndim == 2 and given.shape[1] == own.shape[1]:
                state[prefix + name] = resize_rel_pos_bias_table(
                    given, new_window_size=grid, new_bias_shape=own.shape
                )


def _without_table(block: nn.Module) -> nn.Module:
    """View of a block, its weights shared, that adds only the bias it is called with."""
    attention = copy.copy(block.attn)
    attention._parameters = {**attention._parameters, _TABLE: None}
    view = copy.copy(block)
    view._modules = {**view._modules, 'attn': attention}
    return view
