"""Measures the least-squares fit of all stitch layers of DeiT3-S + DeiT3-L at 512 x 512.

The networks have full size and random weights of usual magnitude; images are smooth noise. Each
stage is timed in CPU-seconds of the process. Exactness is judged against float64 pseudo-inverses
of all samples at once: of some layers on the networks' features, and on synthetic features whose
condition number is set. Memory is the peak resident size of a process that fits, less that of one
that only runs the same networks forward on the same images.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _cpu_time import cpu_seconds
from torch import Tensor
from torch.nn import functional

from mmsnnet.models import StitchedViT, StitchFit
from mmsnnet.models.least_squares import AffineFit, PairedMoments
from mmsnnet.stitching import LayerKey

SIZE, IMAGES = 512, 50
KEPT = 4  # images whose features are kept for the pseudo-inverses
SOLVE_GOAL, MEMORY_GOAL, RESIDUAL_GOAL, WEIGHT_GOAL = 40.0, 400.0, 1.00001, 1e-5
ANCHORS = ('deit3_small_patch16_224', 'deit3_large_patch16_224')


def build_backbone() -> StitchedViT:
    """DeiT3-S and DeiT3-L, their residual branches as large as those of trained networks."""
    anchors = [dict(model_name=name, pretrained=False) for name in ANCHORS]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = StitchedViT(anchors=anchors, img_size=SIZE).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in backbone.anchors.named_parameters():
            if name.endswith('gamma'):
                parameter.fill_(0.3)
            elif parameter.ndim == 2:
                spread = parameter.shape[1] ** -0.5
                parameter.normal_(std=spread, generator=generator)
    return backbone


def make_images(number: int) -> Iterator[Tensor]:
    """Single images (1, 3, 512, 512) of noise that is strong in low frequencies."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(number):
        image = torch.zeros(1, 3, SIZE, SIZE)
        for side in (4, 16, 64, SIZE):
            noise = torch.randn(1, 3, side, side, generator=generator)
            image += functional.interpolate(noise, (SIZE, SIZE), mode='bicubic') / side**0.25
        yield image


@torch.no_grad()
def run_anchors(backbone: StitchedViT, images: Tensor) -> dict[tuple[int, int], Tensor]:
    """Tokens (N, C) by (anchor, boundary), from timm's own forward pass."""
    found = {}
    for number, anchor in enumerate(backbone.anchors.values()):
        maps = anchor.vit.forward_intermediates(
            images, output_fmt='NLC', return_prefix_tokens=True, intermediates_only=True
        )
        for index, (patches, prefix) in enumerate(maps):
            found[number, index + 1] = torch.cat([prefix, patches], dim=1).flatten(0, 1)
    return found


def peak_mib(number: int, kind: str) -> float:
    """Peak resident MiB of a process of its own that fits, or only runs the anchors."""
    command = [sys.executable, __file__, '--images', str(number), '--child', kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def run_child(kind: str, number: int) -> None:
    """What :func:`peak_mib` measures: the peak of this process once its networks are built."""
    backbone = build_backbone()
    Path('/proc/self/clear_refs').write_text('5')  # forget the peak of building them
    if kind == 'fit':
        backbone.fit_stitches(make_images(number))
    else:
        with torch.no_grad():
            for images in make_images(number):
                for stitch in backbone.space.anchor_stitches:
                    backbone.run(images, stitch)
    status = Path('/proc/self/status').read_text()
    print(int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) / 1024)


def pseudo_inverse(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Weight, bias, residual and condition number of the fit by numpy's float64 SVD."""
    center = x - x.mean(0), y - y.mean(0)
    left, values, right = np.linalg.svd(center[0], full_matrices=False)
    keep = values > values[0] * max(x.shape) * np.finfo(float).eps
    inverse = np.where(keep, 1 / np.where(keep, values, 1), 0)
    weight = (right.T @ (inverse[:, None] * (left.T @ center[1]))).T
    bias = y.mean(0) - weight @ x.mean(0)
    return weight, bias, squared_error(weight, bias, x, y), values[0] / values[-1]


def squared_error(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Sum of squared errors of an affine map."""
    return float(np.square(x @ weight.T + bias - y).sum())


def compare(found: AffineFit, x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Ratio of residuals to the pseudo-inverse's, relative error of weights, condition number."""
    weight, _, residual, condition = pseudo_inverse(x, y)
    own = squared_error(found.weight.numpy(), found.bias.numpy(), x, y)
    error = np.linalg.norm(found.weight.numpy() - weight) / np.linalg.norm(weight)
    return own / residual, float(error), float(condition)


def report(text: str, good: bool) -> bool:
    """Print a line with a verdict, and return the verdict."""
    print(f'  {text}{"" if good else "   MISSED"}', flush=True)
    return good


def ends_of(layers: Sequence[LayerKey]) -> list[tuple[int, int]]:
    """(Anchor, boundary) that layers map from and to, in turn."""
    pairs = (
        ((key.source, key.source_boundary), (key.target, key.target_boundary)) for key in layers
    )
    return [end for pair in pairs for end in pair]


def time_stages(number: int) -> bool:
    """Time accumulation and solution, and judge some layers on the networks' features."""
    backbone = build_backbone()
    fit = StitchFit(backbone)
    layers = [backbone.space.layers[i] for i in (0, len(backbone.space.layers) // 2 - 1, -1)]
    forward = total = 0.0
    kept = []
    for images in make_images(number):
        forward += cpu_seconds(partial(run_anchors, backbone, images))
        total += cpu_seconds(partial(fit.add, images))
        if len(kept) < KEPT:
            features = run_anchors(backbone, images)
            kept.append({end: features[end].double().numpy() for end in ends_of(layers)})
    per_image, scaled = (total - forward) / number, '' if number == IMAGES else ' (scaled)'
    print(f'  forward of both anchors: {forward / number:.2f} CPU-s an image')
    print(
        f'  accumulation: {per_image:.2f} CPU-s an image, {IMAGES * per_image:.0f} CPU-s for '
        f'{IMAGES} images{scaled}'
    )
    time = cpu_seconds(fit.solve)
    text = f'solving {len(backbone.space.layers)} layers: {time:.1f} CPU-s'
    good = report(text, time <= SOLVE_GOAL)
    for key in layers:
        x, y = (np.concatenate([item[end] for item in kept]) for end in ends_of([key]))
        ratio, error, condition = compare(fit_whole(x, y), x, y)
        good &= report_exactness(key.name(backbone.space.labels), ratio, error, condition)
    return good


def fit_whole(x: np.ndarray, y: np.ndarray) -> AffineFit:
    """Fit by sums, as the backbone does, in chunks of an image."""
    moments = PairedMoments({'x': x.shape[1], 'y': y.shape[1]}, ['x'], [('x', 'y')])
    for rows in np.array_split(np.arange(len(x)), max(len(x) // 1025, 1)):
        part = torch.from_numpy(x[rows]), torch.from_numpy(y[rows])
        moments.add_count(len(rows))
        moments.add_node('x', part[0])
        moments.add_node('y', part[1])
        moments.add_pair('x', part[0], 'y', part[1])
    return moments.solve('x', 'y')


def report_exactness(name: str, ratio: float, error: float, condition: float) -> bool:
    """Print how exact a fit is and return whether that is enough."""
    good = ratio <= RESIDUAL_GOAL and (error <= WEIGHT_GOAL or condition >= 1e5)
    text = f'{name:<22} residual x {ratio:.9f}, weights off by {error:.1e}'
    return report(f'{text}, condition {condition:.1e}', good)


def judge_synthetic() -> bool:
    """Judge fits on float32 features of set condition numbers, with noise in the targets."""
    rng = np.random.default_rng(0)
    met = True
    for condition in (1e1, 1e3, 9e4):
        samples, width, target = 4100, 384, 256
        basis = np.linalg.qr(rng.standard_normal((width, width)))[0]
        x = rng.standard_normal((samples, width)) * np.geomspace(1, 1 / condition, width) @ basis
        y = x @ rng.standard_normal((width, target)) + 0.3 * rng.standard_normal((samples, target))
        x, y = (item.astype(np.float32).astype(float) for item in (x + 0.5, y))
        met &= report_exactness('synthetic', *compare(fit_whole(x, y), x, y))
    return met


def measure_memory(number: int) -> bool:
    """Report what fitting takes over a forward pass."""
    if not Path('/proc/self/clear_refs').exists():
        return report('memory: not measured, which needs Linux', True)
    forward, fitting = (peak_mib(number, kind) for kind in ('forward', 'fit'))
    text = f'memory: {forward:.0f} MiB forward, {fitting:.0f} MiB fitting: '
    return report(f'{text}{fitting - forward:.0f} MiB more', fitting - forward <= MEMORY_GOAL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog='stitch_fit', description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=4, help=f'{IMAGES} measure all, unscaled')
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    parser.add_argument('--repeats', type=int, default=1, help='of the whole measurement')
    parser.add_argument('--child', choices=['forward', 'fit'], help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if min(args.images, args.threads, args.repeats) < 1:
        parser.error('--images, --threads and --repeats must be 1 or more')
    torch.set_num_threads(args.threads)
    if args.child:
        run_child(args.child, args.images)
        return 0
    print(
        f'Fit of DeiT3-S + DeiT3-L at {SIZE} px on {args.images} images; goals: solving <= '
        f'{SOLVE_GOAL:.0f} CPU-s, memory <= {MEMORY_GOAL:.0f} MiB, residual <= {RESIDUAL_GOAL}, '
        f'weights <= {WEIGHT_GOAL} below condition 1e5'
    )
    stages: list[Callable[[], bool]] = [
        lambda: time_stages(args.images),
        judge_synthetic,
        lambda: measure_memory(2),
    ]
    met = [stage() for _ in range(args.repeats) for stage in stages]
    return 0 if all(met) else 1


if __name__ == '__main__':
    sys.exit(main())
