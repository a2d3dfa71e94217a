"""All 134 stitches of anchors of 12 and 24 blocks in one file, in both runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmsnnet.deploy.export import inference_of
from mmsnnet.deploy.onnx_export import export_program, write_onnx
from mmsnnet.deploy.variants import write_openvino
from mmsnnet.models import find_stitched_backbone
from mmsnnet.runtime.signal_stack import kept_signal_stack
from tests.builders import random_images, tiny_anchor
from tests.segmentors import setr_head
from tests.test_deploy.models import described, head_config, trained

pytest.importorskip('onnxscript', reason='needs the extra [deploy]')
onnxruntime = pytest.importorskip('onnxruntime', reason='needs the extra [deploy]')

#: Anchors, and stitches of each family, of few blocks of either anchor and of many.
SAMPLE = [
    'S12', 'L24', 'S1-L22', 'S6-L12', 'S11-L2', 'L2-S11', 'L12-S6', 'L22-S1', 'S2-L8-S6',
    'S10-L2-S1', 'L2-S1-L20', 'L10-S3-L8', 'L2-S10-L2',
]  # fmt: skip


@pytest.mark.slow
def test_one_file_holds_134_stitches_and_runs_each_in_onnxruntime_and_openvino(
    tmp_path: Path,
) -> None:
    openvino = pytest.importorskip('openvino', reason='needs the extra [openvino]')
    anchors = [tiny_anchor(12, 32), tiny_anchor(24, 64)]
    head = setr_head(channels=64, num_classes=4, norm_cfg=dict(type='BN'))
    config = head_config(head, 'EncoderDecoder')
    config.model.backbone.update(anchors=anchors, out_indices=(5, 11, 17, 23))
    model = trained(config)
    names = list(find_stitched_backbone(model).space.names)
    assert len(names) == 134 and set(SAMPLE) <= set(names)
    metadata, path = described(model, names), tmp_path / 'all.onnx'
    images = random_images(3, seed=1)
    program = export_program(inference_of(model, metadata), images, metadata)
    write_onnx(program, path, metadata, switched=True)
    write_openvino(path, path.with_suffix('.xml'), metadata)

    session = onnxruntime.InferenceSession(str(path))
    for name in SAMPLE:
        with torch.no_grad():
            expected = inference_of(model, metadata, name)(images).numpy()
        feed = dict(images=images.numpy(), stitch=np.array(names.index(name)))
        found = dict(onnxruntime=session.run(None, feed)[0])
        with kept_signal_stack():
            compiled = openvino.Core().compile_model(  # afresh: the first inference counts
                str(path.with_suffix('.xml')), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'}
            )
        found['openvino'] = compiled(feed)[0]
        for runtime, outputs in found.items():
            difference = np.abs(outputs - expected).max() / np.abs(expected).max()
            assert difference <= 1e-4, f'{name} in {runtime}: {difference}'
