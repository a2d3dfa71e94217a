"""Times one pass over images for all stitches against a pass for each, with mmseg's own code.

A segmentor of anchors as wide and deep as DeiT3-S and DeiT3-L, with a light head, runs all 134
stitches of a small image in both ways, image by image, through the loop, the preprocessing and the
metric of a real test. Loading is not counted, which the single passes do 134 times. Blocks alone
allow a ratio of 0.371; with narrower anchors the head's share, which is not saved, weighs more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from _cpu_time import paired_cpu_ratio
from _routes import anchor
from mmengine.config import ConfigDict
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from torch.utils.data import DataLoader, Dataset

from mmsnnet.models import find_stitched_backbone
from mmsnnet.registry import MODELS
from mmsnnet.stitching.route_tree import RouteTree

GOAL = 0.42
CLASSES = 21


class Noise(Dataset):
    """Images of noise with labels of square cells, as mmseg's pipelines deliver them."""

    def __init__(self, count: int, size: int, classes: int, cell: int) -> None:
        self.metainfo = dict(classes=tuple(map(str, range(classes))))
        generator = torch.Generator().manual_seed(0)
        self._images = torch.randint(0, 256, (count, 3, size, size), generator=generator)
        cells = torch.randint(0, classes, (count, 1, *[-(-size // cell)] * 2), generator=generator)
        labels = cells.repeat_interleave(cell, -1).repeat_interleave(cell, -2)
        self._labels = labels[..., :size, :size]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        from mmseg.structures import SegDataSample

        shape = tuple(self._images.shape[-2:])
        sample = SegDataSample(metainfo=dict(ori_shape=shape, img_shape=shape))
        sample.gt_sem_seg = PixelData(data=self._labels[index])
        return dict(inputs=self._images[index].to(torch.uint8), data_samples=sample)


def segmentor(widths: Sequence[int], size: int, classes: int = CLASSES) -> dict[str, Any]:
    """Config of a stitched segmentor with the naive head of SETR, on taps after each quarter."""
    anchors = [anchor(12, widths[0]), anchor(24, widths[1])]
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True
        ),
        backbone=dict(
            type='StitchedViT', anchors=anchors, img_size=size, out_indices=(5, 11, 17, 23)
        ),
        decode_head=dict(
            type='SETRUPHead', in_channels=widths[1], in_index=3, channels=64, num_convs=1,
            num_classes=classes, up_scale=4, kernel_size=1, norm_cfg=dict(type='BN'),
            dropout_ratio=0, align_corners=False,
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )  # fmt: skip


def build_loop(
    widths: Sequence[int],
    size: int,
    images: int,
    work_dir: str,
    classes: int = CLASSES,
    cell: int = 1,
) -> Any:
    """Test loop of all stitches, as a Runner builds it; labels come in cells of some pixels."""
    from mmseg.evaluation import IoUMetric

    with DefaultScope.overwrite_default_scope('mmseg'), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS.build(ConfigDict(segmentor(widths, size, classes)))
    find_stitched_backbone(model).mark_fitted()
    runner = Runner(
        model=model,
        work_dir=work_dir,
        test_dataloader=DataLoader(
            Noise(images, size, classes, cell), batch_size=1, collate_fn=collate
        ),
        test_cfg=dict(type='StitchTestLoop'),
        test_evaluator=Evaluator(IoUMetric()),
        default_scope='mmseg',
        log_level='ERROR',
    )
    runner.call_hook('before_run')
    runner.call_hook('before_test_epoch')
    model.eval()
    return runner.test_loop


def collate(items: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Batch as mmengine's pseudo_collate makes it."""
    return {key: [item[key] for item in items] for key in items[0]}


def measure(loop: Any, repeats: int) -> tuple[float, float, float]:
    """Ratio of one pass to single passes over the pairs, its spread, and CPU-seconds of one."""
    stitches, backbone = loop.scoring.stitches, loop.scoring.backbone
    batches = list(loop.dataloader)
    numbers = dict.fromkeys(('one', 'single'), 0)

    def next_batch(way: str) -> Any:
        numbers[way] += 1
        return batches[(numbers[way] - 1) % len(batches)]

    def one_pass() -> None:
        batch = next_batch('one')
        with loop.together(stitches) as shared:
            shared.run_batch(0, batch)

    def single_passes() -> None:
        batch = next_batch('single')
        for stitch in stitches:
            with backbone.use_stitch(stitch):
                loop.run_iter(0, batch)
        loop.evaluator.metrics[0].results.clear()

    return paired_cpu_ratio(one_pass, single_passes, repeats)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if the goal is missed."""
    parser = argparse.ArgumentParser(prog='one_pass', description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=3, help='images in pairs')
    parser.add_argument('--size', type=int, default=96, help='side of the images in pixels')
    parser.add_argument('--widths', type=int, nargs=2, default=(384, 1024), help='of the anchors')
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    args = parser.parse_args(argv)
    if args.repeats < 2 or args.threads < 1:
        parser.error('--repeats must be 2 or more, --threads 1 or more')
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as work_dir:
        loop = build_loop(args.widths, args.size, args.repeats + 1, work_dir)
        space = loop.scoring.backbone.space
        tree = RouteTree({stitch.name: space.program(stitch) for stitch in space})
        print(
            f'{len(tree)} stitches of {args.widths[0]} x 12 and {args.widths[1]} x 24, '
            f'{args.size} px: {tree.num_blocks} blocks for {tree.num_blocks_apart} '
            f'({tree.num_blocks / tree.num_blocks_apart:.3f})',
            flush=True,
        )
        ratio, spread, time = measure(loop, args.repeats)
    print(
        f'one pass / single passes = {ratio:.3f} +- {spread:.3f} of the CPU time '
        f'({time:.1f} s an image in one pass); goal <= {GOAL}'
    )
    return 0 if ratio <= GOAL else 1


if __name__ == '__main__':
    sys.exit(main())
