"""Times a depth training step of a stitched model against the same blocks called by hand.

A step is forward, the published loss, backward and AdamW on one model of ViT-S and ViT-B shape with
one DPT head, on the same images, in pairs right after each other. Both end in the same loss, which
is checked.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from _cpu_time import paired_cpu_ratio
from _routes import anchor, build_backbone, forward_by_hand
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmsnnet.registry import MODELS

TIME_GOAL = 1.05
STITCHES = ('S12', 'L12', 'S6-L6', 'L4-S4-L4')
SIZE, CHANNELS = 224, 64


def build_head(width: int) -> nn.Module:
    """The DPT head at a quarter of its width."""
    config = dict(
        type='DPTDepthHead',
        in_channels=[width] * 4,
        channels=CHANNELS,
        post_process_channels=(24, 48, 96, 192),
        init_depth=2.0,
    )
    with DefaultScope.overwrite_default_scope('mmseg'), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # mmseg's of its own builders
        return MODELS.build(config)


class Step:
    """One training step through a given forward pass of the backbone."""

    def __init__(
        self,
        forward: Callable[[Tensor], Sequence[Any]],
        head: nn.Module,
        optimizer: torch.optim.Optimizer,
        data: tuple[Tensor, Tensor],
    ) -> None:
        self._forward, self._head, self._optimizer = forward, head, optimizer
        self._images, self._depth = data

    def loss(self) -> Tensor:
        """The published loss of the data."""
        return self._head.loss_decode(self._head(self._forward(self._images)), self._depth)

    def __call__(self) -> None:
        """Make the step."""
        self._optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        self._optimizer.step()


def same_loss(first: Step, second: Step) -> bool:
    """Whether two steps see the same loss when drop path draws the same numbers."""
    losses = []
    for step in (first, second):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            losses.append(step.loss())
    return torch.equal(*losses)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if the goal is missed."""
    parser = argparse.ArgumentParser(prog='depth_step', description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=9, help='pairs of steps per stitch')
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    parser.add_argument('--batch', type=int, default=1, help='images in a step')
    args = parser.parse_args(argv)
    if args.repeats < 2 or args.batch < 1 or args.threads < 1:
        parser.error('--repeats must be 2 or more, --batch and --threads 1 or more')
    torch.set_num_threads(args.threads)
    anchors = [anchor(12, 384), anchor(12, 768)]
    backbone = build_backbone(anchors, SIZE, output_cls_token=True).train()
    head = build_head(backbone.channels).train()
    weights = [p for p in (*backbone.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(args.batch, 3, SIZE, SIZE, generator=generator)
    depth = 1 + 5 * torch.rand(args.batch, 1, SIZE, SIZE, generator=generator)
    print(
        f'Depth step, ViT-S + ViT-B, {SIZE} px, batch {args.batch}: stitched model / the same '
        f'by hand; goal: CPU time <= {TIME_GOAL}'
    )
    met = True
    for stitch in STITCHES:
        backbone.set_training_stitch(stitch)
        stitched = Step(backbone, head, optimizer, (images, depth))
        by_hand = Step(forward_by_hand(backbone, stitch), head, optimizer, (images, depth))
        same = same_loss(stitched, by_hand)
        ratio, spread, time = paired_cpu_ratio(stitched, by_hand, args.repeats)
        good = same and ratio <= TIME_GOAL
        met = met and good
        print(
            f'  {stitch:<9} {1000 * time:8.1f} ms   time x {ratio:.3f} +- {spread:.3f}   '
            f'loss {"equal" if same else "DIFFERENT"}{"" if good else "   MISSED"}',
            flush=True,
        )
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main())
