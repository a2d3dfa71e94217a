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

from mmsnnet.runtime.metadata import ModelMetadata

from .agreement import Agreement
from .onnx_export import export_program, require_onnx, write_onnx
from .variants import halve, quantize, relabel, write_openvino
from .verification import (
    PT2_METADATA,
    active_kept,
    check_file,
    inference_of,
    random_images,
)

#: What scores a file: takes it, the float32 file it was made from and a reporter of lines, and
#: returns entries of the checks.
Score = Callable[[Path, Path, Callable[[str], None]], Mapping[str, Any]]
#: Weights that fit one ONNX file, a little below 2^31 bytes.
MOST_BYTES = (1 << 31) - (1 << 24)

#: Suffix of each form of a file, behind the name that the user gives.
SUFFIXES = {
    'fp32': '.onnx', 'int8': '.int8.onnx', 'fp16': '.fp16.onnx', 'openvino': '.xml', 'pt2': '.pt2',
}  # fmt: skip


def export_onnx(
    model: nn.Module,
    metadata: ModelMetadata,
    path: str | os.PathLike[str],
    forms: Iterable[str] = ('fp32',),
    images: Sequence[np.ndarray] = (),
    overwrite: bool = False,
    report: Callable[[str], None] = lambda line: None,
    score: Score = lambda place, base, report: {},
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, tuple[Path, Agreement]]:
    """Write a stitched model as files that agree with it; returns path and agreement of each.

    Args:
        model: Stitched model in eval mode; it is left as it is.
        metadata: What to say of the file, how to export it, and which stitches by their numbers.
        path: The .onnx file to write; other forms lie beside it.
        forms: Keys of ``SUFFIXES``.
        images: Batches to check on beside noise, as the file takes them.
        overwrite: Whether to replace files; else they are refused.
        report: Called with a line for each file.
        score: Scores a file that agrees; its result is kept in its metadata.
        progress: Called with a line before long work.

    Raises:
        ValueError: If a form is unknown, or a file impossible or wrong.
    """
    targets, done = _targets(Path(path), forms), {}
    with new_files(targets.values(), overwrite) as places, active_kept(model):
        base = next(iter(places.values())).with_name('.base.onnx')
        program = _write_base(model, metadata, base)
        for (form, target), place in zip(targets.items(), places.values()):
            progress(f'writing {target.name} and comparing it with the model')
            said = _write_form(form, program, base, place, metadata)
            agreement = check_file(model, place, images, said, target.name)
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
    torch.export.save(program, place, extra_files={PT2_METADATA: metadata.to_json()})


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
