"""Weights of the published SN-Netv2 classifiers beside those of a classifier of ours.

Read from the released code. There each anchor is a DeiT3 with a norm and a classifier of its own,
under names that timm had then (``gamma_1`` for ``ls1.gamma``), without ``backbone.`` in front.
``stitch_layers.0[i]`` leads from block i of the small anchor to the large one and
``stitch_layers.1[i]`` back at the same cut, as in segmentors. The last of ``stitch_layers.0``
stands behind the small anchor's last block, from where no stitch crosses: it is in every file, and
nothing uses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial

import torch
from timm.layers import LayerScale
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mmsnnet.models import StitchNetwork, find_stitched_backbone

from .published_layout import stitch_rules
from .rule import Rule, Tensors

#: Names of an anchor's weights there and in timm; those of LayerScale differ.
_ANCHOR_NAMES = {
    'cls_token': 'cls_token',
    'pos_embed': 'pos_embed',
    **{
        f'{layer}.{part}': f'{layer}.{part}'
        for layer in ('patch_embed.proj', 'norm')
        for part in ('weight', 'bias')
    },
}
_BLOCK_NAMES = {
    'gamma_1': 'ls1.gamma',
    'gamma_2': 'ls2.gamma',
    **{
        f'{layer}.{part}': f'{layer}.{part}'
        for layer in ('norm1', 'attn.qkv', 'attn.proj', 'norm2', 'mlp.fc1', 'mlp.fc2')
        for part in ('weight', 'bias')
    },
}


def is_published_classifier(state: Mapping[str, Tensor]) -> bool:
    """Whether a published checkpoint is of a classifier: an anchor has one of its own."""
    return any(re.search(r'(^|\.)anchors\.\d+\.head\.weight$', name) for name in state)


def classifier_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a published classifier, named as in the released code.

    Prefixes of wrappers (``module.``) are taken off, and LayerScale may have timm's names.
    """
    while state and all(name.startswith('module.') for name in state):
        state = {name[len('module.') :]: value for name, value in state.items()}
    return {re.sub(r'\.ls([12])\.gamma$', r'.gamma_\1', name): one for name, one in state.items()}


def classifier_rules(model: nn.Module, lora_merged: bool = False) -> list[Rule]:
    """Rules for all weights of a classifier.

    Args:
        model: Classifier with a StitchedClsHead; it may live on the meta device.
        lora_merged: Whether published stitch layers hold their low-rank update a second time.

    Raises:
        ValueError: If the published layout has no place for such a classifier.
    """
    backbone = find_stitched_backbone(model)
    _check(model, backbone)
    rules = []
    for number, label in enumerate(backbone.anchors):
        there, here = f'anchors.{number}.', f'backbone.anchors.{label}.vit.'
        names = dict(_ANCHOR_NAMES)
        for index in range(backbone.space.anchors[number].depth):
            block = f'blocks.{index}.'
            names.update({block + name: block + ours for name, ours in _BLOCK_NAMES.items()})
        rules += [Rule.rename(there + name, here + ours) for name, ours in names.items()]
        for part in ('weight', 'bias'):
            ours = f'head.classifiers.{label}.{part}'
            rules.append(Rule.rename(f'{there}head.{part}', ours))
    for key in backbone.space.layers:
        for rule in stitch_rules(backbone, key, lora_merged):
            ours = tuple(f'backbone.{name}' for name in rule.ours)
            rules.append(Rule(rule.published, ours, rule.convert, rule.restore))
    rules += _unused_layer(backbone)
    return rules


def _unused_layer(backbone: StitchNetwork) -> Iterator[Rule]:
    """Rules for the layer behind the small anchor's last block: dropped, and zero on the way back.

    A crossing to the large anchor exists in any file of two anchors; it tells the layer's rank.
    """
    small, large = backbone.space.anchors
    key = next((one for one in backbone.space.layers if one.source == 0), None)
    if key is None:
        return
    rank = backbone.stitch_layer(key).rank
    shapes = {'weight': (large.width, small.width), 'bias': (large.width,)}
    if rank:
        shapes |= {'lora_A': (rank, small.width), 'lora_B': (large.width, rank)}
    for name, shape in shapes.items():
        there = f'stitch_layers.0.{small.depth - 1}.transform.{name}'
        yield Rule((there,), (), _drop, partial(_zeros, shape))


def _check(model: nn.Module, backbone: StitchNetwork) -> None:
    if len(backbone.anchors) != 2:
        raise ValueError(
            f'Published checkpoints have two anchors, the config has {len(backbone.anchors)} '
            f'({", ".join(backbone.anchors)}).'
        )
    if model.head.pool != 'token' or any(
        isinstance(norm, nn.LayerNorm) for norm in model.head.fc_norms.values()
    ):
        raise ValueError(
            'Published classifiers read the class token behind the final norm: put '
            "head.pool='token' and head.fc_norm=False."
        )
    for label, anchor in backbone.anchors.items():
        vit = anchor.vit
        alike = type(vit) is VisionTransformer and vit.no_embed_class and vit.num_reg_tokens == 0
        if not alike or not isinstance(vit.blocks[0].ls1, LayerScale):
            raise ValueError(
                f'Anchor {label} ({anchor.config.model_name}) is no DeiT3, as in published '
                'classifiers, whose class token has no position and whose blocks have LayerScale: '
                "take 'deit3_small_patch16_224', 'deit3_base_patch16_224' or "
                "'deit3_large_patch16_224'."
            )


def _drop(_: Tensor) -> Tensors:
    return ()


def _zeros(shape: tuple[int, ...]) -> Tensors:
    return (torch.zeros(shape),)
