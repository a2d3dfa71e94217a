"""The published SN-Netv2 segmentation backbone from its weights alone, written by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

#: (blocks, width, heads) of the anchors, patches of 16 pixels, images of 64.
SHAPES = ((3, 32, 2), (6, 48, 3))
TAPS = ((0, 1, 2), (0, 3, 5))
GRID = 4
RANK = 4


def random_state(seed: int = 0, class_position: bool = False) -> dict[str, Tensor]:
    """State dict with the names and shapes of the published code.

    Args:
        seed: Of the weights.
        class_position: Whether the position embedding has a row for the class token.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        size = shape[-1] if len(shape) > 1 else 9
        return torch.randn(*shape, generator=generator) / size**0.5

    state = {}
    for number, (depth, width, heads) in enumerate(SHAPES):
        anchor = f'anchors.{number}.'
        state[f'{anchor}cls_token'] = draw(1, 1, width)
        state[f'{anchor}pos_embed'] = draw(1, GRID * GRID + class_position, width)
        state[f'{anchor}patch_embed.projection.weight'] = draw(width, 3, 16, 16) / 4
        state[f'{anchor}patch_embed.projection.bias'] = draw(width)
        for index in range(depth):
            block = f'{anchor}layers.{index}.'
            for name in ('gamma_1', 'gamma_2', 'ln1.weight', 'ln2.weight'):
                state[f'{block}{name}'] = 1 + draw(width)
            for name in ('ln1.bias', 'ln2.bias', 'attn.proj.bias', 'ffn.layers.1.bias'):
                state[f'{block}{name}'] = draw(width)
            state[f'{block}attn.relative_position_bias_table'] = 3 * draw(7 * 7 + 3, heads)
            state[f'{block}attn.relative_position_index'] = position_index(GRID)
            state[f'{block}attn.qkv.weight'] = draw(3 * width, width)
            state[f'{block}attn.qkv.bias'] = draw(3 * width)
            state[f'{block}attn.proj.weight'] = draw(width, width)
            state[f'{block}ffn.layers.0.0.weight'] = draw(4 * width, width)
            state[f'{block}ffn.layers.0.0.bias'] = draw(4 * width)
            state[f'{block}ffn.layers.1.weight'] = draw(width, 4 * width)
    small, large = SHAPES[0][1], SHAPES[1][1]
    counts = ((3, small, large), (2, large, small))
    for direction, (count, source, target) in enumerate(counts):
        for index in range(count):
            layer = f'stitch_layers.{direction}.{index}.transform.'
            state[f'{layer}weight'] = draw(target, source)
            state[f'{layer}bias'] = draw(target)
            state[f'{layer}lora_A'] = draw(RANK, source)
            state[f'{layer}lora_B'] = draw(target, RANK)
    return state


def position_index(side: int) -> Tensor:
    """Row of the table for each pair of tokens, pair by pair."""
    span, num = 2 * side - 1, side * side
    index = torch.zeros(num + 1, num + 1, dtype=torch.long)
    index[0, :], index[:, 0], index[0, 0] = span * span, span * span + 1, span * span + 2
    for query in range(num):
        for key in range(num):
            down = query // side - key // side + side - 1
            right = query % side - key % side + side - 1
            index[query + 1, key + 1] = down * span + right
    return index


class PublishedNetwork:
    """Forward pass of one route from a state dict."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def embed(self, number: int, images: Tensor) -> Tensor:
        """Tokens; the class token gets a position if there is a row for it."""
        anchor = f'anchors.{number}.'
        patches = functional.conv2d(
            images,
            self.state[f'{anchor}patch_embed.projection.weight'],
            self.state[f'{anchor}patch_embed.projection.bias'],
            stride=16,
        )
        tokens = patches.flatten(2).transpose(1, 2)
        position = self.state[f'{anchor}pos_embed']
        token = self.state[f'{anchor}cls_token'].expand(len(images), -1, -1)
        if position.shape[1] == tokens.shape[1]:
            return torch.cat([token, tokens + position], 1)
        return torch.cat([token, tokens], 1) + position

    def block(self, number: int, index: int, tokens: Tensor) -> Tensor:
        """Tokens behind a block, LayerScale and pre-norm, attention spelled out."""
        weights = {
            name.split(f'anchors.{number}.layers.{index}.')[1]: value
            for name, value in self.state.items()
            if name.startswith(f'anchors.{number}.layers.{index}.')
        }
        heads, width = SHAPES[number][2], SHAPES[number][1]

        def linear(name: str, x: Tensor) -> Tensor:
            return x @ weights[f'{name}.weight'].T + weights[f'{name}.bias']

        def norm(name: str, x: Tensor) -> Tensor:
            centred = x - x.mean(-1, keepdim=True)
            scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            return scaled * weights[f'{name}.weight'] + weights[f'{name}.bias']

        query, key, value = (
            part.unflatten(2, (heads, -1)).transpose(1, 2)
            for part in linear('attn.qkv', norm('ln1', tokens)).chunk(3, dim=-1)
        )
        table = weights['attn.relative_position_bias_table']
        bias = table[weights['attn.relative_position_index']].permute(2, 0, 1)
        scores = query @ key.transpose(-2, -1) / (width // heads) ** 0.5 + bias
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        tokens = tokens + weights['gamma_1'] * linear('attn.proj', mixed)
        hidden = functional.gelu(linear('ffn.layers.0.0', norm('ln2', tokens)))
        return tokens + weights['gamma_2'] * linear('ffn.layers.1', hidden)

    def stitch(self, direction: int, index: int, tokens: Tensor) -> Tensor:
        """What a stitch layer makes of tokens; LoRA at scale 1 / rank."""
        layer = f'stitch_layers.{direction}.{index}.transform.'
        update = self.state[f'{layer}lora_B'] @ self.state[f'{layer}lora_A'] / RANK
        return tokens @ (self.state[f'{layer}weight'] + update).T + self.state[f'{layer}bias']

    def run(self, segments: Sequence[tuple[int, int, int]], images: Tensor) -> list[Tensor]:
        """Maps (B, C, 4, 4) of a route of (anchor, start, stop)."""
        tokens, maps, before = None, [], None
        for number, start, stop in segments:
            if tokens is None:
                tokens = self.embed(number, images)
            else:
                cut = start if number == 0 else before
                tokens = self.stitch(0 if number else 1, cut - 1, tokens)
            for index in range(start, stop):
                tokens = self.block(number, index, tokens)
                if index in TAPS[number]:
                    taken = tokens if number else self.stitch(0, index, tokens)
                    maps.append(taken[:, 1:].transpose(1, 2).unflatten(2, (GRID, GRID)))
            before = stop
        return maps
