"""One stitch as a backbone of its own, without the weights of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmsnnet.registry import MODELS
from mmsnnet.stitching import (
    Block,
    Cost,
    CostTable,
    Cross,
    Embed,
    StitchSpace,
    Tap,
    check_image_size,
)

from .anchors.anchor_config import AnchorConfig
from .anchors.anchor_vit import AnchorViT
from .anchors.build import build_anchor, build_anchors
from .anchors.windowed import WindowedAnchor
from .stitch_layer import StitchLayer
from .stitch_network import Features, RunState, StitchNetwork


@MODELS.register_module()
class FixedStitchedViT(StitchNetwork):
    """The blocks, crossings and lifts of one stitch, as ``mmsnnet.deploy`` extracts them.

    It computes what a StitchedViT does with that stitch. Names of weights are those of the
    StitchedViT; each crossing and each lift is one affine map, LoRA merged into it. Weights come
    from a checkpoint: nothing pretrained is loaded.

    Args:
        anchors: As of StitchedViT, all of them: they tell where a route may cross. Those that the
            stitch does not run take no memory.
        stitch: Name of the stitch.
        img_size: As of StitchedViT.
        out_indices: As of StitchedViT.
        scheme: As of StitchedViT; it must allow the stitch.
        final_norm: As of StitchedViT.
        output_cls_token: As of StitchedViT.
        window_size: As of StitchedViT.
        global_blocks: As of StitchedViT.
        drop_path_rate: As of StitchedViT, for those who train it on.
        with_cp: As of StitchedViT.
        init_cfg: MMEngine's.
        lift_taps: As of StitchedViT.

    Raises:
        ValueError: If the anchors have no such stitch, or a value is not possible.

    Attributes:
        stitch: The stitch, with its id in the space of the anchors.
    """

    def __init__(
        self,
        anchors: Sequence[str | Mapping[str, Any] | AnchorConfig],
        stitch: str,
        img_size: int | tuple[int, int] = 512,
        out_indices: int | Sequence[int] = (9, 14, 19, 23),
        scheme: str | Mapping[str, Any] = 'two_way',
        final_norm: bool = False,
        output_cls_token: bool = False,
        window_size: int | None = None,
        global_blocks: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        init_cfg: Mapping[str, Any] | None = None,
        lift_taps: bool = True,
    ) -> None:
        size = check_image_size(img_size)
        taps = (out_indices,) if isinstance(out_indices, int) else out_indices
        with torch.device('meta'):  # shapes alone: most of it will not be needed
            described, specs = build_anchors(
                anchors, size, drop_path_rate, final_norm, window_size, global_blocks
            )
            space = StitchSpace(specs, taps, scheme, final_norm, lift_taps)
            super().__init__(
                described,
                space,
                lora_rank=0,
                with_cp=with_cp,
                output_cls_token=output_cls_token,
                init_cfg=init_cfg,
            )
        self.img_size = size
        self.stitch = space[stitch]
        self._program = space.program(self.stitch)
        grid = described[0].vit.patch_embed.grid_size
        self.register_buffer('position_grid', torch.tensor(grid, dtype=torch.long))
        self._normalization = described[-1].normalization
        self._keep_anchors(described, drop_path_rate)
        self._keep_layers()

    def _keep_anchors(self, described: Sequence[AnchorViT], drop_path_rate: float) -> None:
        """Build for real what the program runs of the anchors, and drop the rest."""
        blocks: dict[int, set[int]] = {}
        for step in self._program:
            if isinstance(step, Block):
                blocks.setdefault(step.anchor, set()).add(step.index)
        taps = {step.anchor for step in self._program if isinstance(step, Tap)}
        for number, label in enumerate(self.space.labels):
            if number not in blocks:
                del self.anchors[label]
                continue
            # Built anew rather than filled by to_empty(): buffers that no checkpoint holds, such
            # as the frequencies of rotary embeddings, would be left at what lay in memory.
            anchor = _rebuild(
                described[number], self.img_size, drop_path_rate, self.space.normed_taps
            )
            anchor.keep_only(
                blocks[number],
                embedding=self._program[0] == Embed(number),
                norm=self.space.normed_taps and number in taps,
            )
            self.anchors[label] = anchor

    def _keep_layers(self) -> None:
        """The same for crossings and lifts."""
        crossings = {step.layer for step in self._program if isinstance(step, Cross)}
        lifts = {step.lift for step in self._program if isinstance(step, Tap)} - {None}
        widths = [anchor.width for anchor in self.space.anchors]
        self.stitch_layers = nn.ModuleDict(
            {
                key.name(self.space.labels): StitchLayer(
                    widths[key.source], widths[key.target], rank=0
                )
                for key in self.space.layers
                if key in crossings | lifts
            }
        )

    @property
    def cost(self) -> Cost:
        """Cost of the backbone at ``img_size``."""
        return CostTable(self.space, self.img_size)[self.stitch]

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel, in [0, 1], that images must come with.

        Those of the costliest anchor, run or not: the others' embeddings have absorbed the
        difference before they were extracted.
        """
        return self._normalization

    def begin(self, images: Tensor) -> RunState:
        """State before the first step.

        Raises:
            ValueError: If images are not (B, channels, H, W).
        """
        anchor = self.anchor(self._program[0].anchor)
        channels = anchor.vit.patch_embed.proj.in_channels
        if images.ndim != 4 or images.shape[1] != channels or 0 in images.shape:
            raise ValueError(
                f'Images must have the shape (B, {channels}, H, W), got {tuple(images.shape)}.'
            )
        return RunState(images)

    def forward(self, images: Tensor) -> Features:
        """Features of the stitch, in eval and in train mode.

        Args:
            images: Normalised images (B, channels, H, W) of any size.

        Returns:
            As StitchedViT: for each of ``out_indices`` a map (B, C_largest, H/patch, W/patch), or
            a pair of it and the class token (B, C_largest) with ``output_cls_token``.
        """
        return self.outputs(self.advance(self.begin(images), self._program))


def _rebuild(
    described: AnchorViT, img_size: tuple[int, int], drop_path_rate: float, final_norm: bool
) -> AnchorViT:
    """An anchor on the present device, as one that was built on the meta device."""
    anchor = build_anchor(described.config, img_size, drop_path_rate, final_norm)
    if not isinstance(described, WindowedAnchor):
        return anchor
    return WindowedAnchor(
        anchor.config,
        anchor.vit,
        final_norm,
        window=described.window,
        global_blocks=sorted(described.global_blocks),
    )
