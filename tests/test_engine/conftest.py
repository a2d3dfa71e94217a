"""What the tests of hooks and loops share."""

from __future__ import annotations

import mmengine.config.config as config_module
import pytest


@pytest.fixture(autouse=True, scope='package')
def _config_texts_as_they_come():
    """Leave out the layout of config texts, which takes most of the time of a short run."""
    former = config_module.FormatCode
    config_module.FormatCode = lambda text, **_: (text, False)
    yield
    config_module.FormatCode = former
