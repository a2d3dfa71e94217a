"""Builds anchors from what a config says of them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import timm
from mmengine.logging import print_log
from timm.layers import DropPath, PatchEmbed
from torch import nn

from mmsnnet.stitching import AnchorSpec, cost_order

from .anchor_config import AnchorConfig, check_drop_path_rate
from .anchor_vit import AnchorViT
from .compiled_blocks import compile_blocks
from .plain import PlainAnchor
from .relative_bias import RelativeBiasAnchor
from .rotary import RotaryAnchor
from .windowed import with_windows

#: Kinds of anchors by the class of the timm model.
KINDS: tuple[type[AnchorViT], ...] = (PlainAnchor, RotaryAnchor, RelativeBiasAnchor)


def build_anchors(
    anchors: Sequence[str | Mapping[str, Any] | AnchorConfig],
    img_size: tuple[int, int],
    drop_path_rate: float,
    final_norm: bool,
    window_size: int | None = None,
    global_blocks: Sequence[int] | None = None,
    compile_options: bool | Mapping[str, Any] = False,
) -> tuple[list[AnchorViT], list[AnchorSpec]]:
    """Build anchors and sort them from cheap to costly.

    Args:
        anchors: Settings of the anchors in any order; one alone may stand without a list.
        img_size: Input (height, width) in pixels that position embeddings are laid out for.
        drop_path_rate: Stochastic depth rate of each anchor's last block.
        final_norm: Whether taps pass the final norm of their anchor.
        window_size: Side of the windows that attention is restricted to; None for no windows.
        global_blocks: Blocks of the largest anchor without windows.
        compile_options: See :func:`~mmsnnet.models.anchors.compiled_blocks.compile_blocks`.

    Returns:
        The anchors and their specs.

    Raises:
        TypeError: If the anchors are no list.
        ValueError: If a model cannot be an anchor, or a label cannot name one.
    """
    configs = _anchor_configs(anchors)
    built = [build_anchor(config, img_size, drop_path_rate, final_norm) for config in configs]
    _check_together(built)
    order = cost_order([anchor.spec for anchor in built], img_size)
    built = with_windows([built[i] for i in order], window_size, global_blocks)
    compile_blocks(built, compile_options)
    return built, [anchor.spec for anchor in built]


def _check_together(anchors: Sequence[AnchorViT]) -> None:
    """Refuse labels that cannot name modules, and anchors for unlike images."""
    labels = [anchor.config.label for anchor in anchors]
    taken = [label for label in labels if hasattr(nn.ModuleDict(), label)]
    if taken:  # labels become names of submodules
        raise ValueError(f'Anchor label {taken[0]!r} is a word of torch; choose another, like S.')
    channels = sorted({anchor.in_channels for anchor in anchors})
    if len(channels) > 1:
        raise ValueError(
            f'Anchors take images of {channels} channels; all see the same images: give each the '
            'same model_kwargs=dict(in_chans=...).'
        )


def _anchor_configs(anchors: Any) -> list[AnchorConfig]:
    """Settings of all anchors; one alone may stand without a list."""
    if isinstance(anchors, (str, Mapping)):
        anchors = (anchors,)
    if not isinstance(anchors, Sequence):
        raise TypeError(f'anchors must be a list of timm names or dicts, got {anchors!r}.')
    return [AnchorConfig.parse(anchor) for anchor in anchors]


def build_anchor(
    config: AnchorConfig,
    img_size: tuple[int, int] = (224, 224),
    drop_path_rate: float = 0.0,
    final_norm: bool = False,
) -> AnchorViT:
    """Build one anchor, without loading weights.

    Args:
        config: Which timm model, and its own arguments.
        img_size: Input (height, width) in pixels that the position embedding is laid out for;
            other sizes interpolate it.
        drop_path_rate: Stochastic depth rate of the last block, unless the config has its own.
        final_norm: Whether the model's final norm will be used; else it is frozen.

    Raises:
        TypeError: If the rate is no number.
        ValueError: If the model cannot be an anchor, or the rate is not possible.
    """
    rate = drop_path_rate if config.drop_path_rate is None else config.drop_path_rate
    check_drop_path_rate(rate)
    vit = build_vit(config, img_size, drop_path_rate=rate)
    if config.drop_path_mode == 'constant':
        _drop_paths_alike(vit.blocks, rate)
    if final_norm and isinstance(vit.norm, nn.Identity):
        print_log(
            f'{config.model_name} normalises after pooling, so final_norm=True leaves its '
            'taps as they are.',
            logger='current',
            level=30,
        )
    return _kind_of(vit)(config, vit, final_norm)


def _drop_paths_alike(blocks: nn.Module, rate: float) -> None:
    """Give all blocks one rate of stochastic depth; timm's rise from 0, which has no module."""
    for parent in list(blocks.modules()):
        for name, _ in list(parent.named_children()):
            if name.startswith('drop_path'):
                setattr(parent, name, DropPath(rate) if rate else nn.Identity())


def build_vit(
    config: AnchorConfig, img_size: tuple[int, int] = (224, 224), **more: Any
) -> nn.Module:
    """Build the timm model of an anchor, without loading weights.

    Args:
        config: Which model, and its own arguments.
        img_size: (height, width) in pixels that position embeddings are laid out for.
        more: Further arguments of the timm model.

    Raises:
        ValueError: If timm does not know the name, does not take the arguments, or the model is
            not a plain ViT.
    """
    name = config.model_name
    known = name.split('.')[0]
    if not timm.is_model(known):
        close = difflib.get_close_matches(known, timm.list_models(), n=4)
        raise ValueError(
            f'timm has no model {name!r}; closest names: {", ".join(close) or "none"}. '
            "List the names with timm.list_models('*vit*')."
        )
    arguments = {**_kind_of_name(known).timm_arguments(img_size), **more}
    try:
        vit = timm.create_model(name, pretrained=False, **arguments, **config.model_kwargs)
    except Exception as error:  # timm checks little of what it is given
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if any(reason.endswith(f'unexpected keyword argument {key!r}') for key in arguments):
            raise ValueError(_not_plain(name, _class_of(name))) from error
        raise ValueError(
            f'timm cannot build {name!r} as a plain ViT with '
            f'{ {**arguments, **config.model_kwargs} }: {reason}'
        ) from error
    _check_plain(vit, name)
    return vit


def _kind_of(vit: nn.Module) -> type[AnchorViT] | None:
    """Kind of anchor that a model of timm makes; None if it cannot be one."""
    return next((kind for kind in KINDS if isinstance(vit, kind.vit_class)), None)


def _kind_of_name(model: str) -> type[AnchorViT]:
    """Kind that a model of timm will probably be of, by its name; it decides how to build it."""
    module = timm.model_entrypoint(model).__module__
    return next((kind for kind in KINDS if module in kind.timm_modules), PlainAnchor)


def _class_of(name: str) -> str:
    """Class that timm makes of a name alone; errors of Python 3.9 do not tell whose they are."""
    return type(timm.create_model(name, pretrained=False)).__name__


def _not_plain(name: str, vit_class: str) -> str:
    allowed = ', '.join(kind.vit_class.__name__ for kind in KINDS)
    return (
        f'{name!r} is of class {vit_class}; an anchor must be a {allowed} of timm (DeiT3, AugReg, '
        'MAE, CLIP, DINO, DINOv2, DINOv3, EVA-02, BEiT, ...): hierarchical and windowed models '
        'have no plain sequence of blocks to stitch.'
    )


def _check_plain(vit: nn.Module, name: str) -> None:
    """Raise a ValueError with the reason if a model cannot be an anchor."""
    kind = _kind_of(vit)
    if kind is None:
        raise ValueError(_not_plain(name, type(vit).__name__))
    if not isinstance(vit.patch_embed, PatchEmbed):
        raise ValueError(
            f'{name!r} embeds patches by a {type(vit.patch_embed).__name__}; an anchor must embed '
            'them by one projection, without a network in front.'
        )
    attentions = (part for part in vit.blocks.modules() if hasattr(part, 'num_heads'))
    for part in (*vit.blocks, *attentions):
        if not isinstance(part, kind.known_parts):
            raise ValueError(
                f'{name!r} has blocks with a {type(part).__name__}, whose cost is not known; '
                f'allowed are {[known.__name__ for known in kind.known_parts]}.'
            )
    if not isinstance(getattr(vit, 'patch_drop', None), (nn.Identity, type(None))):
        raise ValueError(
            f'{name!r} has patch_drop_rate > 0, which removes tokens from the map that dense '
            'heads need; leave it 0.'
        )
    if not len(vit.blocks) or not vit.patch_embed.proj.in_channels:
        raise ValueError(f'{name!r} needs at least one block and one channel of images.')
    patch = vit.patch_embed.patch_size
    if patch[0] != patch[1]:
        raise ValueError(f'{name!r} has patches of {patch} pixels; they must be square.')
