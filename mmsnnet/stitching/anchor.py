"""What the stitching core knows of an anchor: its shape and the cost of its parts."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

#: FLOPs that LayerNorm spends on one element, as fvcore and the paper count it.
NORM_FLOPS_PER_ELEMENT = 5


@dataclass(frozen=True)
class BlockCost:
    """Cost of one transformer block as a polynomial in the number of tokens N.

    A block with windows attends within each window of the token map, its padding included: with
    W windows of w x w places it costs N per_token + W w^2 per_window_token + W w^4 per_token_pair.

    Attributes:
        per_token: Multiply-adds per token: the linear layers and the norms, those of attention
            left out where there are windows.
        per_token_pair: Multiply-adds per ordered pair of tokens: the two attention products.
        params: Number of parameters.
        window: Side of a window in tokens; 0 if all tokens attend to all.
        per_window_token: Multiply-adds of attention's linear layers and norms, per place of a
            window.
    """

    per_token: int
    per_token_pair: int
    params: int
    window: int = 0
    per_window_token: int = 0

    def flops(self, num_tokens: int, grid: tuple[int, int] | None = None) -> int:
        """FLOPs of the block on ``num_tokens`` tokens, a multiply-add counting as one.

        Args:
            num_tokens: Patches and prefix tokens.
            grid: (rows, columns) of the patches, which windows need to be known.

        Raises:
            ValueError: If the block has windows and ``grid`` is missing.
        """
        if not self.window:
            return num_tokens * self.per_token + num_tokens * num_tokens * self.per_token_pair
        if grid is None:
            raise ValueError('The cost of a block with windows needs the grid of its tokens.')
        windows = -(-grid[0] // self.window) * -(-grid[1] // self.window)
        places = self.window * self.window
        inside = places * self.per_window_token + places * places * self.per_token_pair
        return num_tokens * self.per_token + windows * inside


@dataclass(frozen=True)
class AnchorSpec:
    """Shape and cost of one plain ViT, independent of any tensor library.

    Attributes:
        width: Channels of a token.
        blocks: Cost of each block, first to last.
        patch_size: Side of a patch in pixels.
        prefix_tokens: Number of class and register tokens.
        embed_flops_per_patch: Multiply-adds of the patch projection, per patch.
        embed_flops_per_token: Further cost of the embedding per token (a norm before the blocks).
        embed_params: Parameters up to the first block: projection, tokens, position embedding.
        shared_params: Parameters that each block needs and that belong to none alone, such as a
            table of relative position bias for all.
        norm_flops_per_token: Cost of the final norm per token.
        norm_params: Parameters of the final norm.
        label: Letters that stand for the anchor in names of stitches; empty until assigned.
    """

    width: int
    blocks: tuple[BlockCost, ...]
    patch_size: int = 16
    prefix_tokens: int = 1
    embed_flops_per_patch: int = 0
    embed_flops_per_token: int = 0
    embed_params: int = 0
    shared_params: int = 0
    norm_flops_per_token: int = 0
    norm_params: int = 0
    label: str = ''

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches of an image of (height, width) pixels, the last padded."""
        height, width = image_size
        return -(-height // self.patch_size), -(-width // self.patch_size)

    def num_patches(self, image_size: tuple[int, int]) -> int:
        """Patches of an image of (height, width) pixels; a partial patch is padded to a whole."""
        rows, columns = self.grid(image_size)
        return rows * columns

    def num_tokens(self, image_size: tuple[int, int]) -> int:
        """Patches and prefix tokens of an image of (height, width) pixels."""
        return self.num_patches(image_size) + self.prefix_tokens

    def flops(self, image_size: tuple[int, int]) -> int:
        """FLOPs of embedding and all blocks for one image of (height, width) pixels."""
        tokens = self.num_tokens(image_size)
        embed = self.num_patches(image_size) * self.embed_flops_per_patch
        embed += tokens * self.embed_flops_per_token
        grid = self.grid(image_size)
        return embed + sum(block.flops(tokens, grid) for block in self.blocks)

    @classmethod
    def plain_vit(
        cls,
        depth: int,
        width: int,
        *,
        label: str = '',
        patch_size: int = 16,
        prefix_tokens: int = 1,
        mlp_ratio: int = 4,
    ) -> AnchorSpec:
        """Spec of a standard ViT by closed formulas: no weights, no position embedding counted.

        A block costs N(4 + 2 mlp_ratio)C^2 + 2 N^2 C + 10 N C (norms 5 per element; softmax,
        GELU and additions not counted).
        """
        linear = (4 + 2 * mlp_ratio) * width * width
        block = BlockCost(
            per_token=linear + 2 * NORM_FLOPS_PER_ELEMENT * width,
            per_token_pair=2 * width,
            params=linear + (9 + mlp_ratio) * width,
        )
        patch = 3 * patch_size * patch_size * width
        return cls(
            width=width,
            blocks=(block,) * depth,
            patch_size=patch_size,
            prefix_tokens=prefix_tokens,
            embed_flops_per_patch=patch,
            embed_params=patch + width + prefix_tokens * width,
            norm_flops_per_token=NORM_FLOPS_PER_ELEMENT * width,
            norm_params=2 * width,
            label=label,
        )


def default_labels(num_anchors: int) -> tuple[str, ...]:
    """Labels from cheap to costly: S, L for two anchors, S, M, L for three, else A, B, C, ...

    Raises:
        ValueError: If there are no anchors, or more than the alphabet has letters.
    """
    if not 1 <= num_anchors <= len(string.ascii_uppercase):
        raise ValueError(
            f'Cannot label {num_anchors} anchors: 1 to {len(string.ascii_uppercase)} are possible.'
        )
    known = {2: ('S', 'L'), 3: ('S', 'M', 'L')}
    return known.get(num_anchors, tuple(string.ascii_uppercase[:num_anchors]))


def cost_order(anchors: Sequence[AnchorSpec], image_size: tuple[int, int]) -> tuple[int, ...]:
    """Positions of the anchors from cheap to costly at an image size; ties keep their order."""
    return tuple(sorted(range(len(anchors)), key=lambda i: anchors[i].flops(image_size)))


def label_anchors(anchors: Sequence[AnchorSpec]) -> tuple[AnchorSpec, ...]:
    """Give every anchor without a label the default one of its place.

    Raises:
        ValueError: If a label is not made of ASCII letters, or occurs twice.
    """
    defaults = default_labels(len(anchors))
    labelled = tuple(
        anchor if anchor.label else replace(anchor, label=default)
        for anchor, default in zip(anchors, defaults)
    )
    labels = [anchor.label for anchor in labelled]
    for label in labels:
        if not (label.isascii() and label.isalpha()):
            raise ValueError(
                f'Anchor label {label!r} is not allowed: use letters only, such as {defaults}; '
                'digits and dashes separate the parts of a stitch name.'
            )
    if len(set(labels)) != len(labels):
        raise ValueError(f'Anchor labels {labels} are not unique; give each anchor its own.')
    return labelled


def check_stitchable(anchors: Sequence[AnchorSpec]) -> None:
    """Check that anchors, from cheap to costly, can be stitched.

    Raises:
        ValueError: If patch sizes or numbers of prefix tokens differ, an anchor has no block, or
            depth or width decrease along cost.
    """
    if not anchors:
        raise ValueError('No anchors given: at least one is needed.')
    for anchor in anchors:
        if anchor.depth < 1:
            raise ValueError(f'Anchor {anchor.label} has no block; it needs at least one.')
    for small, large in zip(anchors, anchors[1:]):
        pair = f'Anchors {small.label} and {large.label} cannot be stitched: '
        if small.patch_size != large.patch_size:
            raise ValueError(
                f'{pair}patch sizes {small.patch_size} and {large.patch_size} differ, so their '
                'token grids do not match; choose anchors of one patch size.'
            )
        if small.prefix_tokens != large.prefix_tokens:
            raise ValueError(
                f'{pair}they have {small.prefix_tokens} and {large.prefix_tokens} class and '
                'register tokens; choose anchors with equally many.'
            )
        for what in ('depth', 'width'):
            low, high = getattr(small, what), getattr(large, what)
            if low > high:
                raise ValueError(
                    f'{pair}the cheaper one has the larger {what} ({low} > {high}); depth and '
                    'width must not decrease from cheap to costly.'
                )
