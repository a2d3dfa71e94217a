"""Small ONNX files made by hand, as an exporter would write them."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mmsnnet.runtime.metadata import METADATA_KEY, ModelMetadata, StitchEntry

NAMES = ('S2', 'S1-L2', 'L4')


def metadata(names: tuple[str, ...] = NAMES, **settings: Any) -> ModelMetadata:
    """Metadata of stitches that cost 1, 2, 3 GFLOPs and score 10, 30, 20."""
    scores = dict(zip(NAMES, (10.0, 30.0, 20.0)))
    entries = tuple(
        StitchEntry(
            name,
            '-'.join(part.rstrip('0123456789') for part in name.split('-')),
            (NAMES.index(name) + 1) * 10**9,
            10**6,
            {'mIoU': scores[name]},
        )
        for name in names
    )
    settings = dict(mean=(1.0, 2.0, 3.0), std=(2.0, 2.0, 2.0), metric='mIoU') | settings
    return ModelMetadata('0.0', 'segmentation', (4, 6), entries, ('logits',), **settings)


def write(path: Path, described: ModelMetadata | None = None, text: str | None = None) -> Path:
    """A file that adds 100 times the number of the stitch to its images."""
    described = described or metadata()
    images = helper.make_tensor_value_info('images', TensorProto.FLOAT, ['b', 3, 'h', 'w'])
    logits = helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['b', 3, 'h', 'w'])
    inputs, number = [images], 'zero'
    if len(described.stitches) > 1:
        inputs.append(helper.make_tensor_value_info('stitch', TensorProto.INT64, []))
        number = 'stitch'
    nodes = [
        helper.make_node('Cast', [number], ['float'], to=TensorProto.FLOAT),
        helper.make_node('Mul', ['float', 'hundred'], ['offset']),
        helper.make_node('Add', ['images', 'offset'], ['logits']),
    ]
    constants = [
        numpy_helper.from_array(np.array(0, np.int64), 'zero'),
        numpy_helper.from_array(np.array(100, np.float32), 'hundred'),
    ]
    graph = helper.make_graph(nodes, 'graph', inputs, [logits], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)
    text = described.to_json() if text is None else text
    if text:
        helper.set_model_props(model, {METADATA_KEY: text})
    onnx.save(model, str(path))
    return path
