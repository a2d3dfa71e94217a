"""What every test has: one thread for torch, and slow tests only on request."""
from __future__ import annotations

import pytest
import torch

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
