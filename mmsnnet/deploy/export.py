"""Exports a stitched model: one stitch or many, to files that were checked before they appear."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mmsnnet.models import find_stitched_backbone
from mmsnnet.runtime.metadata import ModelMetadata
from mmsnnet.runtime.session import StitchSession

from .agreement import Agreement, compare
from .inference import FixedInference, SwitchedInference
from .onnx_export import export_program, require_onnx, write_onnx
from .variants import halve, quantize, write_openvino

#: Suffix of each form of a file, behind the name that the user gives.
SUFFIXES = {
    'fp32': '.onnx', 'int8': '.int8.onnx', 'fp16': '.fp16.onnx', 'openvino': '.xml', 'pt2': '.pt2',
}  # fmt: skip


def random_images(metadata: ModelMetadata, seed: int = 0) -> list[np.ndarray]:
    """Normalised noise (B, C, H, W) in batches of 1 and 3, to check a file on."""
    generator = np.random.default_rng(seed)
    shape = (len(metadata.mean), *metadata.image_size)
    return [generator.standard_normal((batch, *shape), dtype=np.float32) for batch in (1, 3)]


def export_onnx(
    model: nn.Module,
    metadata: ModelMetadata,
    path: str | os.PathLike[str],
    forms: Iterable[str] = ('fp32',),
    images: Sequence[np.ndarray] = (),
    overwrite: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, tuple[Path, Agreement]]:
    """Write a stitched model as ONNX, and in other forms.

    With several stitches the number of one is a second input. A file appears only if it agrees
    with the model, on noise and the images given, under every stitch.

    Args:
        model: Stitched model in eval mode with its weights; it is left as it is.
        metadata: What to say of the file, and which stitches to export, in order.
        path: The .onnx file to write; other forms lie beside it.
        forms: Keys of ``SUFFIXES``.
        images: Batches (B, C, H, W) to check on besides.
        overwrite: Whether to replace files.
        report: Called with a line for each file.

    Returns:
        Path and agreement of each form.

    Raises:
        FileExistsError: If a file exists already.
        ImportError: If onnx is missing.
        ValueError: If a form is unknown or disagrees with the model; nothing is written then.
    """
    targets, done, batches = _targets(Path(path), forms), {}, [*random_images(metadata), *images]
    with new_files(targets.values(), overwrite) as places, active_kept(model):
        base = next(iter(places.values())).with_name('base')
        program = _write_base(model, metadata, base)
        for form, target in targets.items():
            said = _write_form(form, program, base, places[target], metadata)
            done[form] = target, check_file(model, places[target], batches, said, target.name)
            report(f'{target.name}: {done[form][1]}')
    return done


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
    """Write the ONNX file that the other forms are made from; returns its graph in torch."""
    names = [entry.name for entry in metadata.stitches]
    module = inference_of(model, names, metadata.image_size)
    program = export_program(module, torch.from_numpy(random_images(metadata)[1][:2]))
    write_onnx(program, path, metadata, switched=len(names) > 1)
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
        torch.export.save(program, place, extra_files={'mmsnnet.json': metadata.to_json()})
    else:
        shutil.copyfile(base, place)
    return metadata


def inference_of(
    model: nn.Module, stitches: Sequence[str], image_size: tuple[int, int]
) -> nn.Module:
    """Module that is exported: for one stitch of the model, or for the number of one of several."""
    if len(stitches) > 1:
        return SwitchedInference(model, stitches, image_size).eval()
    find_stitched_backbone(model).set_stitch(stitches[0])
    return FixedInference(model).eval()


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
    run = _runner_of(path)
    expected = FixedInference(model).eval()
    worst: Agreement | None = None
    for number, entry in enumerate(metadata.stitches):
        find_stitched_backbone(model).set_stitch(entry.name)
        found = compare(
            lambda images, number=number: run(images, number),
            lambda images: _in_torch(expected, images),
            batches,
            has_classes=metadata.task == 'segmentation',
        ).check(metadata.precision, f'{name} under {entry.name}')
        worst = found if worst is None else _worse(worst, found)
    return worst


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
            random_images(metadata),
            has_classes=metadata.task == 'segmentation',
        ).check('extracted', metadata.stitches[0].name)


def _worse(one: Agreement, other: Agreement) -> Agreement:
    labels = None if one.labels is None else min(one.labels, other.labels)
    return dataclasses.replace(one, relative=max(one.relative, other.relative), labels=labels)


def _in_torch(module: nn.Module, images: np.ndarray, *more: torch.Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        outputs = module(torch.from_numpy(images), *more)
    outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return [one.numpy() for one in outputs]


def _runner_of(path: Path) -> Callable[[np.ndarray, int], list[np.ndarray]]:
    """Outputs of a file for images and the number of a stitch."""
    if path.suffix == '.pt2':
        module = torch.export.load(path).module()
        inputs = len(torch.export.load(path).graph_signature.user_inputs)
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
