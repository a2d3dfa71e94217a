"""Times a training step of a stitched model against the same blocks called by hand.

A step is forward, loss, backward and AdamW on one model of ViT-S and ViT-B shape with one head, on
the same images, in pairs right after each other. Both end in the same loss, which is checked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
from _routes import anchor, build_backbone, forward_by_hand
from _steps import Step, compare
from torch import Tensor, nn
from torch.nn import functional

TIME_GOAL = 1.05
STITCHES = ('S12', 'L12', 'S6-L6', 'L4-S4-L4')
SIZE, CLASSES = 224, 150


class Head(nn.Module):
    """Classes per patch from the sum of the projected maps."""

    def __init__(self, channels: int, num_maps: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(channels, 256, 1) for _ in range(num_maps))
        self.classify = nn.Conv2d(256, CLASSES, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (B, classes, H, W) of maps (B, C, H, W)."""
        hidden = sum(project(item) for project, item in zip(self.projections, maps))
        return self.classify(functional.relu(hidden))


def loss_of(
    forward: Callable[[Tensor], Sequence[Tensor]],
    head: nn.Module,
    images: Tensor,
    labels: Tensor,
) -> Tensor:
    """Cross entropy of the data through a forward pass of the backbone."""
    return functional.cross_entropy(head(forward(images)), labels)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if the goal is missed."""
    parser = argparse.ArgumentParser(prog='training_step', description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=9, help='pairs of steps per stitch')
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    parser.add_argument('--batch', type=int, default=1, help='images in a step')
    parser.add_argument('--device', default='cpu', help='cuda: time on a GPU, to its end')
    args = parser.parse_args(argv)
    if args.repeats < 2 or args.batch < 1 or args.threads < 1:
        parser.error('--repeats must be 2 or more, --batch and --threads 1 or more')
    torch.set_num_threads(args.threads)
    backbone = build_backbone([anchor(12, 384), anchor(12, 768)], SIZE).train().to(args.device)
    head = Head(backbone.channels, len(backbone.space.taps)).to(args.device)
    weights = [p for p in (*backbone.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(args.batch, 3, SIZE, SIZE, generator=generator)
    images = images.to(args.device)
    side = SIZE // backbone.patch_size
    labels = torch.randint(CLASSES, (args.batch, side, side), generator=generator).to(args.device)
    print(
        f'Training step, ViT-S + ViT-B, {SIZE} px, batch {args.batch}: stitched model / the same '
        f'by hand; goal: CPU time <= {TIME_GOAL}'
    )
    met = True
    for stitch in STITCHES:
        backbone.set_training_stitch(stitch)
        forwards = (backbone, forward_by_hand(backbone, stitch))
        stitched, by_hand = (
            Step(partial(loss_of, forward, head, images, labels), optimizer) for forward in forwards
        )
        met = compare(stitch, stitched, by_hand, args.repeats, TIME_GOAL) and met
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main())
