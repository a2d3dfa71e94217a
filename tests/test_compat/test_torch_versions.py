"""What is done differently, or refused, with an older torch."""
from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmsnnet.compat.torch_versions import synchronise_every_backward
from tests.builders import tiny_backbone


@pytest.fixture
def wrapped():
    """A wrapper for several processes that was never set up, as they would be needed for that."""
    return DistributedDataParallel.__new__(DistributedDataParallel)


def no_sync_of(model):
    return getattr(model, '__dict__', {}).get('no_sync')


@pytest.mark.parametrize('version', ['2.1.2+cu121', '2.3.1'])
def test_an_old_torch_averages_gradients_in_every_backward(monkeypatch, wrapped, version):
    monkeypatch.setattr(torch, '__version__', version)
    nn.Module.__init__(wrapped)
    synchronise_every_backward(wrapped)
    assert no_sync_of(wrapped) is nullcontext


@pytest.mark.parametrize('version', ['2.4.0', '2.14.1+cu130'])
def test_a_newer_torch_averages_once_a_step(monkeypatch, wrapped, version):
    monkeypatch.setattr(torch, '__version__', version)
    nn.Module.__init__(wrapped)
    synchronise_every_backward(wrapped)
    assert no_sync_of(wrapped) is None


def test_a_model_without_the_wrapper_is_left_alone(monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.1.2')
    model = nn.Linear(1, 1)
    synchronise_every_backward(model)
    assert no_sync_of(model) is None


@pytest.mark.parametrize('version', ['2.1.2+cu121', '2.4.1'])
def test_compiled_blocks_are_refused_by_a_torch_that_shares_none(monkeypatch, version):
    monkeypatch.setattr(torch, '__version__', version)
    with pytest.raises(ValueError, match=f'compile_blocks needs torch 2.5 .* {version[:5]}'):
        tiny_backbone(((2, 32), (4, 64)), compile_blocks=True)
