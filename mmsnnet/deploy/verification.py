"""Compares files and extracted models with the stitched model that they were made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mmsnnet.models import find_stitched_backbone
from mmsnnet.runtime.metadata import ModelMetadata
from mmsnnet.runtime.session import StitchSession

from .agreement import Agreement, compare
from .dynamic_size import with_free_sizes
from .inference import FixedInference, SwitchedInference, single_inference
from .preprocessing import PictureInference

#: Name of the metadata inside of a file of torch's own format.
PT2_METADATA = 'mmsnnet.json'
#: What a user can do where lower precision fails on noise.
ON_NOISE = ' That was on noise, which is harder than pictures: give N of those by --check-data N.'


def inference_of(
    model: nn.Module, metadata: ModelMetadata, stitch: str | None = None
) -> nn.Module:
    """Module that a file is exported from, or that it must agree with.

    Args:
        model: Stitched model; the stitch, if one is given, becomes the active one.
        metadata: Of the file.
        stitch: A stitch of the file, for the module that runs it by the model's own code. None is
            the module to export, which holds copies of what its stitches run: one of several has
            the number of one as input.
    """
    names = [entry.name for entry in metadata.stitches]
    if stitch is not None:
        find_stitched_backbone(model).set_stitch(stitch)
        module = FixedInference(model)
    elif len(names) > 1:
        module = SwitchedInference(model, names, metadata.image_size)
    else:
        size = None if metadata.dynamic_size else metadata.image_size
        module = single_inference(model, names[0], size)
        module = module if size else with_free_sizes(module)
    return (PictureInference(module, metadata) if metadata.preprocessing else module).eval()


def random_images(
    metadata: ModelMetadata, seed: int = 0, sizes: Sequence[tuple[int, int]] = ()
) -> list[np.ndarray]:
    """Noise to check a file on, in batches of 1 and 3 and in further sizes.

    Args:
        metadata: Of the file; images are what it takes: normalised (B, C, H, W), or pictures.
        seed: Of the noise.
        sizes: (height, width) of a further batch of 2 each.
    """
    generator, found = np.random.default_rng(seed), []
    channels, own = len(metadata.mean), tuple(metadata.image_size)
    for batch, size in [(1, own), (3, own), *((2, size) for size in sizes)]:
        if metadata.preprocessing:
            shape = (batch, *size, channels)
            found.append(generator.integers(0, 256, shape, dtype=np.uint8))
        else:
            shape = (batch, channels, *size)
            found.append(generator.standard_normal(shape, dtype=np.float32))
    return found


def check_sizes(metadata: ModelMetadata, patch: int) -> list[tuple[int, int]]:
    """Three sizes other than the one that a graph is traced with, if it takes others."""
    height, width = metadata.image_size
    if metadata.preprocessing:
        return [(height + 7, width + 2), (2 * height, width), (max(height // 2, 8), width + 33)]
    if metadata.dynamic_size:
        return [
            (height + patch, width + 2 * patch),
            (2 * height, width + patch),
            (max(height - patch, 2 * patch), width + 3 * patch),
        ]
    return []


def batches_for(
    model: nn.Module, metadata: ModelMetadata, images: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """What a file is checked on: noise, and the images that are given.

    How much a lower precision changes is told by images of the data alone, where there are some.
    """
    if metadata.precision != 'fp32' and images:
        return list(images)
    sizes = check_sizes(metadata, find_stitched_backbone(model).patch_size)
    return [*random_images(metadata, sizes=sizes), *images]


@contextmanager
def active_kept(model: nn.Module) -> Iterator[None]:
    """Restore the active stitch behind a ``with`` block."""
    backbone = find_stitched_backbone(model)
    with backbone.use_stitch(backbone.stitch):
        yield


def check_file(
    model: nn.Module,
    path: Path,
    images: Sequence[np.ndarray],
    metadata: ModelMetadata,
    name: str,
) -> Agreement:
    """Agreement of a file with the stitched model, the worst over its stitches.

    Args:
        model: The stitched model; its active stitch changes.
        path: The file.
        images: Pictures of the data in batches, as the file takes them; noise besides, or alone.
        metadata: What the file says of itself.
        name: What messages call it.

    Raises:
        ValueError: If it is below the bars of its precision.
    """
    run, batches = runner_of(path), batches_for(model, metadata, images)
    hint = '' if images or metadata.precision == 'fp32' else ON_NOISE
    worst: Agreement | None = None
    for number, entry in enumerate(metadata.stitches):
        expected = inference_of(model, metadata, entry.name)
        found = compare(
            lambda images, number=number: _run(run, images, number, metadata, name),
            lambda images, expected=expected: _in_torch(expected, images),
            batches,
            has_classes=has_labels(metadata),
        ).check(metadata.precision, f'{name} under {entry.name}', hint)
        worst = found if worst is None else _worse(worst, found)
    return worst


def _run(
    run: Callable[[np.ndarray, int], list[np.ndarray]],
    images: np.ndarray,
    number: int,
    metadata: ModelMetadata,
    name: str,
) -> list[np.ndarray]:
    """Outputs of a file.

    Raises:
        ValueError: If its runtime fails.
    """
    try:
        return run(images, number)
    except Exception as error:  # each runtime raises what it likes
        reason = ' '.join(str(error).split()) or type(error).__name__
        cure = (
            ': export it without --dynamic-size, at the --size that it is to run at'
            if metadata.dynamic_size
            else ''
        )
        raise ValueError(
            f'{name} does not run on images of the shape {images.shape} ({reason[-200:]}){cure}.'
        ) from error


def has_labels(metadata: ModelMetadata) -> bool:
    """Whether labels of a file are counted that are those of the model.

    A classifier has one an image, too few for a share where lower precision moves near ties: there
    the metric on images of the data tells.
    """
    if metadata.task == 'classification':
        return metadata.precision == 'fp32'
    return metadata.task == 'segmentation'


def check_extracted(
    model: nn.Module, extracted: nn.Module, metadata: ModelMetadata
) -> Agreement:
    """Agreement of an extracted model with the stitched one under its stitch.

    Raises:
        ValueError: If they differ by more than rounding.
    """
    with active_kept(model):
        find_stitched_backbone(model).set_stitch(metadata.stitches[0].name)
        theirs, own = FixedInference(model).eval(), FixedInference(extracted).eval()
        return compare(
            lambda images: _in_torch(own, images),
            lambda images: _in_torch(theirs, images),
            random_images(dataclasses.replace(metadata, preprocessing=False)),
            has_classes=has_labels(metadata),
        ).check('extracted', metadata.stitches[0].name)


def _worse(one: Agreement, other: Agreement) -> Agreement:
    labels = None if one.labels is None else min(one.labels, other.labels)
    relative = None if one.relative is None else max(one.relative, other.relative)
    rmse = None if one.rmse is None else max(one.rmse, other.rmse)
    return dataclasses.replace(one, relative=relative, labels=labels, rmse=rmse)


def _in_torch(module: nn.Module, images: np.ndarray, *more: torch.Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        outputs = module(torch.from_numpy(images), *more)
    outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return [one.numpy() for one in outputs]


def metadata_of(path: Path) -> ModelMetadata:
    """What an exported file says of itself."""
    if path.suffix != '.pt2':
        return StitchSession(path).metadata
    found = {PT2_METADATA: ''}
    torch.export.load(path, extra_files=found)
    return ModelMetadata.from_json(found[PT2_METADATA], path)


def runner_of(
    path: Path, threads: int | None = None
) -> Callable[[np.ndarray, int], list[np.ndarray]]:
    """Outputs of a file for images and the number of a stitch.

    Args:
        path: The file.
        threads: Threads that onnxruntime or OpenVINO compute with; torch has those of the process.
    """
    if path.suffix == '.pt2':
        program = torch.export.load(path)
        module, inputs = program.module(), len(program.graph_signature.user_inputs)
        return lambda images, number: _in_torch(
            module, images, *([torch.tensor(number)] if inputs > 1 else [])
        )
    session = StitchSession(path, threads=threads)

    def run(images: np.ndarray, number: int) -> list[np.ndarray]:
        session.set_stitch(session.stitches[number])
        outputs = session(images)
        return list(outputs) if isinstance(outputs, tuple) else [outputs]

    return run
