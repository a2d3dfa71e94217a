"""What exported files cost against the stitched model and against single exports, in one run.

Goals: extracted against stitched on the same route, at most 1.0 of the time (with the spread of
the measurement); onnxruntime against torch, at most 1.0; a file of all stitches against a single
export, at most 1.1 of the time and at most 1.05 of the weights; another stitch for the next frame,
below 1 ms.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _routes import anchor
from _timing import paired_ratio
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmsnnet.deploy import extract
from mmsnnet.deploy.description import describe
from mmsnnet.deploy.export import export_onnx
from mmsnnet.deploy.inference import FixedInference
from mmsnnet.evaluation.cost.model_cost import model_costs
from mmsnnet.models import find_stitched_backbone
from mmsnnet.registry import MODELS
from mmsnnet.runtime.session import StitchSession

#: (depth, width) of anchors, image size, patch and width of a head, by name.
MODELS_MEASURED: dict[str, tuple[tuple[tuple[int, int], ...], int, int, int]] = {
    'rooms': (((6, 48), (12, 96)), 96, 8, 32),
    'S+B': (((12, 384), (12, 768)), 224, 16, 256),
}


def build(name: str) -> tuple[nn.Module, Config]:
    """Segmentor with UPerHead and its config, stitch layers random."""
    shapes, size, patch, channels = MODELS_MEASURED[name]
    depth, width = max(one[0] for one in shapes), shapes[-1][1]
    heads_of = 16 if width < 192 else 64
    taps = tuple(depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4))
    backbone = dict(
        type='StitchedViT', img_size=size, out_indices=taps,
        anchors=[anchor(*one, patch, heads_of) for one in shapes],
    )  # fmt: skip
    head = dict(
        type='UPerHead', in_channels=[width] * 4, in_index=[0, 1, 2, 3], channels=channels,
        num_classes=20, norm_cfg=dict(type='BN'), align_corners=False,
    )  # fmt: skip
    config = Config(dict(
        default_scope='mmseg',
        model=dict(type='EncoderDecoder', backbone=backbone, decode_head=head, train_cfg=dict(),
                   test_cfg=dict(mode='whole')),
    ))  # fmt: skip
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(config.model)
    find_stitched_backbone(model).mark_fitted()
    return model.eval(), config


def calls_of(module: nn.Module, images: np.ndarray) -> Callable[[], Any]:
    """A call of a module in torch."""
    tensor = torch.from_numpy(images)

    def call() -> Any:
        with torch.inference_mode():
            return module(tensor)

    return call


def measure_switch(session: StitchSession, repeats: int = 1000) -> float:
    """Milliseconds that choosing another stitch for the next frame takes."""
    names = session.stitches
    start = time.perf_counter()
    for number in range(repeats):
        session.set_stitch(names[number % len(names)])
    return 1000 * (time.perf_counter() - start) / repeats


def measure(name: str, stitches: int, repeats: int, folder: Path) -> bool:
    """Print all figures of a model; returns whether the goals are met."""
    model, config = build(name)
    backbone = find_stitched_backbone(model)
    size, every = backbone.img_size, list(backbone.space.names)
    chosen = every if stitches <= 0 else every[:: max(1, len(every) // stitches)][:stitches]
    costs = model_costs(model, size)

    def export(names: list[str]) -> StitchSession:
        path = folder / f'{name}_{len(names)}_{names[0]}.onnx'
        export_onnx(model, describe(model, names, costs, size), path)
        return StitchSession(path, threads=torch.get_num_threads())

    start = time.perf_counter()
    together = export(chosen)
    print(f'{name}: {len(chosen)} stitches in {time.perf_counter() - start:.0f} s')
    held = {id(p): p.numel() * 4 for p in model.parameters()}
    ratio = (folder / f'{name}_{len(chosen)}_{chosen[0]}.onnx').stat().st_size / sum(held.values())
    good = tell('file of all / weights of the model', ratio, 0.0, 1.05 if chosen == every else None)
    images = np.random.default_rng(0).standard_normal((1, 3, *size), dtype=np.float32)
    for stitch in dict.fromkeys((chosen[0], chosen[-1])):
        alone, extracted = export([stitch]), extract(model, config, stitch)[0]
        backbone.set_stitch(stitch)
        together.set_stitch(stitch)
        stitched = calls_of(FixedInference(model).eval(), images)
        fixed = calls_of(FixedInference(extracted).eval(), images)
        pairs = (
            ('extracted / stitched', fixed, stitched, 1.0),
            ('onnxruntime / torch', lambda one=alone: one(images), stitched, 1.0),
            ('all in one / alone', lambda: together(images), lambda one=alone: one(images), 1.1),
        )
        for what, one, other, goal in pairs:
            found = paired_ratio(one, other, repeats)
            good &= tell(f'{stitch:<9} {what}', *found, goal)
    return tell('ms for another stitch', measure_switch(together), 0.0, 1.0) and good


def tell(what: str, value: float, spread: float, goal: float | None) -> bool:
    """Print a figure; returns whether it meets its goal within its spread."""
    met = goal is None or value - spread <= goal
    aim = '' if goal is None else f'  (goal {goal})'
    print(f'  {what:<34} {value:.4f} +- {spread:.4f}{aim}{"" if met else "   MISSED"}')
    return met


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog='export', description=__doc__.splitlines()[0])
    parser.add_argument('--models', nargs='+', choices=MODELS_MEASURED, default=['rooms'])
    parser.add_argument('--stitches', type=int, default=0, help='in the file (default: all)')
    parser.add_argument('--repeats', type=int, default=15, help='pairs of calls a ratio')
    parser.add_argument('--threads', type=int, default=1, help='threads of torch and onnxruntime')
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        met = [measure(name, args.stitches, args.repeats, Path(folder)) for name in args.models]
    return 0 if all(met) else 1


if __name__ == '__main__':
    sys.exit(main())
