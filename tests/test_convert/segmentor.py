"""Configs of small segmentors for the tests of conversion."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.segmentors import build, single_head
from tests.test_convert.published_network import RANK, SHAPES, TAPS, random_state


def published_anchor(depth: int, width: int, heads: int, **settings: Any) -> dict[str, Any]:
    """Config of an anchor as the published code builds it, without weights."""
    arguments = dict(embed_dim=width, depth=depth, num_heads=heads, init_values=1.0)
    arguments.update(use_abs_pos_emb=True, use_rel_pos_bias=True)
    return dict(
        model_name='beit_base_patch16_224', pretrained=False, model_kwargs=arguments, **settings
    )


def segmentor_config(**backbone: Any) -> dict[str, Any]:
    """Config of a segmentor with decode head and one auxiliary head."""
    settings = dict(
        type='StitchedViT',
        anchors=[published_anchor(*shape) for shape in SHAPES],
        img_size=64,
        out_indices=TAPS[1],
        lora_rank=RANK,
    )
    return dict(
        type='EncoderDecoder',
        backbone=settings | backbone,
        decode_head=single_head('FCNHead', 48, in_index=2, num_convs=1),
        auxiliary_head=[single_head('FCNHead', 48, in_index=0, num_convs=1)],
    )


def build_model(**backbone: Any) -> nn.Module:
    """The segmentor, in eval mode."""
    return build(segmentor_config(**backbone)).eval()


def published_segmentor(seed: int = 0) -> dict[str, Tensor]:
    """State dict of a published segmentor: backbone and heads."""
    state = {f'backbone.{name}': value for name, value in random_state(seed).items()}
    generator = torch.Generator().manual_seed(seed)
    for name, value in build_model().state_dict().items():
        if not name.startswith('backbone.'):
            random = torch.rand(value.shape, generator=generator) + 0.5
            state[name] = random if value.is_floating_point() else value
    return state
