"""Arranges the branches of an ONNX graph of several stitches for the runtimes."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

#: Operators whose inputs behind the first are weights.
_WEIGHTED = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')


def enclose_head(model: Any, num_stitches: int) -> None:
    """Let neck and head of a graph of several stitches run inside an ``If`` too.

    It is taken for the number of a stitch; for any other, where a runtime gets that far, the
    batch that comes out is empty.

    OpenVINO sizes the memory of all nodes up to the next ``If`` before it runs the first of them,
    and of a free batch it learns the sizes as it goes: with 2026.4 a map of the head that grew a
    block of memory could wipe out the tap that the block still held, in the first inference of a
    session and of each larger batch. Between branches alone there is nothing left to grow, and a
    branch has its inputs in memory of their own.

    Args:
        model: ONNX model with inputs ``images`` and ``stitch``; it is changed. Where its outputs
            come out of branches as they are, it stays as it is.
        num_stitches: Number of stitches.
    """
    from onnx import helper

    graph = model.graph
    before = _leads_to_branch(graph)
    head = [node for node in graph.node if node.output[0] not in before]
    made = {name for node in head for name in node.output}
    outputs = [one for one in graph.output if one.name in made]
    if not outputs:
        return
    rest = [copy.deepcopy(node) for node in graph.node if node.output[0] in before]
    condition, nodes = _is_stitch(graph, num_stitches)
    branch = helper.make_node(
        'If',
        [condition],
        [one.name for one in outputs],
        then_branch=_graph_of(head, graph, outputs),
        else_branch=_empty(outputs),
    )
    _replace(graph.node, [*rest, *nodes, branch])


def move_weights(model: Any) -> None:
    """Move weights into the branches that alone read them.

    onnxruntime lays out weights for its kernels only where both are in one graph: rooms ran 5 to
    10 % slower without. Other constants stay: its conversion to float16 loses those of branches.

    Args:
        model: ONNX model; it is changed.
    """
    graph = model.graph
    branches = [
        attribute.g
        for node in graph.node
        for attribute in node.attribute
        if attribute.HasField('g')
    ]
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(
        name
        for branch in branches
        for name in {name for node in branch.node for name in _reads(node)}
    )
    for branch in branches:
        read = {n for node in branch.node if node.op_type in _WEIGHTED for n in node.input[1:]}
        own = {name for name in read if readers[name] == 1}
        branch.initializer.extend(one for one in graph.initializer if one.name in own)
    moved = {one.name for branch in branches for one in branch.initializer}
    _replace(
        graph.initializer,
        [copy.deepcopy(one) for one in graph.initializer if one.name not in moved],
    )


def _leads_to_branch(graph: Any) -> set[str]:
    """First outputs of the nodes that any ``If`` of the graph depends on, these included."""
    makers = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    waiting = [node for node in graph.node if node.op_type == 'If']
    while waiting:
        node = waiting.pop()
        if node.output[0] not in found:
            found.add(node.output[0])
            waiting += [makers[name] for name in _reads(node) if name in makers]
    return found


def _reads(node: Any) -> Iterator[str]:
    """Names that a node reads, those inside its branches included."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField('g'):
            for inner in attribute.g.node:
                yield from _reads(inner)


def _graph_of(nodes: list[Any], graph: Any, outputs: list[Any]) -> Any:
    """Nodes as a graph of their own, its outputs under other names."""
    import onnx

    found, names = onnx.GraphProto(name='head'), {}
    for one in outputs:
        names[one.name] = f'{one.name}_of_head'
        _declare(found, one, names[one.name])
    for node in nodes:
        inner = found.node.add()
        inner.CopyFrom(node)
        _replace(inner.input, [names.get(name, name) for name in node.input])
        _replace(inner.output, [names.get(name, name) for name in node.output])
    _move(graph.value_info, found.value_info, {name for node in nodes for name in node.output})
    return found


def _empty(outputs: list[Any]) -> Any:
    """A graph that gives tensors of the types of others, every free side of them 0."""
    import onnx
    from onnx import helper, numpy_helper

    found = onnx.GraphProto(name='no_such_stitch')
    for one in outputs:
        tensor, size, name = one.type.tensor_type, f'size_of_no_{one.name}', f'no_{one.name}'
        sides = np.array([side.dim_value for side in tensor.shape.dim], np.int64)
        zero = np.zeros(1, helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        # Not the tensor itself as a constant: OpenVINO loses the rank of one without values.
        found.node.extend([
            helper.make_node('Constant', [], [size], value=numpy_helper.from_array(sides)),
            helper.make_node(
                'ConstantOfShape', [size], [name], value=numpy_helper.from_array(zero)
            ),
        ])
        _declare(found, one, name)
    return found


def _declare(graph: Any, like: Any, name: str) -> None:
    """Give a graph an output of the type of another."""
    output = graph.output.add()
    output.CopyFrom(like)
    output.name = name


def _is_stitch(graph: Any, num_stitches: int) -> tuple[str, list[Any]]:
    """Name of the condition that the input is the number of a stitch, and nodes that make it."""
    from onnx import helper, numpy_helper

    for name, bound in (('least_stitch', 0), ('number_of_stitches', num_stitches)):
        graph.initializer.append(numpy_helper.from_array(np.array(bound, np.int64), name))
    return 'is_stitch', [
        helper.make_node('GreaterOrEqual', ['stitch', 'least_stitch'], ['not_negative']),
        helper.make_node('Less', ['stitch', 'number_of_stitches'], ['below_number']),
        helper.make_node('And', ['not_negative', 'below_number'], ['is_stitch']),
    ]


def _move(source: Any, target: Any, names: set[str]) -> None:
    """Move the entries of some names from one repeated field to another."""
    target.extend(one for one in source if one.name in names)
    _replace(source, [copy.deepcopy(one) for one in source if one.name not in names])


def _replace(field: Any, values: list[Any]) -> None:
    """Give a repeated field of a message other entries."""
    del field[:]
    field.extend(values)
