"""Writes inference modules as ONNX files that run as they did in torch."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from mmsnnet.models.stitch_network import StitchNetwork
from mmsnnet.runtime.metadata import METADATA_KEY, ModelMetadata

from .branches import enclose_head, move_weights
from .dynamic_size import resample_positions
from .preprocessing import PictureInference, is_switched

OPSET = 20
#: Where timm and this package resample position embeddings when an image comes in.
_RESAMPLED_IN = (
    'timm.models.vision_transformer.resample_abs_pos_embed',
    'mmsnnet.models.anchors.position_embedding.resample_abs_pos_embed',
)


def require_onnx() -> None:
    """Check that what exports to ONNX is installed.

    Raises:
        ImportError: If it is not.
    """
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        try:
            __import__(name)
        except ModuleNotFoundError as error:
            raise ImportError(
                f'Exporting to ONNX needs {error.name}: pip install "mmsnnet[deploy]".'
            ) from error


def export_program(
    module: nn.Module, images: Tensor, metadata: ModelMetadata
) -> torch.export.ExportedProgram:
    """Graph of an inference module with a dynamic batch.

    Args:
        module: Module in eval mode; of a switched one the number of the stitch is a second input.
        images: Images to trace with, as the module takes them; B of 2 or more, as torch takes a
            batch of 1 for a constant.
        metadata: With ``dynamic_size`` height and width are free too, and position embeddings are
            resampled in the graph; else they are frozen. Pictures are of any size.
    """
    dynamic = {0: torch.export.Dim('batch', min=1, max=1 << 16)}
    if metadata.preprocessing:
        dynamic |= {
            axis: torch.export.Dim(name, min=2, max=1 << 16)
            for axis, name in ((1, 'height'), (2, 'width'))
        }
    elif metadata.dynamic_size:
        patch = _networks(module)[0].patch_size
        dynamic |= {
            axis: patch * torch.export.Dim(f'{name}_patches', min=2, max=512)
            for axis, name in ((2, 'height'), (3, 'width'))
        }
    arguments, shapes = (images,), (dynamic,)
    if is_switched(module):
        arguments, shapes = (images, torch.tensor(len(module.names) - 1)), (dynamic, None)
    if isinstance(module, PictureInference):
        shapes = shapes if len(shapes) == 1 else (dynamic, (None,))
    frozen = (
        _replaced(resample_positions)
        if metadata.dynamic_size
        else frozen_positions(module, tuple(metadata.image_size))
    )
    with torch.no_grad(), frozen, _quiet():
        program = torch.export.export(module, arguments, dynamic_shapes=shapes, strict=False)
    _allow_one_image(program)
    return program


def _allow_one_image(program: torch.export.ExportedProgram) -> None:
    """Drop the checks that a batch has 2 or more images, which torch adds behind each branch.

    It takes the batch that leaves ``torch.cond`` for a new number, and numbers it does not know for
    2 or more; those of the inputs, and what the graph computes, are not touched.
    """
    for part in program.graph_module.modules():
        if not isinstance(part, torch.fx.GraphModule):
            continue
        for node in list(part.graph.nodes):
            check = node.target is torch.ops.aten._assert_scalar.default
            if check and re.search(r'expression u\d+ >= 2 ', str(node.args[1])):
                part.graph.erase_node(node)
        part.graph.eliminate_dead_code()
        part.recompile()


def write_onnx(
    program: torch.export.ExportedProgram,
    path: Path,
    metadata: ModelMetadata,
    switched: bool = False,
) -> None:
    """Write a graph as an ONNX file.

    Args:
        program: Result of :func:`export_program`.
        path: File to write.
        metadata: What the file says of itself.
        switched: Whether the number of a stitch is an input.
    """
    import onnx

    inputs = ['images', 'stitch'] if switched else ['images']
    with _quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=inputs,
            output_names=list(metadata.outputs),
            verbose=False,
        )
    model = exported.model_proto
    _strip(model)
    set_metadata(model, metadata)
    if switched:
        enclose_head(model, len(metadata.stitches))
        move_weights(model)
    onnx.save(model, str(path))


def set_metadata(model: object, metadata: ModelMetadata) -> None:
    """Let an ONNX model say what it is, in place of what it said before."""
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, metadata.to_json()
    model.producer_name, model.producer_version = 'mmsnnet', metadata.version
    if metadata.dynamic_size:
        return
    # Shapes of the graph as its users read them: only the batch is free.
    for axis, side in zip((2, 3), metadata.image_size):
        shape = model.graph.input[0].type.tensor_type.shape
        if len(shape.dim) == 4 and not metadata.preprocessing:
            shape.dim[axis].dim_value = side


def _strip(model: object) -> None:
    """Drop the stack traces of the exporter: they can be a third of a small file."""
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        for field in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
            if hasattr(field, 'metadata_props'):
                del field.metadata_props[:]
        for tensor in graph.initializer:
            del tensor.metadata_props[:]
        for node in graph.node:
            node.doc_string = ''
            graphs += [one.g for one in node.attribute if one.HasField('g')]
    for function in model.functions:
        del function.metadata_props[:]
        for node in function.node:
            del node.metadata_props[:]
            node.doc_string = ''


def _networks(module: nn.Module) -> list[StitchNetwork]:
    return [one for one in module.modules() if isinstance(one, StitchNetwork)]


@contextlib.contextmanager
def frozen_positions(module: nn.Module, size: tuple[int, int]) -> Iterator[None]:
    """Give position embeddings the size of the images for the length of a ``with`` block.

    timm resamples them in the graph, with an antialiased resize that few runtimes have, even
    where they fit already.

    Args:
        module: Module with stitch networks in it.
        size: (height, width) of the images in pixels.
    """
    former: list[tuple[nn.Module, nn.Parameter]] = []
    try:
        for network in _networks(module):
            grid = [-(-side // network.patch_size) for side in size]
            for anchor in network.anchors.values():
                vit = anchor.vit
                if getattr(vit, 'pos_embed', None) is None:
                    continue
                former.append((vit, vit.pos_embed))
                with torch.no_grad():
                    resampled = resample_abs_pos_embed(
                        vit.pos_embed,
                        new_size=grid,
                        old_size=list(vit.patch_embed.grid_size),
                        num_prefix_tokens=anchor.num_embedded_prefix,
                    )
                vit.pos_embed = nn.Parameter(resampled, requires_grad=False)
        with _replaced(_as_it_is):
            yield
    finally:
        for vit, parameter in former:
            vit.pos_embed = parameter


@contextlib.contextmanager
def _replaced(resample: Callable[..., Tensor]) -> Iterator[None]:
    """Let position embeddings be resampled otherwise."""
    with contextlib.ExitStack() as stack:
        for name in _RESAMPLED_IN:
            stack.enter_context(mock.patch(name, resample))
        yield


def _as_it_is(pos_embed: Tensor, *_: object, **__: object) -> Tensor:
    return pos_embed


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and warnings off the user's terminal; errors are raised."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
