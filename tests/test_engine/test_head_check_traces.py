"""The check of heads before training runs them on shapes alone and leaves nothing behind."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping

import pytest
import torch
from mmengine.logging import MessageHub
from torch import Tensor, nn

from mmsnnet.models.host.head_check import check_channels
from tests.segmentors import build_segmentor, head, multi_level_neck, setr_head, single_head

PYRAMID = dict(type='Feature2Pyramid', embed_dim=64, norm_cfg=dict(type='BN'))
MODELS = {
    'neck, head and auxiliary head': dict(
        head=head('UPerHead', 32), neck=multi_level_neck(), auxiliary=single_head('FCNHead', 32)
    ),
    'pyramid with batch norm': dict(head=head('UPerHead'), neck=PYRAMID),
    'synchronised batch norm': dict(head=setr_head(norm_cfg=dict(type='SyncBN'))),
}


def tensors(value: object, seen: set[int]) -> Iterator[Tensor]:
    """All tensors in a nest of attributes, lists, dicts and modules."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
        return
    if isinstance(value, nn.Module):
        value = vars(value)
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple, set)):
        for item in value:
            yield from tensors(item, seen)


class Keeping(nn.Module):
    """A neck that keeps what it computes, as an attribute and as a buffer made on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(64, 1, 1))
        self.last = None

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.last = [feature * self.scale for feature in maps]
        self.grid = maps[0].new_zeros(1)
        self.register_buffer('size', maps[0].new_zeros(2))
        return tuple(self.last)


def keeping_model() -> nn.Module:
    model = build_segmentor(head('UPerHead'))
    model.neck = Keeping()
    return model


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('kind', [*MODELS, 'a neck that keeps things'])
def test_nothing_of_the_model_is_without_data_after_the_check(kind, training):
    model = build_segmentor(**MODELS[kind]) if kind in MODELS else keeping_model()
    model.train(training)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    own = {name: id(parameter) for name, parameter in model.named_parameters()}
    check_channels(model)
    everything = list(tensors(model, set()))
    assert len(everything) >= len(state)
    assert not any(tensor.is_meta or tensor.is_inference() for tensor in everything)
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == own
    torch.save(model.state_dict(), io.BytesIO())


def test_nothing_is_logged_by_the_check():
    hub = MessageHub.get_instance('of this test alone')  # the newest is the current one
    assert MessageHub.get_current_instance() is hub
    before = hub.state_dict()
    check_channels(build_segmentor(**MODELS['neck, head and auxiliary head']))
    assert hub.state_dict() == before
