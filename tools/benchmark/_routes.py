"""Backbones to measure, and their routes as loops over timm's blocks written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mmsnnet.models import StitchedViT


def anchor(depth: int, width: int, patch: int = 16, heads_of: int = 64) -> dict[str, Any]:
    """Config of an anchor with heads of ``heads_of`` channels, without weights."""
    shape = dict(depth=depth, embed_dim=width, num_heads=width // heads_of, patch_size=patch)
    return dict(model_name='vit_tiny_patch16_224', pretrained=False, model_kwargs=shape)


def build_backbone(
    anchors: list[dict[str, Any]], size: int, seed: int = 0, **settings: Any
) -> StitchedViT:
    """Backbone of square images with taps behind each quarter of the largest anchor."""
    depth = max(item['model_kwargs']['depth'] for item in anchors)
    taps = tuple(depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = StitchedViT(anchors=anchors, img_size=size, out_indices=taps, **settings)
    backbone.mark_fitted()
    return backbone


def _affine_by_hand(backbone: StitchedViT, key: Any) -> Callable[[Tensor], Tensor]:
    """A stitch layer as the three linear maps that it is said to be."""
    layer = backbone.stitch_layer(key)

    def run(x: Tensor) -> Tensor:
        update = functional.linear(functional.linear(x, layer.lora_a), layer.lora_b)
        return functional.linear(x, layer.weight, layer.bias) + update * layer.scale

    return run


def forward_by_hand(backbone: StitchedViT, stitch: str) -> Callable[[Tensor], list[Any]]:
    """The computation of a stitch for anchors with one class token, prepared beforehand.

    It returns what the backbone does: maps, or pairs of map and class token.
    """
    steps: list[tuple[bool, Callable[[Tensor], Tensor] | None]] = []
    for step in backbone.space.program(stitch):
        kind = type(step).__name__
        if kind == 'Embed':
            vit = backbone.anchor(step.anchor).vit
            steps.append((False, lambda x, vit=vit: vit._pos_embed(vit.patch_embed(x))))
        elif kind == 'Block':
            steps.append((False, backbone.anchor(step.anchor).vit.blocks[step.index]))
        elif kind == 'Cross':
            steps.append((False, _affine_by_hand(backbone, step.layer)))
        else:
            steps.append((True, _affine_by_hand(backbone, step.lift) if step.lift else None))
    side = backbone.img_size[0] // backbone.patch_size

    def run(images: Tensor) -> list[Any]:
        tokens, taps = images, []
        for is_tap, call in steps:
            if is_tap:
                taps.append(call(tokens) if call else tokens)
            else:
                tokens = call(tokens)
        maps = [tap[:, 1:].reshape(len(images), side, side, -1) for tap in taps]
        maps = [item.permute(0, 3, 1, 2).contiguous() for item in maps]
        if backbone.output_cls_token:
            return [(item, tap[:, 0]) for item, tap in zip(maps, taps)]
        return maps

    return run
