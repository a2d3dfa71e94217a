"""Anchors, stitch layers and the execution of programs on them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, Union

import torch
from torch import Tensor, nn

from mmsnnet.stitching import Block, Cross, Embed, LayerKey, Step, Stitch, StitchSpace

from .anchors.anchor_vit import AnchorViT
from .stitch_layer import StitchLayer


class AnchorTokens(NamedTuple):
    """Tokens with which a route ends, and the anchor whose they are.

    Attributes:
        tokens: Tokens (B, N, C) of that anchor, prefix tokens first.
        anchor: Its label.
        prefix_tokens: Number of its class and register tokens.
    """

    tokens: Tensor
    anchor: str
    prefix_tokens: int


#: One map (B, C, H/patch, W/patch) per tap, or pairs of a map and a class token (B, C); or the
#: tokens with which a route ends, alone.
Features = tuple[Union[Tensor, tuple[Tensor, Tensor], AnchorTokens], ...]


@dataclass(frozen=True)
class RunState:
    """What a forward pass holds after some steps of a program.

    It is never changed in place, so the state behind the common beginning of several programs can
    be kept and taken up by each of them.

    Attributes:
        images: Input (B, 3, H, W).
        tokens: Present tokens (B, N, C); None before the embedding.
        taps: Lifted tokens (B, N, C_largest) of the taps passed so far, by output position; not
            lifted, (B, N, C), where the space does not lift them.
        anchor: Number of the anchor whose block ran last; None before the first block.
    """

    images: Tensor
    tokens: Tensor | None = None
    taps: Mapping[int, Tensor] = field(default_factory=dict)
    anchor: int | None = None


class Executor(Protocol):
    """What may run programs in place of a network, see :meth:`StitchNetwork.use_executor`."""

    def advance(self, state: RunState, program: Sequence[Step]) -> RunState:
        """State behind a whole program, as :meth:`StitchNetwork.advance` computes it."""


class StitchNetwork(nn.Module):
    """Anchors from cheap to costly, the stitch layers between them, and how to run a program.

    To MMEngine it is a ``BaseModule``, as whose subclass the package registers it. It does not
    inherit from that: importing it imports all of MMEngine's training, and with it transformers
    where that is installed, of which plain PyTorch needs nothing.

    Args:
        anchors: Anchors from cheap to costly.
        space: Their space of stitches.
        lora_rank: Rank of the stitch layers' update.
        lora_alpha: Scale of the update times the rank.
        with_cp: Whether to recompute blocks in the backward pass.
        output_cls_token: Whether outputs are pairs with the class token.
        init_cfg: MMEngine's.

    Raises:
        ValueError: If the anchors have no class token to return, or all tokens are returned.

    Attributes:
        executor: What runs programs in place of the network, if anything.
        was_loaded: Whether a checkpoint with anchors was loaded.
        is_init: Whether :meth:`init_weights` was called.
    """

    was_loaded: bool = False
    is_init: bool = False
    executor: Executor | None = None

    def __init__(
        self,
        anchors: Sequence[AnchorViT],
        space: StitchSpace,
        lora_rank: int = 16,
        lora_alpha: float = 1.0,
        with_cp: bool = False,
        output_cls_token: bool = False,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.init_cfg = copy.deepcopy(init_cfg)
        self.space = space
        self.with_cp = with_cp
        self.output_cls_token = output_cls_token
        self.anchors = nn.ModuleDict(zip(space.labels, anchors))
        widths = [anchor.width for anchor in space.anchors]
        self.stitch_layers = nn.ModuleDict(
            {
                key.name(space.labels): StitchLayer(
                    widths[key.source], widths[key.target], lora_rank, lora_alpha
                )
                for key in space.layers
            }
        )
        # Patches (rows, columns) that position embeddings are laid out for: in a checkpoint their
        # number alone does not tell 4 x 16 from 8 x 8.
        grid = anchors[0].vit.patch_embed.grid_size
        self.register_buffer('position_grid', torch.tensor(grid, dtype=torch.long))
        if output_cls_token and not space.lift_taps:
            raise ValueError(
                'output_cls_token=True has no meaning with lift_taps=False, which hands on all '
                'tokens, the class token among them: leave it out.'
            )
        if output_cls_token and not space.anchors[-1].prefix_tokens:
            raise ValueError(
                'output_cls_token=True needs anchors with a class token, and no window_size.'
            )

    def init_weights(self) -> None:
        """Initialise by ``init_cfg``, as MMEngine's modules do.

        It does not descend into the timm models, whose own ``init_weights`` draws random ones.
        """
        if self.init_cfg:
            from mmengine.model import initialize

            initialize(self, self.init_cfg)
        self.is_init = True

    @property
    def channels(self) -> int:
        """Channels of every output map: the width of the largest anchor.

        With ``lift_taps=False`` tokens have the width of the anchor that a route ends in.
        """
        return self.space.anchors[-1].width

    @property
    def patch_size(self) -> int:
        """Side of a patch, and stride of the output maps, in pixels."""
        return self.space.anchors[-1].patch_size

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return next(self.parameters()).dtype

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of images (B, 3, H, W), partial patches counted whole."""
        height, width = images.shape[-2:]
        return -(-height // self.patch_size), -(-width // self.patch_size)

    def anchor(self, index: int) -> AnchorViT:
        """Anchor by its place along cost."""
        return self.anchors[self.space.labels[index]]

    def stitch_layer(self, key: LayerKey) -> StitchLayer:
        """Stitch layer or lift of a key of ``space.layers``."""
        return self.stitch_layers[key.name(self.space.labels)]

    def run(self, images: Tensor, stitch: str | int | Stitch) -> Features:
        """Features of one stitch, whatever the mode and the active stitch.

        Args:
            images: Normalised images (B, 3, H, W).
            stitch: Name, id or stitch of the space.
        """
        advance = (self.executor or self).advance
        return self.outputs(advance(self.begin(images), self.space.program(stitch)))

    @contextmanager
    def use_executor(self, executor: Executor) -> Iterator[None]:
        """Let something else run all programs for the length of a ``with`` block.

        It sees every forward: to share work between them, to time them, to measure them.

        Raises:
            RuntimeError: If another one runs them already.
        """
        if self.executor is not None:
            raise RuntimeError(
                f'A {type(self.executor).__name__} runs this backbone already; end its block '
                'first.'
            )
        self.executor = executor
        try:
            yield
        finally:
            self.executor = None

    def begin(self, images: Tensor) -> RunState:
        """State before the first step of any program.

        Raises:
            ValueError: If images are not (B, 3, H, W).
        """
        channels = self.anchor(0).vit.patch_embed.proj.in_channels
        if images.ndim != 4 or images.shape[1] != channels or 0 in images.shape:
            raise ValueError(
                f'Images must have the shape (B, {channels}, H, W), got {tuple(images.shape)}.'
            )
        return RunState(images)

    def advance(self, state: RunState, steps: Sequence[Step]) -> RunState:
        """State after further steps; the given state is left as it is."""
        grid = self.grid(state.images)
        contexts = {}
        tokens, taps, last = state.tokens, dict(state.taps), state.anchor
        for step in steps:
            if isinstance(step, Block):
                anchor, last = self.anchor(step.anchor), step.anchor
                if step.anchor not in contexts:
                    contexts[step.anchor] = anchor.context(grid)
                tokens = anchor.run_block(
                    tokens, step.index, contexts[step.anchor], self.with_cp and self.training
                )
            elif isinstance(step, Embed):
                tokens = self.anchor(step.anchor).embed(state.images)
            elif isinstance(step, Cross):
                tokens = self.stitch_layer(step.layer)(tokens)
            else:
                taken = self.anchor(step.anchor).norm(tokens) if self.space.normed_taps else tokens
                if step.lift is not None:
                    taken = self.stitch_layer(step.lift)(taken)
                taps[step.position] = taken
        return replace(state, tokens=tokens, taps=taps, anchor=last)

    def outputs(self, state: RunState) -> Features:
        """Features of a state behind the last step of a program, in the order of the taps.

        Returns:
            Maps (B, C_largest, H/patch, W/patch), or with ``output_cls_token`` pairs of such a
            map and the lifted class token (B, C_largest). Without lifts, the tokens of the anchor
            in which the route ends, as :class:`AnchorTokens`.
        """
        if not self.space.lift_taps:
            spec = self.space.anchors[state.anchor]
            return (AnchorTokens(state.taps[0], spec.label, spec.prefix_tokens),)
        rows, columns = self.grid(state.images)
        prefix = self.space.anchors[-1].prefix_tokens
        features = []
        for position in range(len(self.space.taps)):
            tokens = state.taps[position]
            patches = tokens[:, prefix:].unflatten(1, (rows, columns))  # (B, H, W, C)
            feature = patches.permute(0, 3, 1, 2).contiguous()
            features.append((feature, tokens[:, 0]) if self.output_cls_token else feature)
        return tuple(features)
