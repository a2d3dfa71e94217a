"""What every test has: one thread for torch, and slow tests only on request."""
from __future__ import annotations

import logging
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out, unless asked for by --run-slow, by -m, or by their own name."""
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
