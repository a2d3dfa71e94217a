"""Exports a stitched model: one stitch or many, to files that were checked before they appear."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmsnnet.models import find_stitched_backbone
from mmsnnet.runtime.metadata import ModelMetadata
from mmsnnet.runtime.session import StitchSession

from .agreement import Agreement, compare
from .dynamic_size import with_free_sizes
from .inference import FixedInference, SwitchedInference, single_inference
from .onnx_export import export_program, require_onnx, write_onnx
from .preprocessing import PictureInference
from .variants import halve, quantize, relabel, write_openvino

#: What scores a file: takes it, the float32 file it was made from and a reporter of lines, and
#: returns entries of the checks.
Score = Callable[[Path, Path, Callable[[str], None]], Mapping[str, Any]]
#: Weights that fit one ONNX file, a little below 2^31 bytes.
MOST_BYTES = (1 << 31) - (1 << 24)

#: Suffix of each form of a file, behind the name that the user gives.
SUFFIXES = {
    'fp32': '.onnx', 'int8': '.int8.onnx', 'fp16': '.fp16.onnx', 'openvino': '.xml', 'pt2': '.pt2',
}  # fmt: skip


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


def export_onnx(
    model: nn.Module,
    metadata: ModelMetadata,
    path: str | os.PathLike[str],
    forms: Iterable[str] = ('fp32',),
    images: Sequence[np.ndarray] = (),
    overwrite: bool = False,
    report: Callable[[str], None] = lambda line: None,
    score: Score = lambda place, base, report: {},
) -> dict[str, tuple[Path, Agreement]]:
    """Write a stitched model as ONNX, and in other forms; returns path and agreement of each.

    Several stitches make the number of one a second input. Files appear only if all agree with the
    model on noise and the images given.

    Args:
        model: Stitched model in eval mode; it is left as it is.
        metadata: What to say of the file, how to export it, and which stitches, in order.
        path: The .onnx file to write; other forms lie beside it.
        forms: Keys of ``SUFFIXES``.
        images: Further batches to check on, as the file takes them.
        overwrite: Whether to replace files; else they are refused by a FileExistsError.
        report: Called with a line for each file.
        score: Scores a file that agrees; its result is kept in the checks of the metadata.

    Raises:
        ValueError: If a form is unknown, or a file impossible or wrong.
    """
    targets, done = _targets(Path(path), forms), {}
    with new_files(targets.values(), overwrite) as places, active_kept(model):
        base = next(iter(places.values())).with_name('.base.onnx')
        program = _write_base(model, metadata, base)
        for (form, target), place in zip(targets.items(), places.values()):
            said = _write_form(form, program, base, place, metadata)
            agreement = check_file(model, place, _batches(model, said, images), said, target.name)
            report(f'{target.name}: {agreement}, {size_of(place) / 1e6:.4g} MB')
            said = _checked(said, agreement, place, score(place, base, report))
            write_metadata(place, said, program, base)
            done[form] = target, agreement
    return done


def _checked(
    metadata: ModelMetadata, agreement: Agreement, place: Path, scores: Mapping[str, Any]
) -> ModelMetadata:
    """Metadata with what was found of a file."""
    checks = dict(agreement=agreement.as_dict(), bytes=size_of(place), **scores)
    return dataclasses.replace(metadata, checks=checks)


def _batches(
    model: nn.Module, metadata: ModelMetadata, images: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """What a file is checked on: noise, and the images that are given.

    How much a lower precision changes is told by images of the data alone, where there are some.
    """
    if metadata.precision != 'fp32' and images:
        return list(images)
    sizes = check_sizes(metadata, find_stitched_backbone(model).patch_size)
    return [*random_images(metadata, sizes=sizes), *images]


def size_of(path: Path) -> int:
    """Bytes of a file, with those of the weights beside it."""
    beside = path.with_suffix('.bin')
    return path.stat().st_size + (beside.stat().st_size if path.suffix == '.xml' else 0)


def _targets(path: Path, forms: Iterable[str]) -> dict[str, Path]:
    """File of each form.

    Raises:
        ImportError: If a library is missing.
        ValueError: If a form is unknown.
    """
    targets = {}
    for form in forms:
        if form not in SUFFIXES:
            raise ValueError(f'Unknown form {form!r}; choose of {", ".join(SUFFIXES)}.')
        targets[form] = path.with_suffix(SUFFIXES[form])
    if not targets:
        raise ValueError(f'No form of file is asked for; choose of {", ".join(SUFFIXES)}.')
    require_onnx()
    return targets


def _write_base(
    model: nn.Module, metadata: ModelMetadata, path: Path
) -> torch.export.ExportedProgram:
    """Write the ONNX file that the other forms are made from; returns its graph in torch.

    Raises:
        ValueError: If its weights are too large for one file, or a size is to be free that the
            graph would freeze.
    """
    module = inference_of(model, metadata)
    parameters = sum(one.numel() for one in module.parameters()) * 4
    if parameters > MOST_BYTES and len(metadata.stitches) > 1:
        raise ValueError(
            f'{parameters / 1e9:.3g} GB of weights exceed the 2 GB of one ONNX file; choose fewer '
            'stitches by --stitches, or one by --stitch.'
        )
    images = torch.from_numpy(random_images(metadata)[1][:2])
    try:
        program = export_program(module, images, metadata)
    except Exception as error:  # the exporter raises what it likes
        if not metadata.dynamic_size:
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f'This model has no exact graph for images of any size ({reason[:160]}); export it '
            'without --dynamic-size, at the --size that it is to run at.'
        ) from None
    write_onnx(program, path, metadata, switched=len(metadata.stitches) > 1)
    return program


def _write_form(
    form: str,
    program: torch.export.ExportedProgram,
    base: Path,
    place: Path,
    metadata: ModelMetadata,
) -> ModelMetadata:
    """Write one form; returns what it says of itself."""
    if form == 'int8':
        return quantize(base, place, metadata)
    if form == 'fp16':
        return halve(base, place, metadata)
    if form == 'openvino':
        write_openvino(base, place, metadata)
    elif form == 'pt2':
        _write_pt2(program, place, metadata)
    else:
        shutil.copyfile(base, place)
    return metadata


def _write_pt2(
    program: torch.export.ExportedProgram, place: Path, metadata: ModelMetadata
) -> None:
    """Write torch's own format, without images of the export and stack traces of its machine."""
    program.example_inputs = None
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop('stack_trace', None)
    torch.export.save(program, place, extra_files={'mmsnnet.json': metadata.to_json()})


def write_metadata(
    place: Path, metadata: ModelMetadata, program: torch.export.ExportedProgram, base: Path
) -> None:
    """Let a file say something else of itself; what it computes stays."""
    if place.suffix == '.pt2':
        _write_pt2(program, place, metadata)
    elif place.suffix == '.xml':
        write_openvino(base, place, metadata)
    else:
        relabel(place, metadata)


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


@contextmanager
def active_kept(model: nn.Module) -> Iterator[None]:
    """Restore the active stitch behind a ``with`` block."""
    backbone = find_stitched_backbone(model)
    with backbone.use_stitch(backbone.stitch):
        yield


def check_file(
    model: nn.Module,
    path: Path,
    batches: Sequence[np.ndarray],
    metadata: ModelMetadata,
    name: str,
) -> Agreement:
    """Agreement of a file with the stitched model, the worst over its stitches.

    Raises:
        ValueError: If it is below the bars of its precision.
    """
    run = runner_of(path)
    worst: Agreement | None = None
    for number, entry in enumerate(metadata.stitches):
        expected = inference_of(model, metadata, entry.name)
        found = compare(
            lambda images, number=number: run(images, number),
            lambda images, expected=expected: _in_torch(expected, images),
            batches,
            has_classes=has_labels(metadata),
        ).check(metadata.precision, f'{name} under {entry.name}')
        worst = found if worst is None else _worse(worst, found)
    return worst


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
    return dataclasses.replace(one, relative=relative, labels=labels)


def _in_torch(module: nn.Module, images: np.ndarray, *more: torch.Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        outputs = module(torch.from_numpy(images), *more)
    outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return [one.numpy() for one in outputs]


def runner_of(path: Path) -> Callable[[np.ndarray, int], list[np.ndarray]]:
    """Outputs of a file for images and the number of a stitch."""
    if path.suffix == '.pt2':
        program = torch.export.load(path)
        module, inputs = program.module(), len(program.graph_signature.user_inputs)
        return lambda images, number: _in_torch(
            module, images, *([torch.tensor(number)] if inputs > 1 else [])
        )
    session = StitchSession(path)

    def run(images: np.ndarray, number: int) -> list[np.ndarray]:
        session.set_stitch(session.stitches[number])
        outputs = session(images)
        return list(outputs) if isinstance(outputs, tuple) else [outputs]

    return run


@contextmanager
def new_files(targets: Iterable[Path], overwrite: bool) -> Iterator[dict[Path, Path]]:
    """Places to write files at, which move to their targets when the block has succeeded.

    Yields:
        Place by target, all in one temporary folder beside the first target.

    Raises:
        FileExistsError: If a target exists and is not to be replaced.
    """
    targets = list(targets)
    taken = [target for target in targets if target.exists()]
    if taken and not overwrite:
        raise FileExistsError(f'{taken[0]} exists already; give another name, or --overwrite.')
    parent = targets[0].parent
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f'.{targets[0].stem}.{os.getpid()}.tmp'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield {target: folder / target.name for target in targets}
        for target in targets:
            if target.suffix == '.xml':  # its weights lie beside it
                os.replace((folder / target.name).with_suffix('.bin'), target.with_suffix('.bin'))
            os.replace(folder / target.name, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
