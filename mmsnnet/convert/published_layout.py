"""Weights of the published SN-Netv2 segmentors beside those of a stitched backbone.

Measured on a network of the released code with random weights. There each anchor is a ViT with a
table of relative position bias per attention and a position embedding, with or without a row for
the class token; ``stitch_layers.0[i]`` leads from block i of the small anchor to the large one and
serves taps behind that block too, ``stitch_layers.1[i]`` leads back at the same cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from timm.models.beit import Beit, gen_relative_position_index
from torch import Tensor

from mmsnnet.models import StitchNetwork
from mmsnnet.stitching import LayerKey

from .rule import Rule, Tensors, unchanged

#: Names of a block's weights there and in timm.
_BLOCK_NAMES = {
    'gamma_1': 'gamma_1',
    'gamma_2': 'gamma_2',
    'ln1.weight': 'norm1.weight',
    'ln1.bias': 'norm1.bias',
    'ln2.weight': 'norm2.weight',
    'ln2.bias': 'norm2.bias',
    'attn.relative_position_bias_table': 'attn.relative_position_bias_table',
    'attn.qkv.weight': 'attn.qkv.weight',
    'attn.proj.weight': 'attn.proj.weight',
    'attn.proj.bias': 'attn.proj.bias',
    'ffn.layers.0.0.weight': 'mlp.fc1.weight',
    'ffn.layers.0.0.bias': 'mlp.fc1.bias',
    'ffn.layers.1.weight': 'mlp.fc2.weight',
    'ffn.layers.1.bias': 'mlp.fc2.bias',
}


def backbone_rules(
    network: StitchNetwork, lora_merged: bool = False, class_position: bool = False
) -> list[Rule]:
    """Rules for all weights of a backbone, without the prefix that they have in a segmentor.

    Args:
        network: Backbone of the converted weights; it may live on the meta device.
        lora_merged: Whether published stitch layers hold their low-rank update a second time.
        class_position: Whether restored position embeddings have a row for the class token;
            converted ones tell by their length.

    Raises:
        ValueError: If the published layout has no place for such a backbone.
    """
    _check(network)
    rules = []
    for number, label in enumerate(network.anchors):
        vit = network.anchor(number).vit
        rules += _embedding_rules(
            f'anchors.{number}.', f'anchors.{label}.vit.', vit, class_position
        )
        rules += _block_rules(f'anchors.{number}.', f'anchors.{label}.vit.', vit)
    for key in network.space.layers:
        rules += stitch_rules(network, key, lora_merged)
    return rules


def _check(network: StitchNetwork) -> None:
    labels = ', '.join(network.anchors)
    if len(network.anchors) != 2:
        raise ValueError(
            f'Published checkpoints have two anchors, the config has {len(network.anchors)} '
            f'({labels}).'
        )
    if network.space.normed_taps:
        raise ValueError('Published checkpoints have no final norm: set final_norm=False.')
    for label, anchor in network.anchors.items():
        tables = isinstance(anchor.vit, Beit) and anchor.vit.rel_pos_bias is None
        if not tables or anchor.vit.blocks[0].attn.relative_position_bias_table is None:
            raise ValueError(
                f'Anchor {label} ({anchor.config.model_name}) has no relative position bias in '
                "each block, as published ones have: take model_name='beit_base_patch16_224' "
                'with model_kwargs=dict(embed_dim=..., depth=..., num_heads=..., init_values=1.0, '
                'use_abs_pos_emb=True, use_rel_pos_bias=True).'
            )


def _embedding_rules(there: str, here: str, vit: Beit, class_position: bool) -> Iterator[Rule]:
    embedding = ('cls_token', 'pos_embed')
    yield Rule(
        tuple(there + name for name in embedding),
        tuple(here + name for name in embedding),
        partial(_with_class_position, vit.patch_embed.num_patches),
        unchanged if class_position else _fold_class_position,
    )
    for part in ('weight', 'bias'):
        yield Rule.rename(f'{there}patch_embed.projection.{part}', f'{here}patch_embed.proj.{part}')


def _block_rules(there: str, here: str, vit: Beit) -> Iterator[Rule]:
    for index in range(len(vit.blocks)):
        old, new = f'{there}layers.{index}.', f'{here}blocks.{index}.'
        for name, ours in _BLOCK_NAMES.items():
            yield Rule.rename(old + name, new + ours)
        biases = (f'{new}attn.q_bias', f'{new}attn.v_bias')
        yield Rule((f'{old}attn.qkv.bias',), biases, _without_key_bias, _with_key_bias)
        window = tuple(vit.patch_embed.grid_size)
        yield Rule(
            (f'{old}attn.relative_position_index',),
            (),
            partial(_drop_index, window),
            partial(_make_index, window),
        )


def stitch_rules(network: StitchNetwork, key: LayerKey, lora_merged: bool) -> Iterator[Rule]:
    """Rules for one stitch layer, in segmentors and classifiers alike.

    Args:
        network: Backbone of the converted weights.
        key: The layer.
        lora_merged: Whether its published weight holds its low-rank update a second time.
    """
    boundary = min((key.source, key.source_boundary), (key.target, key.target_boundary))[1]
    there = f'stitch_layers.{key.source}.{boundary - 1}.transform.'
    here = f'stitch_layers.{key.name(list(network.anchors))}.'
    yield Rule.rename(f'{there}bias', f'{here}bias')
    layer = network.stitch_layer(key)
    if not layer.rank:
        yield Rule.rename(f'{there}weight', f'{here}weight')
        return
    weights = [f'{there}{name}' for name in ('weight', 'lora_A', 'lora_B')]
    ours = [f'{here}{name}' for name in ('weight', 'lora_a', 'lora_b')]
    scale = layer.scale if lora_merged else 0.0
    yield Rule(
        tuple(weights), tuple(ours), partial(_add_update, -scale), partial(_add_update, scale)
    )


def _with_class_position(num_patches: int, token: Tensor, position: Tensor) -> Tensors:
    """Class token (1, 1, C) and position embedding (1, P + 1, C).

    Where theirs is (1, P, C), the class token has no position: a row of zeros in front.
    """
    if position.shape[1] == num_patches + 1:
        return token, position
    return token, torch.cat([torch.zeros_like(position[:, :1]), position], dim=1)


def _fold_class_position(token: Tensor, position: Tensor) -> Tensors:
    return token + position[:, :1], position[:, 1:].clone()


def _without_key_bias(bias: Tensor) -> Tensors:
    """Query and value bias of (3C,); that of the keys cancels in the softmax."""
    query, _, value = bias.chunk(3)
    return query.clone(), value.clone()


def _with_key_bias(query: Tensor, value: Tensor) -> Tensors:
    return (torch.cat([query, torch.zeros_like(query), value]),)


def _make_index(window: tuple[int, int]) -> Tensors:
    return (gen_relative_position_index(window, device=torch.device('cpu')),)


def _drop_index(window: tuple[int, int], index: Tensor) -> Tensors:
    """Nothing: the index follows from the size of the window.

    Raises:
        ValueError: If it is another index than timm's.
    """
    (own,) = _make_index(window)
    if index.shape == own.shape and not torch.equal(index, own):
        raise ValueError(
            'The checkpoint numbers relative positions in another order than the published ones.'
        )
    return ()


def _add_update(scale: float, weight: Tensor, lora_a: Tensor, lora_b: Tensor) -> Tensors:
    """Weight (out, in) plus ``scale`` times its low-rank update, and the update itself."""
    return (weight + scale * (lora_b @ lora_a) if scale else weight), lora_a, lora_b
