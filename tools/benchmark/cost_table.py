"""Times the table of costs, and traces a few stitches to compare time and result.

The model is UperNet of 256 channels on DeiT3-S and DeiT3-L with random weights, at 512 x 512. The
analytic table holds all 134 stitches. Tracing (fvcore, on the CPU, attention not fused because
fvcore counts fused attention as nothing) is how SN-Netv2 counted its table; a few stitches are
traced here, and the time of all is extrapolated in proportion to FLOPs.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from _timing import median_seconds, seconds
from mmengine.registry import MODELS, DefaultScope
from timm.layers import set_fused_attn
from torch import Tensor, nn

import mmsnnet  # noqa: F401 - registers the backbone
from mmsnnet.evaluation.cost.model_cost import head_cost, model_costs
from mmsnnet.models import StitchedViT
from mmsnnet.stitching import CostTable, StitchSpace

SIZE = (512, 512)
TABLE_GOAL, HEAD_GOAL = 0.2, 3.0
MODEL = dict(
    type='EncoderDecoder',
    backbone=dict(type='StitchedViT', img_size=SIZE, lora_rank=0),  # costs count LoRA as merged
    neck=dict(
        type='MultiLevelNeck', in_channels=[1024] * 4, out_channels=256, scales=[4, 2, 1, 0.5]
    ),
    decode_head=dict(
        type='UPerHead',
        in_channels=[256] * 4,
        in_index=[0, 1, 2, 3],
        channels=256,
        num_classes=150,
        norm_cfg=dict(type='BN'),
        align_corners=False,
    ),
)


class RouteModel(nn.Module):
    """One stitch with neck and head, as a module to trace."""

    def __init__(self, model: nn.Module, stitch: str) -> None:
        super().__init__()
        self.model = model
        self.stitch = stitch

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes, h, w) of images (B, 3, H, W)."""
        features = self.model.backbone.run(images, self.stitch)
        return self.model.decode_head(self.model.neck(features))


def build_model() -> nn.Module:
    """The model on the meta device, its attention not fused."""
    set_fused_attn(False)
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
        return MODELS.build(MODEL).eval()


def give_weights(model: nn.Module) -> None:
    """Move a model from the meta device to the CPU, with random weights."""
    generator = torch.Generator().manual_seed(0)
    model.to_empty(device='cpu')
    for parameter in model.parameters():
        parameter.data.normal_(std=0.02, generator=generator)
    for name, buffer in model.named_buffers():
        buffer.fill_(1 if name.endswith('running_var') else 0)


def time_table(backbone: StitchedViT, constant: Any, repeats: int) -> float:
    """Seconds from the anchors' specs to the table of all stitches, nothing reused."""
    space = backbone.space

    def run() -> None:
        CostTable(StitchSpace(space.anchors, space.taps, space.scheme), SIZE, constant)

    return median_seconds(run, repeats)


def trace(model: nn.Module, stitch: str) -> tuple[float, int]:
    """Seconds that fvcore takes to trace one stitch, and the FLOPs that it finds."""
    from fvcore.nn import FlopCountAnalysis

    found = []

    def run() -> None:
        analysis = FlopCountAnalysis(RouteModel(model, stitch), torch.zeros(1, 3, *SIZE))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        found.append(int(analysis.total()))

    time = seconds(run)
    return time, found[0]


def verdict(value: float, goal: float) -> str:
    """Whether a time meets its goal, in words."""
    return f'goal {goal} s: {"met" if value < goal else "MISSED"}'


def report_tracing(
    model: nn.Module, costs: CostTable, stitches: Sequence[str], analytic: float
) -> bool:
    """Trace stitches and print time and result beside the analytic ones; returns whether equal."""
    give_weights(model)
    traced_flops, traced_time, equal = 0, 0.0, True
    for stitch in stitches:
        time, flops = trace(model, stitch)
        same = flops == costs[stitch].flops
        equal, traced_flops, traced_time = equal and same, traced_flops + flops, traced_time + time
        print(
            f'  {stitch:<12} traced {flops:>15,} FLOPs in {time:6.1f} s, '
            f'analytic {costs[stitch].flops:>15,}: {"equal" if same else "DIFFERENT"}',
            flush=True,
        )
    total = traced_time * sum(costs.flops.values()) / traced_flops
    print(f'  tracing all {len(costs)}: about {total / 60:.0f} minutes (extrapolated by FLOPs)')
    print(f'  that is {total / analytic:,.0f} times the analytic table with its head')
    return equal


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if a traced result differs from the analytic one."""
    parser = argparse.ArgumentParser(prog='cost_table', description=__doc__.splitlines()[0])
    parser.add_argument('--stitches', nargs='*', default=['S12', 'S6-L12'], help='to trace')
    parser.add_argument('--repeats', type=int, default=5, help='of the analytic counts')
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    warnings.simplefilter('ignore')
    model = build_model()
    for stitch in args.stitches:
        try:
            model.backbone.space[stitch]
        except ValueError as error:
            parser.exit(2, f'cost_table: error: {error}\n')
    head_time = median_seconds(lambda: head_cost(model, SIZE), args.repeats)
    constant = head_cost(model, SIZE)
    table_time = time_table(model.backbone, constant, args.repeats)
    costs = model_costs(model, SIZE)
    print(f'UperNet-256 on DeiT3-S + DeiT3-L, {SIZE[0]} x {SIZE[1]}, {args.threads} thread(s)')
    print(f'  neck and head counted in {head_time:.3f} s ({verdict(head_time, HEAD_GOAL)})')
    print(f'  table of {len(costs)} in {table_time:.4f} s ({verdict(table_time, TABLE_GOAL)})')
    if not args.stitches:
        return 0
    return 0 if report_tracing(model, costs, args.stitches, head_time + table_time) else 1


if __name__ == '__main__':
    sys.exit(main())
