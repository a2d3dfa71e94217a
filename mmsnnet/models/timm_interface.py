"""What users of timm expect of a backbone: built by name, feature_info, chosen features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from timm.models import FeatureInfo
from torch import Tensor

from mmsnnet.stitching import Stitch

from .anchors.anchor_config import AnchorConfig
from .anchors.build import build_anchors

Backbone = TypeVar('Backbone', bound='TimmInterface')
#: An output: a map (B, C, H, W), or with its prefix tokens (B, P, C).
Feature = Any


class TimmInterface:
    """Construction and features of a StitchedViT as timm's models have them."""

    @classmethod
    def from_timm(
        cls: type[Backbone],
        *anchors: str | Mapping[str, Any] | AnchorConfig,
        pretrained: bool = True,
        img_size: int | tuple[int, int] | None = None,
        out_indices: int | Sequence[int] | None = None,
        **settings: Any,
    ) -> Backbone:
        """Build a backbone of timm's models with their pretrained weights loaded, in eval mode.

        Its stitch layers wait for :meth:`fit_stitches`.

        Args:
            anchors: Names in timm, or what else ``anchors`` of the constructor may list.
            pretrained: False leaves all anchors at random weights.
            img_size: As of the constructor; None for the native size of the largest anchor.
            out_indices: As of the constructor; None for the ends of the four quarters of the
                largest anchor, or for all of its blocks if there are fewer.
            settings: Further arguments of the constructor.

        Raises:
            FileNotFoundError: If weights are missing or cannot be fetched.
            ValueError: If anchors cannot be stitched, or weights do not fit.
        """
        configs = [AnchorConfig.parse(anchor) for anchor in anchors]
        if not pretrained:
            configs = [replace(config, pretrained=False, checkpoint=None) for config in configs]
        if img_size is None or out_indices is None:
            with torch.device('meta'):  # shapes alone
                largest = build_anchors(configs, (224, 224), 0.0, False)[0][-1]
            if img_size is None:
                img_size = tuple(largest.vit.pretrained_cfg['input_size'][-2:])
            if out_indices is None:
                out_indices = even_taps(len(largest.vit.blocks))
        backbone = cls(anchors=configs, img_size=img_size, out_indices=out_indices, **settings)
        backbone.init_weights()
        return backbone.eval()

    @cached_property
    def feature_info(self) -> FeatureInfo:
        """Channels, reduction and block of every output, as timm describes features.

        ``feature_info.channels()``, ``.reduction()`` and ``.module_name()`` have one value for each
        of ``out_indices``. Modules are named in the largest anchor; a route may pass others.
        """
        self._check_lifted('feature_info')
        label = self.space.labels[-1]
        info = [
            dict(
                num_chs=self.channels,
                reduction=self.patch_size,
                module=f'anchors.{label}.vit.blocks.{tap}',
            )
            for tap in self.space.taps
        ]
        return FeatureInfo(info, tuple(range(len(info))))

    @property
    def num_prefix_tokens(self) -> int:
        """Class and register tokens in front of the patches."""
        return self.space.anchors[-1].prefix_tokens

    @property
    def num_features(self) -> int:
        """Channels of every output, under timm's name."""
        return self.channels

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """What images must be like, in timm's words, for ``timm.data.resolve_data_config``."""
        mean, std = self.normalization
        largest = self.anchor(len(self.anchors) - 1)
        return dict(
            input_size=(largest.in_channels, *self.img_size),
            fixed_input_size=False,
            interpolation=largest.vit.pretrained_cfg.get('interpolation', 'bicubic'),
            crop_pct=1.0,
            mean=mean,
            std=std,
        )

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = True,
        stitch: str | int | Stitch | None = None,
    ) -> list[Feature]:
        """Some of the outputs, as ``forward_intermediates`` of timm's models gives them.

        Args:
            images: Normalised images (B, 3, H, W).
            indices: Positions among the outputs, negative ones from the end; a number n takes the
                last n; None all. Not numbers of blocks: only ``out_indices`` have lifts.
            return_prefix_tokens: Whether to return pairs (map, prefix tokens (B, P, C)).
            norm: False; ``final_norm=True`` of the constructor norms all outputs.
            stop_early: Without effect: a stitch is run to its last output.
            output_fmt: 'NCHW', or 'NLC' for tokens (B, H * W, C).
            intermediates_only: True; there is no other output.
            stitch: What to run; None for what ``forward`` would run.

        Raises:
            ValueError: If what is asked for is not possible.
        """
        if output_fmt not in ('NCHW', 'NLC') or norm or not intermediates_only:
            raise ValueError(
                f'output_fmt={output_fmt!r}, norm={norm}, intermediates_only={intermediates_only} '
                "is not possible: choose 'NCHW' or 'NLC', norm=False (final_norm=True of the "
                'backbone norms its outputs) and intermediates_only=True.'
            )
        self._check_lifted('forward_intermediates')
        chosen = self._positions(indices)
        program = self.space.program(self.stitch_to_run(images, stitch))
        taps = (self.executor or self).advance(self.begin(images), program).taps
        return [
            self._formatted(taps[one], images, return_prefix_tokens, output_fmt) for one in chosen
        ]

    def _check_lifted(self, what: str) -> None:
        if not self.space.lift_taps:
            raise ValueError(
                f'{what} needs lift_taps=True: without it the width of the output changes with the '
                'anchor in which a stitch ends.'
            )

    def _positions(self, indices: int | Sequence[int] | None) -> list[int]:
        """Positions of outputs."""
        count = len(self.space.taps)
        if indices is None:
            return list(range(count))
        if isinstance(indices, int) and 0 < indices <= count:
            return list(range(count - indices, count))
        if isinstance(indices, Sequence) and all(-count <= one < count for one in indices):
            return [one % count for one in indices]
        raise ValueError(
            f'indices={indices} is not possible: this backbone has {count} outputs, of the blocks '
            f'{list(self.space.taps)} of its largest anchor (out_indices).'
        )

    def _formatted(
        self, tokens: Tensor, images: Tensor, with_prefix: bool, output_fmt: str
    ) -> Feature:
        prefix, patches = tokens.tensor_split([self.num_prefix_tokens], dim=1)
        if output_fmt == 'NCHW':
            patches = patches.transpose(1, 2).unflatten(2, self.grid(images)).contiguous()
        return (patches, prefix) if with_prefix else patches


def even_taps(depth: int) -> tuple[int, ...]:
    """Ends of the four quarters of a depth, or all blocks of a smaller one."""
    count = min(4, depth)
    return tuple(depth * (quarter + 1) // count - 1 for quarter in range(count))
