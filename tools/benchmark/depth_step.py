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
from functools import partial
from typing import Any

import torch
from _routes import anchor, build_backbone, forward_by_hand
from _steps import Step, compare
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


def loss_of(
    forward: Callable[[Tensor], Sequence[Any]], head: nn.Module, images: Tensor, depth: Tensor
) -> Tensor:
    """The published loss of the data through a forward pass of the backbone."""
    return head.loss_decode(head(forward(images)), depth)


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
        forwards = (backbone, forward_by_hand(backbone, stitch))
        stitched, by_hand = (
            Step(partial(loss_of, forward, head, images, depth), optimizer) for forward in forwards
        )
        met = compare(stitch, stitched, by_hand, args.repeats, TIME_GOAL) and met
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main())
