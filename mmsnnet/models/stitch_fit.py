"""Fits all stitch layers of a backbone by least squares on images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from mmengine.dist import (
    all_reduce,
    broadcast,
    broadcast_object_list,
    is_distributed,
    is_main_process,
)
from torch import Tensor, nn

from mmsnnet.stitching import LayerKey, StitchSpace

from .least_squares import AffineFit, PairedMoments


class Node(NamedTuple):
    """Features of one anchor at one boundary; ``normed`` after its final norm."""

    anchor: int
    boundary: int
    normed: bool


def layer_nodes(key: LayerKey) -> tuple[Node, Node]:
    """Features that a stitch layer maps from and to."""
    return (
        Node(key.source, key.source_boundary, key.lift),
        Node(key.target, key.target_boundary, key.lift),
    )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode, and each of its parts back into its own mode afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


class Stitched(Protocol):
    """What is fitted: a network of anchors and stitch layers."""

    space: StitchSpace
    anchors: nn.ModuleDict
    device: torch.device
    dtype: torch.dtype

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of images (B, 3, H, W)."""

    def stitch_layer(self, key: LayerKey) -> Any:
        """Stitch layer of a key of ``space.layers``."""

    def mark_fitted(self) -> None:
        """Note that the stitch layers are fitted."""


class StitchFit:
    """Streams images through the anchors and solves every stitch layer once.

    What it keeps is independent of the number of images. Images go through the anchors in eval
    mode (no drop path) and in the precision of the weights, whatever autocast says.

    Args:
        backbone: The stitched backbone, its anchors' weights loaded.
    """

    def __init__(self, backbone: Stitched) -> None:
        self._backbone = backbone
        self._keys = backbone.space.layers
        pairs = list(dict.fromkeys(tuple(sorted(layer_nodes(key))) for key in self._keys))
        nodes = sorted({node for pair in pairs for node in pair})
        self._partners = {
            node: [a if b == node else b for a, b in pairs if node in (a, b)] for node in nodes
        }
        self._moments = PairedMoments(
            widths={node: backbone.space.anchors[node.anchor].width for node in nodes},
            sources=dict.fromkeys(layer_nodes(key)[0] for key in self._keys),
            pairs=pairs,
            device=backbone.device,
            precision=backbone.dtype,
        )

    @property
    def num_samples(self) -> int:
        """Tokens seen so far, prefix tokens included."""
        return int(self._moments.count)

    @torch.no_grad()
    def add(self, images: Tensor) -> None:
        """Add normalised images (B, 3, H, W)."""
        backbone = self._backbone
        images = images.to(backbone.device, backbone.dtype)
        waiting: dict[Node, Tensor] = {}
        rows, columns = backbone.grid(images)
        prefix_tokens = backbone.space.anchors[-1].prefix_tokens
        self._moments.add_count(len(images) * (rows * columns + prefix_tokens))
        with evaluating(backbone), torch.autocast(images.device.type, enabled=False):
            for node, tokens in self._features(images):
                x = tokens.flatten(0, 1).double()
                self._moments.add_node(node, x)
                for partner in self._partners[node]:
                    if partner in waiting:
                        y = waiting[partner].flatten(0, 1).double()
                        self._moments.add_pair(node, x, partner, y)
                waiting[node] = tokens
                self._release(waiting, node)

    def _features(self, images: Tensor) -> Iterator[tuple[Node, Tensor]]:
        """Nodes and their tokens (B, N, C), anchor by anchor and block by block."""
        grid = self._backbone.grid(images)
        for number, anchor in enumerate(self._backbone.anchors.values()):
            wanted = [node for node in self._partners if node.anchor == number]
            context = anchor.context(grid)
            tokens = anchor.embed(images)
            last = max((node.boundary for node in wanted), default=0)
            for boundary in range(1, last + 1):
                tokens = anchor.run_block(tokens, boundary - 1, context)
                for node in wanted:
                    if node.boundary == boundary:
                        yield node, anchor.norm(tokens) if node.normed else tokens

    def _release(self, waiting: dict[Node, Tensor], node: Node) -> None:
        """Drop features that no node after ``node`` is paired with; nodes come in their order."""
        for kept in list(waiting):
            if all(partner <= node for partner in self._partners[kept]):
                del waiting[kept]

    def solve_together(self) -> dict[str, float]:
        """Set every stitch layer alike in all processes, from the images of all of them.

        To be called in every process. One of them solves, and the others take its layers over:
        devices that differ would solve a system of poor condition differently, and nothing
        synchronises frozen weights later.

        Returns:
            As :meth:`solve`.

        Raises:
            ValueError: In every process, as :meth:`solve`.
            RuntimeError: In every process, if the solver fails.
        """
        if not is_distributed():
            return self.solve()
        for tensor in self._moments.tensors():
            all_reduce(tensor, op='sum')
        outcome: list[dict[str, float] | Exception | None] = [None]
        if is_main_process():
            try:
                outcome = [self.solve()]
            except ValueError as error:
                outcome = [ValueError(str(error))]
            except Exception as error:  # whatever it is, the other processes wait
                outcome = [RuntimeError(f'{type(error).__name__}: {error}')]
        broadcast_object_list(outcome)
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        for layer in self._backbone.stitch_layers.values():
            for tensor in layer.state_dict().values():
                broadcast(tensor)
        self._backbone.mark_fitted()
        return outcome[0]

    def solve(self) -> dict[str, float]:
        """Set every stitch layer of the backbone.

        Returns:
            Share of the target's variance that each layer explains, by name of the layer.

        Raises:
            ValueError: If no images were added or features are not finite.
        """
        explained = {}
        for key in self._keys:
            fit = self._solve_layer(key)
            self._backbone.stitch_layer(key).set_affine(fit.weight, fit.bias)
            explained[key.name(self._backbone.space.labels)] = fit.explained
        self._backbone.mark_fitted()
        return explained

    def _solve_layer(self, key: LayerKey) -> AffineFit:
        return self._moments.solve(*layer_nodes(key))
