"""Times training steps of several stitches that share beginnings against the same ones apart.

A step is forward and backward of a stitched backbone of depths 12 and 24 with a small head, without
the optimizer, which both ways need once. Groups are those that routes_per_step draws.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from _cpu_time import cpu_seconds
from _routes import anchor, build_backbone
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmsnnet.engine.shared_routes import SharedRoutes
from mmsnnet.models import build_sampler
from mmsnnet.stitching import Stitch
from mmsnnet.stitching.route_groups import RouteGroups

TIME_GOAL = 0.75
SIZE = 128


class Model(BaseModel):
    """Backbone and a layer that reads all its maps."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_backbone([anchor(12, 192), anchor(24, 512)], SIZE)
        self.head = nn.Conv2d(self.backbone.channels, 16, 1)

    def forward(self, inputs: Tensor, data_samples: None = None, mode: str = 'loss') -> dict:
        """Loss of images (B, 3, H, W)."""
        return dict(loss=sum(self.head(item).square().mean() for item in self.backbone(inputs)))


class Steps:
    """Steps of one group of stitches, together and apart."""

    def __init__(self, model: Model, images: Tensor) -> None:
        self._model, self._images = model, images
        self._shared = SharedRoutes(model, model.backbone)

    def together(self, group: Sequence[Stitch]) -> None:
        """One pass through what they share."""
        self._shared.set_stitches(group)
        self._shared.install()
        try:
            self._model(self._images, mode='loss')['loss'].backward()
        finally:
            self._shared.remove()
        self._model.zero_grad(set_to_none=True)

    def apart(self, group: Sequence[Stitch]) -> None:
        """A pass for each."""
        for stitch in group:
            self._model.backbone.set_training_stitch(stitch)
            (self._model(self._images, mode='loss')['loss'] / len(group)).backward()
        self._model.zero_grad(set_to_none=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if the goal is missed."""
    parser = argparse.ArgumentParser(prog='routes_per_step', description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=16, help='groups that are drawn')
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    parser.add_argument('--batch', type=int, default=2, help='images in a step')
    parser.add_argument('--device', default='cpu', help='cuda: time on a GPU, to its end')
    args = parser.parse_args(argv)
    if args.repeats < 1 or args.batch < 1 or args.threads < 1:
        parser.error('--repeats, --batch and --threads must be 1 or more')
    torch.set_num_threads(args.threads)
    model = Model().train().to(args.device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(args.batch, 3, SIZE, SIZE, generator=generator)
    steps = Steps(model, images.to(args.device))
    sampler = build_sampler(model.backbone)
    print(
        f'Training step, 12 x 192 + 24 x 512, {SIZE} px, batch {args.batch}: k stitches together / '
        f'apart, over {args.repeats} groups, seed 0; goal: CPU time <= {TIME_GOAL}'
    )
    met = True
    for size in (2, 4):
        groups = RouteGroups(sampler, model.backbone.costs, size)
        steps.together(groups.sample(0))
        steps.apart(groups.sample(0))
        together = apart = 0.0
        for number in range(args.repeats):
            group = groups.sample(number)
            together += cpu_seconds(lambda group=group: steps.together(group))
            apart += cpu_seconds(lambda group=group: steps.apart(group))
        good = together / apart <= TIME_GOAL
        met = met and good
        print(
            f'  k = {size}   {1000 * together / args.repeats:8.1f} ms   time x '
            f'{together / apart:.3f}{"" if good else "   MISSED"}',
            flush=True,
        )
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main())
