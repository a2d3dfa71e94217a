"""Branches of graphs of several stitches, on graphs made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmsnnet.deploy.branches import enclose_head, move_weights

onnx = pytest.importorskip('onnx', reason='needs the extra [deploy]')
onnxruntime = pytest.importorskip('onnxruntime', reason='needs the extra [deploy]')
TWO_STITCHES = """<ir_version: 10, opset_import: ["": 20]>
switched (float[batch, 2, 5, 5] images, int64 stitch) => (float[batch, 3, 5, 5] logits) {
    one = Constant <value_int = 1> ()
    runs = Equal (stitch, one)
    tap = If (runs) <
        then_branch = twice () => (float[batch, 2, 5, 5] doubled) {
            doubled = Add (images, images) },
        else_branch = once () => (float[batch, 2, 5, 5] copied) {
            copied = Identity (images) }
    >
    %s
}"""


def graph_of(head: str) -> Any:
    """A model whose two stitches double the images or not, and what comes behind."""
    model = onnx.parser.parse_model(TWO_STITCHES % head)
    weight = np.random.default_rng(0).standard_normal((3, 2, 1, 1), dtype=np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, 'weight'))
    return model


def run(model: Any, stitch: int) -> np.ndarray:
    images = np.random.default_rng(1).standard_normal((4, 2, 5, 5), dtype=np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, dict(images=images, stitch=np.array(stitch)))[0]


def test_outputs_of_stitches_stay_and_numbers_of_none_give_an_empty_batch() -> None:
    model = graph_of('maps = Conv (tap, weight) logits = Relu (maps)')
    expected = [run(model, stitch) for stitch in (0, 1)]
    enclose_head(model, 2)
    onnx.checker.check_model(model, full_check=True)
    for stitch in (0, 1):
        assert np.allclose(run(model, stitch), expected[stitch], atol=1e-6)
    for stitch in (-1, 2):
        assert run(model, stitch).shape == (0, 3, 5, 5)


def test_nothing_but_branches_reads_what_a_branch_gives() -> None:
    model = graph_of('maps = Conv (tap, weight) logits = Relu (maps)')
    enclose_head(model, 2)
    given = {name for node in model.graph.node if node.op_type == 'If' for name in node.output}
    assert given == {'tap', 'logits'}
    assert not given & {name for node in model.graph.node for name in node.input}


def test_weights_move_into_the_branch_that_alone_reads_them() -> None:
    model = graph_of('maps = Conv (tap, weight) logits = Relu (maps)')
    enclose_head(model, 2)
    expected = run(model, 1)
    move_weights(model)
    then = {one.name: one.g for one in model.graph.node[-1].attribute}['then_branch']
    assert [one.name for one in then.initializer] == ['weight']
    assert 'weight' not in {one.name for one in model.graph.initializer}
    onnx.checker.check_model(model, full_check=True)
    assert np.allclose(run(model, 1), expected, atol=1e-6)


def test_weights_that_are_read_elsewhere_too_stay_where_all_find_them() -> None:
    model = graph_of('maps = Conv (tap, weight) logits = Relu (maps)')
    enclose_head(model, 2)
    more = onnx.helper.make_node('Neg', ['weight'], ['negative'])
    model.graph.node.insert(0, more)
    move_weights(model)
    assert 'weight' in {one.name for one in model.graph.initializer}
    run(model, 0)


def test_a_graph_without_a_head_stays_as_it_is() -> None:
    model = graph_of('')
    model.graph.node[-1].output[0] = 'logits'
    before = model.SerializeToString()
    enclose_head(model, 2)
    assert model.SerializeToString() == before
