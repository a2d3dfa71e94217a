"""The published SN-Netv2 classifier from its weights alone, written by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tests.classifiers import NUM_CLASSES, classifier

#: (blocks, width, heads) of the anchors, patches of 16 pixels, images of 64.
SHAPES = ((3, 32, 2), (6, 48, 3))
GRID = 4
RANK = 4


def published_shapes(
    shapes: Sequence[tuple[int, int, int]] = SHAPES,
    grid: int = GRID,
    rank: int = RANK,
    classes: int = NUM_CLASSES,
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published code: a layer up for each block of the small anchor.

    Args:
        shapes: (blocks, width, heads) of both anchors.
        grid: Patches along a side of the image.
        rank: Rank of the updates of stitch layers.
        classes: Number of classes.
    """
    found: dict[str, tuple[int, ...]] = {}

    def add_layer(name: str, target: int, *source: int) -> None:
        found[f'{name}.weight'] = (target, *source)
        found[f'{name}.bias'] = (target,)

    for number, (depth, width, _) in enumerate(shapes):
        anchor = f'anchors.{number}.'
        found[f'{anchor}cls_token'] = (1, 1, width)
        found[f'{anchor}pos_embed'] = (1, grid * grid, width)
        add_layer(f'{anchor}patch_embed.proj', width, 3, 16, 16)
        for index in range(depth):
            block = f'{anchor}blocks.{index}.'
            found[f'{block}gamma_1'] = found[f'{block}gamma_2'] = (width,)
            for name in ('norm1', 'norm2'):
                add_layer(f'{block}{name}', width)
            add_layer(f'{block}attn.qkv', 3 * width, width)
            add_layer(f'{block}attn.proj', width, width)
            add_layer(f'{block}mlp.fc1', 4 * width, width)
            add_layer(f'{block}mlp.fc2', width, 4 * width)
        add_layer(f'{anchor}norm', width)
        add_layer(f'{anchor}head', classes, width)
    (depth, small, _), (_, large, _) = shapes
    for direction, (count, source, target) in enumerate(
        ((depth, small, large), (depth - 1, large, small))
    ):
        for index in range(count):
            layer = f'stitch_layers.{direction}.{index}.transform'
            add_layer(layer, target, source)
            found[f'{layer}.lora_A'], found[f'{layer}.lora_B'] = (rank, source), (target, rank)
    return found


def random_classifier(seed: int = 0) -> dict[str, Tensor]:
    """State dict with the names and shapes of the published code."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in published_shapes().items():
        mean = float(re.search(r'norm\d?\.weight$|gamma', name) is not None)
        size = shape[-1] if len(shape) > 1 else 9
        state[name] = mean + torch.randn(*shape, generator=generator) / size**0.5
    return state


class PublishedClassifier:
    """Logits of a route from a state dict."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.state[f'{name}.weight'].T + self.state[f'{name}.bias']

    def _norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * self.state[f'{name}.weight'] + self.state[f'{name}.bias']

    def _embed(self, anchor: str, images: Tensor) -> Tensor:
        """The class token, which has no position, in front of the patches."""
        weight = self.state[f'{anchor}patch_embed.proj.weight']
        bias = self.state[f'{anchor}patch_embed.proj.bias']
        patches = functional.conv2d(images, weight, bias, stride=16).flatten(2).transpose(1, 2)
        token = self.state[f'{anchor}cls_token'].expand(len(images), -1, -1)
        return torch.cat([token, patches + self.state[f'{anchor}pos_embed']], 1)

    def _block(self, number: int, index: int, tokens: Tensor) -> Tensor:
        block, (_, width, heads) = f'anchors.{number}.blocks.{index}.', SHAPES[number]
        normed = self._norm(f'{block}norm1', tokens)
        query, key, value = (
            part.unflatten(2, (heads, -1)).transpose(1, 2)
            for part in self._linear(f'{block}attn.qkv', normed).chunk(3, dim=-1)
        )
        scores = query @ key.transpose(-2, -1) / (width // heads) ** 0.5
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        attended = self._linear(f'{block}attn.proj', mixed)
        tokens = tokens + self.state[f'{block}gamma_1'] * attended
        hidden = self._linear(f'{block}mlp.fc1', self._norm(f'{block}norm2', tokens))
        hidden = self._linear(f'{block}mlp.fc2', functional.gelu(hidden))
        return tokens + self.state[f'{block}gamma_2'] * hidden

    def _stitch(self, direction: int, index: int, tokens: Tensor) -> Tensor:
        """What a stitch layer makes of tokens; LoRA once, at scale 1 / rank."""
        layer = f'stitch_layers.{direction}.{index}.transform'
        update = tokens @ self.state[f'{layer}.lora_A'].T @ self.state[f'{layer}.lora_B'].T
        return self._linear(layer, tokens) + update / RANK

    def logits(self, segments: Sequence[tuple[int, int, int]], images: Tensor) -> Tensor:
        """(B, classes) of a route of (anchor, start, stop), by the last anchor's classifier."""
        tokens, before = self._embed(f'anchors.{segments[0][0]}.', images), 0
        for number, start, stop in segments:
            if start:
                cut = before if number else start
                tokens = self._stitch(0 if number else 1, cut - 1, tokens)
            for index in range(start, stop):
                tokens = self._block(number, index, tokens)
            before = stop
        last = f'anchors.{segments[-1][0]}.'
        return self._linear(f'{last}head', self._norm(f'{last}norm', tokens)[:, 0])


def deit3_anchor(depth: int, width: int, heads: int, **more: Any) -> dict[str, Any]:
    """Config of an anchor as published classifiers have it, without weights."""
    arguments = dict(depth=depth, embed_dim=width, num_heads=heads) | more
    return dict(
        model_name='deit3_small_patch16_224', pretrained=False, model_kwargs=arguments
    )


def published_config(head: Any = None, **backbone: Any) -> dict[str, Any]:
    """Config of our classifier for the published weights."""
    settings = dict(anchors=[deit3_anchor(*shape) for shape in SHAPES], lora_rank=RANK)
    return classifier(head=head, **(settings | backbone))
