"""Times a training step of a stitched Mask R-CNN against one on the same blocks called by hand.

Both are the detector of ``mask-rcnn_snnetv2_rooms.py`` with anchors of ViT-Ti and ViT-S width, on
the same weights, image and boxes, in pairs right after each other. The plain one has a backbone
that loops over timm's blocks. Both end in the same loss, which is checked.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from _routes import _affine_by_hand, anchor
from _steps import Step, compare
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

import mmsnnet
from mmsnnet.models import StitchedViT
from mmsnnet.models.anchors.window_attention import run_windowed_block
from mmsnnet.registry import MODELS

TIME_GOAL = 1.05
STITCHES = ('S6', 'L12', 'S3-L6', 'L4-S2-L4')
SIZE, WINDOW, GLOBAL_BLOCKS = 256, 7, (2, 5, 8, 11)


def build_model() -> nn.Module:
    """The detector in train mode, its stitch layers taken for fitted."""
    cfg = Config.fromfile(mmsnnet.config_path('mask-rcnn_snnetv2_rooms.py'))
    cfg.merge_from_dict(
        {
            'model.data_preprocessor.pad_size_divisor': SIZE,
            'model.backbone.anchors': [anchor(6, 192), anchor(12, 384)],
            'model.backbone.img_size': SIZE,
            'model.backbone.window_size': WINDOW,
            'model.backbone.global_blocks': GLOBAL_BLOCKS,
            'model.neck.in_channels': 384,
        }
    )
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    model.backbone.mark_fitted()
    return model.train()


class ByHand(nn.Module):
    """A route as a loop over timm's blocks, on the weights of a stitched backbone."""

    def __init__(self, backbone: StitchedViT, stitch: str) -> None:
        super().__init__()
        side = SIZE // backbone.patch_size
        self.steps: list[Callable[[Tensor], Tensor]] = []
        self.side, self.lift = side, None
        for step in backbone.space.program(stitch):
            kind = type(step).__name__
            if kind == 'Cross':
                self.steps.append(_affine_by_hand(backbone, step.layer))
            elif kind == 'Tap':
                self.lift = _affine_by_hand(backbone, step.lift) if step.lift else None
            else:
                vit = backbone.anchor(step.anchor).vit
                block = vit.blocks[step.index] if kind == 'Block' else None
                if block is None:
                    self.steps.append(lambda x, vit=vit: vit._pos_embed(vit.patch_embed(x))[:, 1:])
                elif step.index in backbone.anchor(step.anchor).global_blocks:
                    self.steps.append(block)
                else:
                    grid = (side, side)
                    self.steps.append(
                        partial(run_windowed_block, block, grid=grid, window=WINDOW)
                    )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The map (B, C, H, W) behind the last block, lifted."""
        tokens = images
        for step in self.steps:
            tokens = step(tokens)
        tokens = self.lift(tokens) if self.lift else tokens
        tokens = tokens.reshape(len(images), self.side, self.side, -1)
        return (tokens.permute(0, 3, 1, 2).contiguous(),)


def make_data(batch: int) -> tuple[Tensor, list[DetDataSample]]:
    """Images of noise, each with three boxes and their masks."""
    samples = []
    for _ in range(batch):
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(SIZE, SIZE), batch_input_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE)
            )
        )  # fmt: skip
        boxes = torch.tensor([[10, 20, 90, 120], [60, 60, 200, 180], [150, 10, 240, 70]])
        masks = np.zeros((3, SIZE, SIZE), np.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.tolist()):
            mask[top:bottom, left:right] = 1
        sample.gt_instances = InstanceData(
            bboxes=boxes.float(), labels=torch.tensor([0, 1, 2]),
            masks=BitmapMasks(masks, SIZE, SIZE),
        )  # fmt: skip
        samples.append(sample)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, SIZE, SIZE, generator=generator), samples


def loss_of(model: nn.Module, data: tuple[Tensor, list[DetDataSample]]) -> Tensor:
    """Sum of all losses of a detector, which draws the regions it learns from always alike."""
    torch.manual_seed(0)
    losses = model.loss(*data).items()
    return sum(torch.as_tensor(sum(value) if isinstance(value, list) else value)
               for name, value in losses if 'loss' in name)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if the goal is missed."""
    parser = argparse.ArgumentParser(prog='detection_step', description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=9, help='pairs of steps per stitch')
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    args = parser.parse_args(argv)
    if args.repeats < 2 or args.threads < 1:
        parser.error('--repeats must be 2 or more, --threads 1 or more')
    torch.set_num_threads(args.threads)
    model, data = build_model(), make_data(batch=1)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    # No learning, so that all pairs see the same regions.
    optimizer = torch.optim.AdamW(weights, lr=0.0)
    print(
        f'Training step of Mask R-CNN, ViT-Ti + ViT-S width, {SIZE} px: stitched / the same by '
        f'hand; goal: CPU time <= {TIME_GOAL}'
    )
    met = True
    for stitch in STITCHES:
        model.backbone.set_training_stitch(stitch)
        plain = copy.copy(model)
        plain._modules = {**model._modules, 'backbone': ByHand(model.backbone, stitch)}
        stitched, by_hand = (
            Step(partial(loss_of, each, data), optimizer) for each in (model, plain)
        )
        met = compare(stitch, stitched, by_hand, args.repeats, TIME_GOAL) and met
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main())
