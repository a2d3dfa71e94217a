"""Measures the memory of one ViT-L block at 1024 px with attention in windows and on the whole map.

A training step of the block (forward and backward of one image) runs on the meta device, and every
storage that comes to life is counted until it dies: no data is computed and no memory is taken.
Attention is computed in the open, product by product, as it is where there is no fused kernel;
fused kernels keep no map of pairs of tokens in either case.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from mmsnnet.models.anchors.window_attention import run_windowed_block

MEMORY_GOAL = 1 / 3
MODEL, PATCH = 'vit_large_patch16_224', 16


class PeakMemory(TorchDispatchMode):
    """Bytes of all storages that are born under it, at most at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def _free(self, size: int) -> None:
        self.live -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self._known:
                storage = tensor.untyped_storage()
                self._known.add(storage)
                weakref.finalize(storage, self._free, storage.nbytes())
                self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        return out


def build_block() -> nn.Module:
    """One block of ViT-L without data, its attention in the open."""
    with torch.device('meta'):
        block = timm.create_model(MODEL, depth=1).blocks[0]
    block.attn.fused_attn = False
    return block.train()


def peak_bytes(block: nn.Module, run: Callable[[Tensor], Tensor], num_tokens: int) -> int:
    """Peak of a training step of one image, without what is there before it.

    Args:
        block: The block, whose gradients are dropped afterwards.
        run: Forward pass of the block.
        num_tokens: Tokens of the image.
    """
    width = block.norm1.normalized_shape[0]
    tokens = torch.empty(1, num_tokens, width, device='meta', requires_grad=True)
    with PeakMemory() as memory:
        run(tokens).sum().backward()
    block.zero_grad(set_to_none=True)
    return memory.peak


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if the goal is missed."""
    parser = argparse.ArgumentParser(prog='window_memory', description=__doc__.splitlines()[0])
    parser.add_argument('--size', type=int, default=1024, help='side of the image in pixels')
    parser.add_argument('--window', type=int, default=14, help='side of a window in patches')
    args = parser.parse_args(argv)
    if args.size < PATCH or args.window < 1:
        parser.error(f'--size must be {PATCH} or more, --window 1 or more')
    side = -(-args.size // PATCH)
    block = build_block()
    whole = peak_bytes(block, block, side * side)
    windows = peak_bytes(
        block,
        lambda tokens: run_windowed_block(block, tokens, (side, side), args.window),
        side * side,
    )
    ratio = windows / whole
    met = ratio <= MEMORY_GOAL
    print(
        f'One block of ViT-L in training, {args.size} px, one image, float32: '
        f'{windows / 2**20:.0f} MiB with windows of {args.window} x {args.window}, '
        f'{whole / 2**20:.0f} MiB on the whole map: x {ratio:.3f}; '
        f'goal <= {MEMORY_GOAL:.3f}{"" if met else "   MISSED"}'
    )
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main())
