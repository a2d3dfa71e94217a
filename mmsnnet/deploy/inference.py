"""What an inference of a model computes, as a module of tensors alone that can be exported."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mmsnnet.models import StitchedViT, find_stitched_backbone
from mmsnnet.models.host.head_statistics import (
    attached_statistics,
    detach_statistics,
    head_norms,
)
from mmsnnet.models.host.lookup import (
    is_classifier,
    reads_anchor_tokens,
    without_augmentation,
)
from mmsnnet.models.stitch_network import RunState
from mmsnnet.stitching import Tap

from .switched import StitchChoice, SwitchedBackbone, fix_grids, pruned, switch_norms


def task_of(model: nn.Module) -> str:
    """'segmentation', 'depth', 'classification'; 'features' where no head is exported whole."""
    if any(kind.__name__ == 'DepthEstimator' for kind in type(model).__mro__):
        return 'depth'
    if is_classifier(model):
        return 'classification'
    return 'features' if getattr(model, 'decode_head', None) is None else 'segmentation'


def output_names(
    model: nn.Module, num_features: int, preprocessing: bool = False
) -> tuple[str, ...]:
    """Names of the outputs of :func:`run_heads`, or of a file that takes pictures."""
    task = task_of(model)
    if task == 'features':
        return tuple(f'feature_{number}' for number in range(num_features))
    if task == 'depth':
        return ('depth',)
    return ('labels',) if preprocessing and task == 'segmentation' else ('logits',)


def run_heads(model: nn.Module, features: Sequence[Any], size: tuple[int, int]) -> Any:
    """What neck and head make of the features of the backbone, by the host's own code.

    Args:
        model: Segmentor, depth estimator, classifier or detector.
        features: Output of the backbone.
        size: (height, width) of the images in pixels.

    Returns:
        Logits (B, classes, H, W) or depth (B, 1, H, W) at the size of the images; of a classifier
        logits (B, classes), of a detector the maps of its neck.
    """
    if getattr(model, 'neck', None) is not None:
        features = model.neck(features)
    task, head = task_of(model), getattr(model, 'decode_head', None)
    if task == 'features':
        return tuple(features)
    if task == 'classification':
        return model.head(features)
    metas = [dict(img_shape=size, pad_shape=size)]
    if not isinstance(head, nn.ModuleList):
        return head.predict(features, metas, model.test_cfg)
    out = head[0].forward(features)
    for stage in head[1:-1]:
        out = stage.forward(features, out)
    return head[-1].predict(features, out, metas, model.test_cfg)


class FixedInference(nn.Module):
    """Inference of a model that runs one stitch: images in, outputs of its head out.

    Args:
        model: Model in eval mode, extracted or with its stitch chosen.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        """Outputs of :func:`run_heads` for normalised images (B, C, H, W)."""
        return run_heads(self.model, self.model.backbone(images), tuple(images.shape[-2:]))


class RouteBackbone(nn.Module):
    """A StitchedViT that runs one stitch, for export: it holds copies of what that runs alone.

    Args:
        backbone: Fitted backbone, in eval mode.
        stitch: Name of the stitch.
        image_size: (height, width) in pixels of all images; None lets any in.
    """

    def __init__(
        self, backbone: StitchedViT, stitch: str, image_size: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.program = backbone.space.program(stitch)
        self.network = pruned(backbone, self.program)
        if image_size is not None:
            fix_grids(self.network, image_size)

    def forward(self, images: Tensor) -> Any:
        """Features of normalised images (B, C, H, W), as StitchedViT."""
        return self.network.outputs(self.network.advance(RunState(images), self.program))


def single_inference(
    model: nn.Module, stitch: str, image_size: tuple[int, int] | None = None
) -> FixedInference:
    """Inference of a model under one stitch, without the weights that only others run.

    Args:
        model: Stitched model in eval mode; it is left as it is.
        stitch: Name of the stitch.
        image_size: (height, width) in pixels of all images; None lets any in.
    """
    model = without_augmentation(model)
    backbone, statistics = find_stitched_backbone(model), attached_statistics(model)
    heads = _copy_of_heads(model)
    heads.backbone = RouteBackbone(backbone, stitch, image_size)
    if statistics is not None and stitch in statistics.names:
        statistics.bake(heads, stitch)
    if reads_anchor_tokens(model):
        taps = [step for step in heads.backbone.program if isinstance(step, Tap)]
        heads.head.keep_only({backbone.space.labels[tap.anchor] for tap in taps})
    return FixedInference(heads).eval()


class SwitchedInference(nn.Module):
    """Inference of a model under whichever stitch is asked for.

    Args:
        model: Stitched model in eval mode; it is left as it is.
        stitches: Names of the stitches; the position of each is its number.
        image_size: (height, width) of the images in pixels.

    Attributes:
        names: Names of the stitches.
    """

    def __init__(
        self, model: nn.Module, stitches: Sequence[str], image_size: tuple[int, int]
    ) -> None:
        super().__init__()
        model = without_augmentation(model)
        backbone = find_stitched_backbone(model)
        statistics, names = attached_statistics(model), list(head_norms(model))
        self.model = _copy_of_heads(model)
        self._classifies_inside = reads_anchor_tokens(model)
        head = self.model.head if self._classifies_inside else None
        self.backbone = SwitchedBackbone(backbone, stitches, image_size, head)
        self.names = self.backbone.names
        self._choice = StitchChoice()
        if statistics is not None:
            own = dict(self.model.named_modules())
            norms = {name: own[name] for name in names if name in own}
            self._choice = switch_norms(self.model, norms, statistics, self.names)

    def forward(self, images: Tensor, stitch: Tensor) -> Any:
        """Outputs of :func:`run_heads`.

        Args:
            images: Normalised images (B, C, H, W).
            stitch: Number of the stitch, int64 without dimensions.
        """
        self._choice.stitch = stitch
        features = self.backbone(images, stitch)
        if self._classifies_inside:
            return features[0]
        return run_heads(self.model, features, tuple(images.shape[-2:]))


def _copy_of_heads(model: nn.Module) -> nn.Module:
    """A copy of neck and heads that :func:`run_heads` runs, without statistics of stitches."""
    used = {'neck'} if task_of(model) == 'features' else {'neck', 'decode_head', 'head'}
    statistics = attached_statistics(model)
    detach_statistics(model)  # the norms hold the backbone while they have some
    try:
        heads = copy.copy(model)
        heads._modules = {
            name: copy.deepcopy(part) for name, part in model._modules.items() if name in used
        }
    finally:
        if statistics is not None:
            statistics.attach(model)
    return heads.eval()
