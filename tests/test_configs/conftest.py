"""What the tests of recipes share."""

from __future__ import annotations

import pytest
from rooms import RoomsSpec, write_rooms

from tests.config_layout import texts_as_they_come


@pytest.fixture(autouse=True, scope='package')
def _config_texts_as_they_come():
    with texts_as_they_come():
        yield


@pytest.fixture(scope='session')
def rooms(tmp_path_factory):
    """Two rooms to train on and one to test on, of 64 x 96 pixels, in the layout of ADE20K."""
    folder = tmp_path_factory.mktemp('rooms')
    write_rooms(folder, RoomsSpec(2, 1, (64, 96), layouts=('ade20k',)), workers=1)
    return folder
