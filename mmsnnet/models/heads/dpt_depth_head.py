"""DPT for depth: the head of the published NYUv2 models, for mmseg's ``DepthEstimator``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from mmseg.models.decode_heads.dpt_head import DPTHead
from mmseg.models.decode_heads.vpd_depth_head import VPDDepthHead
from torch import Tensor, nn
from torch.nn import functional

READOUTS = ('project', 'add', 'ignore')
#: Channels of the hidden layer of the last convolutions, as published.
_HIDDEN = 32


class DPTDepthHead(DPTHead):
    """DPT with convolutions to depth in metres.

    Four maps are reassembled at strides of patch / 4 to patch x 2, fused from the coarsest up,
    and end in ``relu(convolutions) + min_depth`` at 16 times the size of the token grid. It is
    the head of the authors' depth toolbox (``depth/models/decode_heads/dpt_head.py`` and
    ``decode_head.py`` of Monocular-Depth-Estimation-Toolbox); all but the last convolutions is
    mmseg's ``DPTHead``. Predictions, not losses, are clamped to [min_depth, max_depth].

    Args:
        in_channels: Channels of the four maps, all the same.
        channels: Channels of the fusion blocks.
        post_process_channels: Channels of the four reassembled maps.
        readout_type: What becomes of the class token: 'project' (concatenated to every patch and
            projected), 'add' or 'ignore'. The first two need ``output_cls_token=True`` in the
            backbone; 'ignore' takes maps with or without class tokens.
        in_index: Which of the backbone's maps to read, from fine to coarse.
        min_depth: Least depth in metres, positive, because losses take its logarithm.
        max_depth: Greatest predicted depth in metres.
        init_depth: Depth in metres that the untrained head is centred on. None leaves the last
            bias to torch, as published, where some seeds start with all outputs below the
            rectifier, which then passes no gradient.
        norm_cfg: Norm of the fusion blocks; None, as published, for none.
        loss_decode: One loss or several; None takes the published ``SigLoss``.
        align_corners: Of the resizing to the image.
        init_cfg: MMEngine's.

    Raises:
        TypeError: If a number is of another type.
        ValueError: If channels, readout or the range of depth are not possible.
    """

    _stack_batch_gt = VPDDepthHead._stack_batch_gt
    loss_by_feat = VPDDepthHead.loss_by_feat

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        post_process_channels: Sequence[int] = (96, 192, 384, 768),
        readout_type: str = 'project',
        in_index: Sequence[int] = (0, 1, 2, 3),
        min_depth: float = 1e-3,
        max_depth: float = 10.0,
        init_depth: float | None = None,
        norm_cfg: Mapping[str, Any] | None = None,
        loss_decode: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        align_corners: bool = False,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        _check_maps(in_channels, in_index, channels, post_process_channels, readout_type)
        _check_depths(min_depth, max_depth, init_depth)
        super().__init__(
            embed_dims=in_channels[0],
            post_process_channels=list(post_process_channels),
            readout_type=readout_type,
            norm_cfg=norm_cfg,
            in_channels=list(in_channels),
            in_index=list(in_index),
            channels=channels,
            input_transform='multiple_select',
            num_classes=1,
            threshold=0.0,  # of binary segmentation; without one mmseg warns
            dropout_ratio=0,
            loss_decode=loss_decode or dict(type='SigLoss'),
            align_corners=align_corners,
            init_cfg=init_cfg,
        )
        self.min_depth = min_depth
        self.max_depth = max_depth
        # In place of the classifier of segmentation, which comes last in mmseg's head.
        self.conv_seg = _depth_convolutions(channels, init_depth, min_depth)

    @property
    def needs_cls_token(self) -> bool:
        """Whether inputs must be pairs of map and class token."""
        return self.reassemble_blocks.readout_type != 'ignore'

    def forward(self, inputs: Sequence[Tensor | tuple[Tensor, Tensor]]) -> Tensor:
        """Depth (B, 1, 16 x rows, 16 x columns) in metres, at least ``min_depth``.

        Args:
            inputs: Pairs of a map (B, C, rows, columns) and a class token (B, C), or with
                ``readout_type='ignore'`` such maps alone.

        Raises:
            ValueError: If there is no map of an index, or class tokens are needed and missing.
        """
        count = len(inputs)
        if not all(-count <= index < count for index in self.in_index):
            raise ValueError(
                f'in_index={self.in_index} of DPTDepthHead does not fit: {count} maps are '
                f'delivered, numbered 0 to {count - 1}.'
            )
        pairs = [(item, None) if isinstance(item, Tensor) else item for item in inputs]
        if self.needs_cls_token and any(token is None for _, token in pairs):
            raise ValueError(
                f'readout_type={self.reassemble_blocks.readout_type!r} of DPTDepthHead reads '
                'class tokens, but the backbone hands on maps alone: put '
                "backbone.output_cls_token=True, or readout_type='ignore'."
            )
        return functional.relu(super().forward(pairs)) + self.min_depth

    def predict_by_feat(self, depth: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Depth clamped to the range, then resized to the images: (B, 1, H, W) in metres."""
        return super().predict_by_feat(
            depth.clamp(self.min_depth, self.max_depth), batch_img_metas
        )


def _depth_convolutions(channels: int, init_depth: float | None, min_depth: float) -> nn.Module:
    """Layers (B, channels, H, W) -> (B, 1, 2 H, 2 W)."""
    last = nn.Conv2d(_HIDDEN, 1, 1)
    if init_depth is not None:
        with torch.no_grad():
            last.bias.fill_(init_depth - min_depth)
    return nn.Sequential(
        nn.Conv2d(channels, channels // 2, 3, padding=1),
        nn.Upsample(scale_factor=2, mode='bilinear', align_corners=True),
        nn.Conv2d(channels // 2, _HIDDEN, 3, padding=1),
        nn.ReLU(),
        last,
    )


def _check_maps(
    in_channels: Any, in_index: Any, channels: int, post_process_channels: Any, readout_type: str
) -> None:
    """Check the arguments that describe the inputs.

    Raises:
        TypeError: If channels or indices are not integers.
        ValueError: If it cannot be built so.
    """
    for name, value in (
        ('in_channels', in_channels),
        ('in_index', in_index),
        ('post_process_channels', post_process_channels),
    ):
        if not isinstance(value, (list, tuple)) or len(value) != 4:
            raise ValueError(
                f'{name}={value!r} of DPTDepthHead must list four numbers, one for each map: '
                'it reassembles four.'
            )
        _check_integers(name, value, least=-4 if name == 'in_index' else 1)
    if len(set(in_index)) < 4:
        raise ValueError(
            f'in_index={list(in_index)} of DPTDepthHead must name four different maps.'
        )
    _check_integers('channels', [channels], least=1)
    if len(set(in_channels)) > 1:
        raise ValueError(
            f'in_channels={list(in_channels)} of DPTDepthHead must be the same four times: the '
            'width of the largest anchor.'
        )
    if channels < 2:
        raise ValueError(f'channels={channels} of DPTDepthHead must be 2 or more: it halves them.')
    if readout_type not in READOUTS:
        raise ValueError(
            f'readout_type={readout_type!r} of DPTDepthHead is unknown: choose one of '
            f'{", ".join(map(repr, READOUTS))}.'
        )


def _check_integers(name: str, values: Sequence[Any], least: int) -> None:
    """Check numbers of an argument.

    Raises:
        TypeError: If one is not an integer.
        ValueError: If one is less than ``least``.
    """
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f'{name} of DPTDepthHead must be integers, got {value!r}.')
        if value < least:
            raise ValueError(f'{name} of DPTDepthHead must be {least} or more, got {value}.')


def _check_depths(min_depth: float, max_depth: float, init_depth: float | None) -> None:
    """Check the range of depth.

    Raises:
        TypeError: If a depth is not a number.
        ValueError: If it is empty or not positive, or the start lies outside.
    """
    depths = dict(min_depth=min_depth, max_depth=max_depth)
    if init_depth is not None:
        depths['init_depth'] = init_depth
    for name, value in depths.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f'{name}={value!r} of DPTDepthHead must be a number of metres.')
    if not 0 < min_depth < max_depth < math.inf:
        raise ValueError(
            f'min_depth={min_depth} and max_depth={max_depth} of DPTDepthHead must be metres with '
            '0 < min_depth < max_depth, e.g. 0.001 and 10.0 for NYUv2.'
        )
    if init_depth is not None and not min_depth <= init_depth <= max_depth:
        raise ValueError(
            f'init_depth={init_depth} of DPTDepthHead must lie between min_depth={min_depth} and '
            f'max_depth={max_depth}; None leaves the start to torch.'
        )
