"""What an exported file says of itself, gathered from the model and its sweep."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mmsnnet.models import StitchedViT, find_stitched_backbone
from mmsnnet.models.host.lookup import without_augmentation
from mmsnnet.results.chooser import Chooser
from mmsnnet.runtime.metadata import ModelMetadata, StitchEntry
from mmsnnet.stitching import CostTable
from mmsnnet.version import __version__

from .inference import output_names, task_of


def describe(
    model: nn.Module,
    stitches: Sequence[str],
    costs: CostTable,
    image_size: tuple[int, int],
    chooser: Chooser | None = None,
    source: Mapping[str, Any] | None = None,
) -> ModelMetadata:
    """Metadata of a stitched model for some of its stitches.

    Args:
        model: Stitched model.
        stitches: Names, in the order of their numbers in the file.
        costs: Cost of the whole model under each stitch.
        image_size: (height, width) in pixels that it is exported for.
        chooser: What a sweep knows of the stitches.
        source: Where the weights came from.
    """
    model = without_augmentation(model)
    backbone = find_stitched_backbone(model)
    costs = costs if tuple(costs.image_size) == tuple(image_size) else costs.at(image_size)
    mean, std, order = normalization_of(model)
    meta = getattr(model, 'dataset_meta', None) or {}
    return ModelMetadata(
        version=__version__,
        task=task_of(model),
        image_size=tuple(image_size),
        stitches=_entries(backbone, stitches, costs, chooser),
        outputs=output_names(model, _num_features(model, backbone)),
        anchors=tuple((one.label, one.depth) for one in backbone.space.anchors),
        mean=mean,
        std=std,
        channel_order=order,
        classes=tuple(map(str, meta.get('classes') or ())),
        palette=tuple(tuple(map(int, colour)) for colour in meta.get('palette') or ()),
        metric=chooser.metric if chooser else None,
        rule=chooser.rule if chooser else 'greater',
        source=dict(source or {}),
    )


def _num_features(model: nn.Module, backbone: StitchedViT) -> int:
    """Number of maps that neck, or backbone without one, delivers."""
    taps = len(backbone.space.taps)
    return taps if getattr(model, 'neck', None) is None else getattr(model.neck, 'num_outs', taps)


def as_exported(
    metadata: ModelMetadata,
    model: nn.Module,
    preprocessing: bool = False,
    dynamic_size: bool = False,
) -> ModelMetadata:
    """Metadata of a file that is to be exported in some way.

    Args:
        metadata: Result of :func:`describe`.
        model: The stitched model.
        preprocessing: Whether pictures go in and labels or depth come out.
        dynamic_size: Whether images of any size go in.

    Raises:
        ValueError: If the patch does not divide the size, or the settings exclude each other.
    """
    patch, size = find_stitched_backbone(model).patch_size, metadata.image_size
    if any(side < patch or side % patch for side in size):
        raise ValueError(
            f'Images of {size[0]} x {size[1]} pixels cannot be exported: sides must be multiples '
            f'of the patch of {patch} pixels.'
        )
    if dynamic_size and preprocessing:
        raise ValueError(
            'With preprocessing pictures of any size go in already; they are resized to the size '
            'of the export. Leave out one of --dynamic-size and --with-preprocessing.'
        )
    if dynamic_size and len(metadata.stitches) > 1:
        raise ValueError('--dynamic-size exports one stitch; a file of several has one size.')
    outputs = output_names(model, len(metadata.outputs), preprocessing)
    return dataclasses.replace(
        metadata, outputs=outputs, preprocessing=preprocessing, dynamic_size=dynamic_size
    )


def _entries(
    backbone: StitchedViT, stitches: Sequence[str], costs: CostTable, chooser: Chooser | None
) -> tuple[StitchEntry, ...]:
    """What is known of each stitch."""
    known = {one.name: one.metrics for one in chooser.candidates} if chooser else {}
    return tuple(
        StitchEntry(
            name,
            backbone.space[name].family,
            costs[name].flops,
            costs[name].params,
            {key: _finite(value) for key, value in known.get(name, {}).items()},
        )
        for name in stitches
    )


def normalization_of(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Mean and standard deviation of pixels from 0 to 255, and the order of channels.

    Pictures are read in the order blue, green, red by OpenMMLab's loaders; its data preprocessor
    turns the order round or not, and normalises behind that.
    """
    preprocessor = getattr(model, 'data_preprocessor', None)
    mean, std = (getattr(preprocessor, name, None) for name in ('mean', 'std'))
    channels = find_stitched_backbone(model).anchor(0).vit.patch_embed.proj.in_channels
    if mean is None or std is None:
        mean, std = (0.0,) * channels, (1.0,) * channels
    else:
        mean, std = (tuple(map(float, one.flatten().tolist())) for one in (mean, std))
    # Names of mmseg, mmpretrain, and mmengine's own preprocessor of detectors.
    switches = ('channel_conversion', 'to_rgb', '_channel_conversion')
    turned = any(getattr(preprocessor, name, False) for name in switches)
    return mean, std, 'rgb' if turned else 'bgr'


def hash_of_file(path: str | Path) -> str:
    """SHA-256 of a file, the first 16 digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for chunk in iter(lambda: file.read(1 << 20), b''):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
