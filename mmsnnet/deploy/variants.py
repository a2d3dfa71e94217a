"""Smaller and other forms of an exported ONNX file."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmsnnet.runtime.metadata import METADATA_KEY, ModelMetadata

from .onnx_export import set_metadata


def quantize(source: Path, target: Path, metadata: ModelMetadata) -> ModelMetadata:
    """Write an ONNX file with the weights of matrix products in int8.

    Activations are quantised as they run.

    Only MatMul and Gemm: quantised convolutions and the rest are slower than in float32.

    Args:
        source: File in float32.
        target: File to write.
        metadata: What the source says of itself.

    Returns:
        What the new file says of itself.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet_logs():
        quantize_dynamic(
            str(source),
            str(target),
            op_types_to_quantize=['MatMul', 'Gemm'],
            weight_type=QuantType.QInt8,
            extra_options=dict(EnableSubgraph=True),
        )
    metadata = dataclasses.replace(metadata, precision='int8')
    relabel(target, metadata)
    return metadata


def halve(source: Path, target: Path, metadata: ModelMetadata) -> ModelMetadata:
    """Write an ONNX file with weights and arithmetic in float16; inputs and outputs stay float32.

    Args:
        source: File in float32.
        target: File to write.
        metadata: What the source says of itself.

    Returns:
        What the new file says of itself.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet_logs():
        model = convert_float_to_float16(onnx.load(str(source)), keep_io_types=True)
    onnx.save(model, str(target))
    metadata = dataclasses.replace(metadata, precision='fp16')
    relabel(target, metadata)
    return metadata


def write_openvino(source: Path, target: Path, metadata: ModelMetadata) -> None:
    """Write an OpenVINO model (.xml and .bin) in float32.

    Args:
        source: ONNX file in float32.
        target: The .xml file to write; the .bin lies beside it.
        metadata: What the file says of itself.

    Raises:
        ImportError: If OpenVINO is not installed.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise ImportError('OpenVINO files need: pip install "mmsnnet[openvino]".') from error
    model = openvino.convert_model(str(source))
    model.set_rt_info(metadata.to_json(), ['framework', METADATA_KEY])
    openvino.save_model(model, str(target), compress_to_fp16=False)


def relabel(path: Path, metadata: ModelMetadata) -> None:
    """Let an ONNX file say something else of itself."""
    import onnx

    model = onnx.load(str(path))
    set_metadata(model, metadata)
    onnx.save(model, str(path))


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Keep what others log below a warning, or as one, off the terminal."""
    former = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(former)
