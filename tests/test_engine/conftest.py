"""What the tests of hooks and loops share."""

from __future__ import annotations

import pytest

from tests.config_layout import texts_as_they_come


@pytest.fixture(autouse=True, scope='package')
def _config_texts_as_they_come():
    with texts_as_they_come():
        yield
