"""Spellings in which files hold the published layout, brought to the one that is converted.

The released code names parts as MMPretrain's ViTs do. Files written by others hold the same weights
behind a wrapper's prefix, or with the names of timm and DeiT3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

#: Names of timm within an anchor, and of DeiT3's own files, with those of the published code.
_SYNONYMS = (
    (r'\.blocks\.(\d+)\.', r'.layers.\1.'),
    (r'\.norm([12])\.(weight|bias)$', r'.ln\1.\2'),
    (r'\.ls([12])\.gamma$', r'.gamma_\1'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
    (r'\.patch_embed\.proj\.', '.patch_embed.projection.'),
)
_ANCHOR = re.compile(r'(backbone\.)?anchors\.\d+\.')


def published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a published segmentor or of its backbone, named as in the released segmentors.

    Prefixes of wrappers (``module.``) are taken off, and ``backbone.`` is put in front of a
    backbone alone. Separate biases of queries and values (``q_bias``, ``v_bias``) become one of
    queries, keys and values; a bias of the keys, which has no effect, is zero where there is none.
    """
    while state and all(name.startswith('module.') for name in state):
        state = {name[len('module.') :]: value for name, value in state.items()}
    if not any(name.startswith('backbone.') for name in state):
        state = {f'backbone.{name}': value for name, value in state.items()}
    return _joined_biases({_released_name(name): value for name, value in state.items()})


def _released_name(name: str) -> str:
    if not _ANCHOR.match(name):
        return name
    for pattern, replacement in _SYNONYMS:
        name = re.sub(pattern, replacement, name)
    return name


def _joined_biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for name in [name for name in state if name.endswith('.attn.q_bias')]:
        block = name[: -len('q_bias')]
        if f'{block}v_bias' in state and f'{block}qkv.bias' not in state:
            query, value = state.pop(name), state.pop(f'{block}v_bias')
            key = state.pop(f'{block}k_bias', torch.zeros_like(query))
            state[f'{block}qkv.bias'] = torch.cat([query, key, value])
    return state
