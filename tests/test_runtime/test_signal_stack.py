"""Signal stacks of a thread around models of OpenVINO, read by sigaltstack(2)."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

import numpy as np
import pytest

from mmsnnet.runtime.signal_stack import _SignalStack, kept_signal_stack

openvino = pytest.importorskip('openvino', reason='needs the extra [openvino]')
pytestmark = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='a call of Linux')


def signal_stack() -> tuple[int | None, int, int]:
    stack = _SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.address, stack.flags, stack.size


@pytest.fixture
def compiled() -> Callable[[], openvino.CompiledModel]:
    images = openvino.opset13.parameter([1, 3, 4, 4], np.float32)
    model = openvino.Model([openvino.opset13.relu(images)], [images])

    def build() -> openvino.CompiledModel:
        with kept_signal_stack():
            return openvino.Core().compile_model(model, 'CPU')

    return build


def test_a_compiled_model_leaves_the_threads_signal_stack_as_it_was(compiled):
    former = signal_stack()
    model = compiled()
    assert signal_stack() == former
    assert model(-np.ones((1, 3, 4, 4), np.float32))[0].max() == 0


@pytest.mark.parametrize('order', [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_models_that_end_in_any_order_leave_no_stack_that_is_freed(compiled, order):
    former = signal_stack()
    models = {number: compiled() for number in range(3)}
    for number in order:
        del models[number]
        assert signal_stack() == former
