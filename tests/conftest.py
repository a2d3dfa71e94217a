"""What every test has: one thread for torch, no GPU, and slow tests and a GPU on request only."""
from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator

import pytest
import torch
from mmengine.logging import MMLogger

# The suite runs as one process a core: further threads would only get in each other's way. And
# the order of float sums does not depend on the machine.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--run-slow', action='store_true', help='run tests marked slow as well')


def wants_gpu(config: pytest.Config) -> bool:
    """Whether the tests marked gpu are to run."""
    return config.getoption('-m') == 'gpu'


def pytest_configure(config: pytest.Config) -> None:
    """Let tests compute on the CPU wherever they run, in processes of their own too.

    They compare bit by bit, and with gloo; tests of a GPU run by themselves, with ``-m gpu``.
    """
    if not wants_gpu(config):
        os.environ['CUDA_VISIBLE_DEVICES'] = ''


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out, unless asked for by --run-slow, by -m, or by their own name.

    Those of a GPU are left out unless asked for by ``-m gpu``.
    """
    gpu = [item for item in items if 'gpu' in item.keywords]
    if not wants_gpu(config):
        items[:] = [item for item in items if 'gpu' not in item.keywords]
        config.hook.pytest_deselected(items=gpu)
    elif not torch.cuda.is_available():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason='there is no CUDA device'))
    if config.getoption('--run-slow') or 'slow' in config.getoption('-m'):
        return
    if any('::' in argument for argument in config.args):
        return
    slow = [item for item in items if 'slow' in item.keywords]
    if slow:
        items[:] = [item for item in items if 'slow' not in item.keywords]
        config.hook.pytest_deselected(items=slow)


@pytest.fixture(autouse=True)
def open_streams() -> Iterator[None]:
    """Let loggers that outlive a test write on: pytest closes the streams that it captured."""
    yield
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.stream = sys.__stderr__  # setStream would flush the closed one
