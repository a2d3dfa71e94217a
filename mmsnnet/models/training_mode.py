"""Which weights of a backbone learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from .anchors.lora import LoraSettings, add_lora
from .stitch_network import StitchNetwork

#: What ``training`` of a StitchedViT may be.
TRAINING_MODES = ('full', 'lora', 'stitches')


class TrainingMode:
    """Freezes what a training leaves alone.

    - ``'full'``: anchors and stitch layers learn.
    - ``'lora'``: of the anchors, low-rank updates of attention and MLP alone; and stitch layers.
    - ``'stitches'``: stitch layers and lifts alone. The anchors stay in eval mode, as they were
      pretrained and as stitch layers are fitted to them: no stochastic depth, no dropout.

    In all of them the heads, outside of the backbone, learn.

    Args:
        training: One of these.
        frozen_stages: As of :class:`~mmsnnet.models.StitchedViT`; what it freezes has no updates.
        anchor_lora: Fields of :class:`~mmsnnet.models.anchors.lora.LoraSettings`.

    Raises:
        TypeError: If a value is of a wrong type.
        ValueError: If there is no such training, or ``anchor_lora`` is given to another than lora.
    """

    def __init__(
        self, training: str, frozen_stages: int, anchor_lora: Mapping[str, Any] | None
    ) -> None:
        if training not in TRAINING_MODES:
            raise ValueError(
                f'training={training!r} of StitchedViT is unknown; choose one of '
                f'{", ".join(map(repr, TRAINING_MODES))}.'
            )
        if anchor_lora is not None and training != 'lora':
            raise ValueError(
                f"anchor_lora={anchor_lora!r} goes with training='lora' alone, not with "
                f'{training!r}: leave it out (lora_rank is that of the stitch layers).'
            )
        self.name = training
        self._frozen_stages = frozen_stages
        self._lora = LoraSettings.parse(anchor_lora)

    def apply(self, network: StitchNetwork) -> None:
        """Exclude from training what stays as it is, and add low-rank updates where they learn."""
        if self.name == 'lora':
            for anchor in network.anchors.values():
                add_lora(anchor.vit, self._lora)
        for module in self.frozen_modules(network):
            module.requires_grad_(False)
        for anchor in network.anchors.values() if self._frozen_stages >= 0 else ():
            for name in ('cls_token', 'reg_token', 'dist_token', 'pos_embed'):
                parameter = getattr(anchor.vit, name, None)
                if parameter is not None:
                    parameter.requires_grad_(False)
            # Positions that all blocks share: a table of bias, rotary frequencies.
            for parameter in anchor.shared_parameters():
                parameter.requires_grad_(False)

    def frozen_modules(self, network: StitchNetwork) -> Iterator[nn.Module]:
        """Modules with all their weights frozen, which stay in eval mode.

        They are whole anchors; else embeddings, and blocks that lie before a place: a block of a
        smaller anchor is frozen if it ends at or before block ``frozen_stages`` on the scale of
        the largest anchor.
        """
        if self.name == 'stitches':
            yield from network.anchors.values()
            return
        if self._frozen_stages < 0:
            return
        for number, anchor in enumerate(network.anchors.values()):
            yield anchor.vit.patch_embed
            if hasattr(anchor.vit, 'norm_pre'):
                yield anchor.vit.norm_pre
            yield anchor.vit.pos_drop
            for index, block in enumerate(anchor.vit.blocks):
                if network.space.alignment.position(number, index + 1) <= self._frozen_stages:
                    yield block
