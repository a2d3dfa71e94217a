"""Leaves out the layout of config texts by yapf, which takes most of the time of a short run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mmengine.config import config as config_module
from yapf.yapflib import yapf_api


@contextmanager
def texts_as_they_come() -> Iterator[None]:
    """Inside, a config's text is that of its values, as mmengine joins them."""
    # mmengine imports the function with the module, its fork where it is called.
    with pytest.MonkeyPatch.context() as patch:
        for module in (config_module, yapf_api):
            if hasattr(module, 'FormatCode'):
                patch.setattr(module, 'FormatCode', lambda text, **_: (text, False))
        yield
