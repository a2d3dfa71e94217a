"""Stitched backbones as encoders of segmentation_models_pytorch (extra ``smp``).

Its decoders but DPT want maps of strides 2, 4, 8, ...; all maps of a plain ViT have the stride of a
patch. :class:`StitchedEncoder` makes a pyramid of them, as UNETR (arXiv 2103.10504) does for its
U-shaped decoder: each level takes one output, projects it, and resamples it to its stride.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import segmentation_models_pytorch as smp
from torch import Tensor, nn
from torch.nn import functional

from mmsnnet.models import StitchedViT
from mmsnnet.stitching import Stitch

#: Channels of the levels of stride 2, 4, 8, 16 and 32.
CHANNELS = (32, 64, 128, 256, 256)


class StitchedEncoder(nn.Module):
    """A pyramid of a stitched backbone's outputs, by the contract of the library's encoders.

    Args:
        backbone: The backbone. Level i of n takes its output of the same relative depth.
        depth: Number of levels; level i has stride 2^i.
        channels: Channels of the levels.

    Raises:
        ValueError: If there are not so many levels.

    Attributes:
        out_channels: Channels of the images and of every level.
        output_stride: Stride of the last level.
    """

    _is_torch_scriptable = False
    _is_torch_exportable = True
    _is_torch_compilable = True

    def __init__(
        self, backbone: StitchedViT, depth: int = 5, channels: Sequence[int] = CHANNELS
    ) -> None:
        super().__init__()
        if not 1 <= depth <= len(channels):
            raise ValueError(f'encoder_depth={depth} is not possible with channels={channels}.')
        self.backbone = backbone
        widths = backbone.feature_info.channels()
        self.sources = [level * len(widths) // depth for level in range(depth)]
        self.projections = nn.ModuleList(
            nn.Conv2d(widths[source], width, 1) for source, width in zip(self.sources, channels)
        )
        in_channels = backbone.pretrained_cfg['input_size'][0]
        self.out_channels = [in_channels, *channels[:depth]]
        self.output_stride = 2**depth

    def forward(self, images: Tensor) -> list[Tensor]:
        """The images (B, 3, H, W), then maps (B, C_i, H / 2^i, W / 2^i) for i = 1 to depth."""
        maps = self.backbone(images)
        pyramid = [images]
        for level, (source, project) in enumerate(zip(self.sources, self.projections), start=1):
            size = [max(1, side >> level) for side in images.shape[-2:]]
            pyramid.append(
                functional.interpolate(
                    project(maps[source]), size=size, mode='bilinear', align_corners=False
                )
            )
        return pyramid

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """Called by the library once the encoder is built; the backbone's channels are fixed.

        Raises:
            ValueError: If others are asked for.
        """
        if in_channels != self.out_channels[0]:
            raise ValueError(
                f'in_channels={in_channels} is not possible: the backbone takes '
                f'{self.out_channels[0]}; give its anchors model_kwargs=dict(in_chans=...).'
            )

    def set_stitch(self, stitch: str | int | Stitch) -> None:
        """Choose what eval runs, see :meth:`StitchedViT.set_stitch`."""
        self.backbone.set_stitch(stitch)


def create_model(
    architecture: Callable[..., nn.Module],
    backbone: StitchedViT,
    *,
    encoder_depth: int = 5,
    channels: Sequence[int] = CHANNELS,
    **arguments: Any,
) -> nn.Module:
    """Build a model of the library on a stitched backbone.

    Args:
        architecture: Class of the library, such as ``smp.Unet`` or ``smp.FPN``. ``smp.DPT`` takes
            models of timm by name instead, see :mod:`mmsnnet.integrations.timm_models`.
        backbone: The backbone, which the model trains as it is.
        encoder_depth: Levels of the pyramid.
        channels: Channels of its levels.
        arguments: Further arguments of the architecture, such as ``classes``.
    """
    name = 'stitched_vit'
    encoders = smp.encoders.encoders
    # The library builds encoders by names in this table; the entry is there for this call alone.
    encoders[name] = dict(
        encoder=lambda depth, **_: StitchedEncoder(backbone, depth, channels),
        params={},
        pretrained_settings={},
    )
    in_channels = backbone.pretrained_cfg['input_size'][0]
    try:
        return architecture(
            name,
            encoder_depth=encoder_depth,
            encoder_weights=None,
            in_channels=in_channels,
            **arguments,
        )
    finally:
        del encoders[name]
