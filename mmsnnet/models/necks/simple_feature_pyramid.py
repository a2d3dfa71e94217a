"""ViTDet's simple feature pyramid: maps at several strides from the one map of a plain ViT.

Its layers are mmcv's, which is imported when a pyramid is built: the package does without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

from mmsnnet.registry import MODELS

#: Norms of a (B, C, H, W) map over its channels, by the name that ``norm_cfg`` uses.
MODELS.register_module(name='LN2d', module=LayerNorm2d)

#: Enlargements of the ViT's map that there is a stack of layers for.
SCALE_FACTORS = (4, 2, 1, 0.5)
#: Levels at most behind those of the scale factors. With patches of 16 pixels the last has a stride
#: of 512, and further ones would be single pixels of ever the same features.
MAX_EXTRA_OUTS = 4
DEFAULT_NORM = {'type': 'LN2d', 'eps': 1e-6}


def _resampling(channels: int, scale: float, norm_cfg: Mapping[str, Any]) -> tuple[list, int]:
    """Layers that bring a map of ``channels`` to ``scale`` times its sides.

    Returns:
        The layers, and the number of channels behind them.
    """
    from mmcv.cnn import build_norm_layer

    half = channels // 2
    if scale == 4:
        return [
            nn.ConvTranspose2d(channels, half, kernel_size=2, stride=2),
            build_norm_layer(dict(norm_cfg), half)[1],
            nn.GELU(),
            nn.ConvTranspose2d(half, half // 2, kernel_size=2, stride=2),
        ], half // 2
    if scale == 2:
        return [nn.ConvTranspose2d(channels, half, kernel_size=2, stride=2)], half
    return [nn.MaxPool2d(kernel_size=2, stride=2)] if scale == 0.5 else [], channels


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Pyramid from the last map of a plain ViT alone, without lateral or top-down paths.

    ViTDet (arXiv 2203.16527, section 3 and its appendix on the implementation): 2x2 transposed
    convolutions of stride 2 halve the channels on the way up (two of them, with norm and GELU
    between, for 4 times the side), 2x2 max pooling leads down; on every level follow a 1x1 and a
    3x3 convolution, each with a norm over channels. Levels beyond ``scale_factors`` take every
    second position of the one before. With patches of 16 pixels and the defaults the strides are
    4, 8, 16, 32 and 64; RetinaNet's 8 to 128 come from ``scale_factors=(2, 1, 0.5)``.

    Args:
        in_channels: Channels of the backbone's map: the width of its largest anchor.
        out_channels: Channels of every level.
        num_outs: Number of levels, at least one for each of ``scale_factors`` and at most
            ``MAX_EXTRA_OUTS`` more.
        scale_factors: Side of each level over that of the backbone's map, from large to small;
            some of 4, 2, 1, 0.5.
        norm_cfg: Norm of the maps.
        init_cfg: MMEngine's.

    Raises:
        TypeError: If a number is not an integer, or ``norm_cfg`` not a dict.
        ValueError: If a value is not possible.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        num_outs: int = 5,
        scale_factors: Sequence[float] = SCALE_FACTORS,
        norm_cfg: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        from mmcv.cnn import ConvModule

        super().__init__(init_cfg)
        self.in_channels = _check_count('in_channels', in_channels)
        self.out_channels = _check_count('out_channels', out_channels)
        self.num_outs = _check_count('num_outs', num_outs)
        self.scale_factors = _check_scales(scale_factors, in_channels, num_outs)
        norm_cfg = _check_norm(norm_cfg or DEFAULT_NORM)
        self.levels = nn.ModuleList()
        for scale in self.scale_factors:
            layers, channels = _resampling(in_channels, scale, norm_cfg)
            self.levels.append(
                nn.Sequential(
                    *layers,
                    ConvModule(channels, out_channels, 1, norm_cfg=norm_cfg, act_cfg=None),
                    ConvModule(
                        out_channels, out_channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=None
                    ),
                )
            )

    def forward(self, features: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Levels of the pyramid.

        Args:
            features: Map (B, in_channels, H, W), or a sequence of such, of which the last counts.

        Returns:
            ``num_outs`` maps (B, out_channels, H * scale, W * scale), from large to small.

        Raises:
            ValueError: If the last of the features is not such a map, or too small to be halved.
        """
        last = features if isinstance(features, Tensor) else features[-1]
        if not isinstance(last, Tensor) or last.ndim != 4 or last.shape[1] != self.in_channels:
            given = tuple(last.shape) if isinstance(last, Tensor) else type(last).__name__
            raise ValueError(
                f'SimpleFeaturePyramid takes a map (B, {self.in_channels}, H, W), got {given}; '
                'in_channels must be the width of the largest anchor, and output_cls_token False.'
            )
        if 0.5 in self.scale_factors and min(last.shape[2:]) < 2:
            raise ValueError(
                f'SimpleFeaturePyramid cannot halve a map of {last.shape[2]} x {last.shape[3]}: '
                'give larger images, or leave 0.5 out of scale_factors.'
            )
        outputs = [level(last) for level in self.levels]
        while len(outputs) < self.num_outs:
            outputs.append(functional.max_pool2d(outputs[-1], kernel_size=1, stride=2))
        return tuple(outputs)


def _check_count(name: str, value: int) -> int:
    """A positive integer, or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f'{name}={value!r} of SimpleFeaturePyramid must be one integer; it reads the last map '
            'of the backbone alone.'
        )
    if value < 1:
        raise ValueError(f'{name}={value} of SimpleFeaturePyramid must be 1 or more.')
    return value


def _check_norm(norm_cfg: Any) -> dict[str, Any]:
    """A norm's config as a dict of its own, or an error that says how one looks."""
    if not isinstance(norm_cfg, Mapping) or 'type' not in norm_cfg:
        raise TypeError(
            f'norm_cfg={norm_cfg!r} of SimpleFeaturePyramid must be a dict with a type, such as '
            f'{DEFAULT_NORM}.'
        )
    return dict(norm_cfg)


def _check_scales(
    scales: Sequence[float], in_channels: int, num_outs: int
) -> tuple[float, ...]:
    """Scale factors as a tuple, if they, the channels and the number of levels go together."""
    given = tuple(scales) if isinstance(scales, (list, tuple)) else (scales,)
    fitting = tuple(scale for scale in SCALE_FACTORS if scale in given)
    if not given or given != fitting:
        raise ValueError(
            f'scale_factors={scales!r} of SimpleFeaturePyramid must be some of {SCALE_FACTORS}, '
            'in this order.'
        )
    if num_outs < len(given):
        raise ValueError(
            f'num_outs={num_outs} of SimpleFeaturePyramid is less than the {len(given)} '
            f'scale_factors {given}: raise it, or leave scale factors out.'
        )
    if num_outs > len(given) + MAX_EXTRA_OUTS:
        raise ValueError(
            f'num_outs={num_outs} of SimpleFeaturePyramid must be {len(given) + MAX_EXTRA_OUTS} or '
            f'less: behind its {len(given)} scale_factors a level is only the one before, halved.'
        )
    divisor = {4: 4, 2: 2}.get(given[0], 1)
    if in_channels % divisor:
        raise ValueError(
            f'in_channels={in_channels} of SimpleFeaturePyramid must be divisible by {divisor}, '
            'since every doubling of the side halves the channels.'
        )
    return given
