"""Times a stitched classifier against the same blocks, norm and classifier called by hand.

Forward in eval mode without gradients, and training steps (forward, loss, backward, AdamW), of
MMPretrain's ``ImageClassifier`` on anchors of ViT-S and ViT-B shape: on one model, the same images
and labels, in pairs right after each other. Logits and losses must be equal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
from _cpu_time import paired_cpu_ratio
from _routes import _affine_by_hand, anchor
from _steps import Step, compare
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.nn import functional

import mmsnnet  # noqa: F401 - registers StitchedViT

FORWARD_GOAL, STEP_GOAL = 1.03, 1.05
STITCHES = ('S12', 'L12', 'S6-L6', 'L4-S4-L4')
SIZE, CLASSES = 224, 1000


def build_model() -> nn.Module:
    """The classifier, its stitch layers taken for fitted."""
    backbone = dict(
        type='StitchedViT', anchors=[anchor(12, 384), anchor(12, 768)], img_size=SIZE,
        out_indices=(11,), lift_taps=False, final_norm=True,
    )  # fmt: skip
    head = dict(type='StitchedClsHead', num_classes=CLASSES, in_channels=dict(S=384, L=768))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(type='ImageClassifier', backbone=backbone, neck=None, head=head))
    model.backbone.mark_fitted()
    return model


def logits_by_hand(model: nn.Module, stitch: str) -> Callable[[Tensor], Tensor]:
    """Logits of a stitch, prepared beforehand: embedding, blocks, crossings, norm, classifier."""
    backbone, calls, last = model.backbone, [], 0
    for step in backbone.space.program(stitch):
        kind = type(step).__name__
        if kind == 'Cross':
            calls.append(_affine_by_hand(backbone, step.layer))
            continue
        last = step.anchor
        vit = backbone.anchor(last).vit
        if kind == 'Embed':
            calls.append(lambda x, vit=vit: vit._pos_embed(vit.patch_embed(x)))
        elif kind == 'Block':
            calls.append(vit.blocks[step.index])
    norm = backbone.anchor(last).vit.norm
    classify = model.head.classifiers[backbone.space.labels[last]]

    def run(images: Tensor) -> Tensor:
        tokens = images
        for call in calls:
            tokens = call(tokens)
        return classify(norm(tokens)[:, 0])

    return run


@torch.inference_mode()
def measure_forward(model: nn.Module, stitch: str, images: Tensor, repeats: int) -> bool:
    """Print a line for the forward of a stitch; returns whether it agrees and meets the goal."""
    model.backbone.set_stitch(stitch)
    stitched, by_hand = partial(model, images), partial(logits_by_hand(model, stitch), images)
    same = torch.equal(stitched(), by_hand())
    ratio, spread, time = paired_cpu_ratio(stitched, by_hand, repeats)
    good = same and ratio <= FORWARD_GOAL
    print(
        f'  {stitch:<9} {1000 * time:8.1f} ms   time x {ratio:.3f} +- {spread:.3f}   '
        f'logits {"equal" if same else "DIFFERENT"}{"" if good else "   MISSED"}',
        flush=True,
    )
    return good


def measure_step(
    model: nn.Module, stitch: str, images: Tensor, labels: Tensor, repeats: int
) -> bool:
    """Print a line for a training step; returns whether it agrees and meets the goal."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5)
    samples = [DataSample().set_gt_label(label) for label in labels]
    model.backbone.set_training_stitch(stitch)
    forward = logits_by_hand(model, stitch)

    def loss_by_hand() -> Tensor:
        return functional.cross_entropy(forward(images), labels, reduction='none').mean()

    stitched = Step(lambda: model.loss(images, samples)['loss'], optimizer)
    return compare(stitch, stitched, Step(loss_by_hand, optimizer), repeats, STEP_GOAL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog='classification', description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=9, help='pairs per stitch')
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    parser.add_argument('--batch', type=int, default=1, help='images in a forward or step')
    args = parser.parse_args(argv)
    if args.repeats < 2 or args.batch < 1 or args.threads < 1:
        parser.error('--repeats must be 2 or more, --batch and --threads 1 or more')
    torch.set_num_threads(args.threads)
    model = build_model()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(args.batch, 3, SIZE, SIZE, generator=generator)
    labels = torch.randint(CLASSES, (args.batch,), generator=generator)
    setting = f'ImageClassifier, ViT-S + ViT-B, {SIZE} px, batch {args.batch}: stitched / by hand'
    print(f'Forward of {setting}; goal: CPU time <= {FORWARD_GOAL}')
    model.eval()
    met = [measure_forward(model, one, images, args.repeats) for one in STITCHES]
    print(f'Training step of {setting}; goal: CPU time <= {STEP_GOAL}')
    model.train()
    met += [measure_step(model, one, images, labels, args.repeats) for one in STITCHES]
    return 0 if all(met) else 1


if __name__ == '__main__':
    sys.exit(main())
