"""What the tests of networks share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from mmengine.logging import MMLogger


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def text(self, level: int = logging.NOTSET) -> list[str]:
        """Messages of at least a level."""
        return [record.getMessage() for record in self.records if record.levelno >= level]


@pytest.fixture
def log_lines() -> Iterator[_Lines]:
    """What MMEngine's logger writes during a test."""
    handler = _Lines()
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
