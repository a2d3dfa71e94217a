"""Every question to CUDA names the device that is measured, which may not be the current one.

CUDA itself is not needed: its functions are replaced by ones that record what they are asked.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from mmengine.config import ConfigDict

from mmsnnet.evaluation.latency.inference import current, inference_on_noise
from mmsnnet.evaluation.latency.measure import CudaClock, WallClock, clock_of
from mmsnnet.evaluation.latency.memory import CudaMeter, TensorMeter, meter_of
from tests.segmentors import build_segmentor, setr_head, tiny_stitched, vit_anchor

OTHER = torch.device('cuda:1')


class Card:
    """A CUDA device with a counter of bytes and a clock of its own."""

    def __init__(self) -> None:
        self.allocated, self.peak, self.now = 0, 0, 0.0

    def allocate(self, size):
        self.allocated += size
        self.peak = max(self.peak, self.allocated)


@pytest.fixture
def cards(monkeypatch):
    """Two devices, of which the first is the current one."""
    cards = [Card(), Card()]

    def card(device=None):
        return cards[torch.device(device).index or 0 if device is not None else 0]

    class Event:
        def __init__(self, enable_timing=False):
            assert enable_timing

        def record(self, stream=None):
            self.at = (stream or card()).now

        def elapsed_time(self, other):
            return other.at - self.at

    def reset(device=None):
        card(device).peak = card(device).allocated

    cuda = dict(
        Event=Event,
        current_stream=card,
        synchronize=lambda device=None: setattr(card(device), 'waited', True),
        memory_allocated=lambda device=None: card(device).allocated,
        max_memory_allocated=lambda device=None: card(device).peak,
        reset_peak_memory_stats=reset,
    )
    for name, function in cuda.items():
        monkeypatch.setattr(torch.cuda, name, function)
    return cards


def test_time_is_that_of_the_device(cards):
    clock = clock_of(OTHER)
    assert isinstance(clock, CudaClock)
    start = clock.mark()
    cards[1].now += 7.0
    cards[0].now += 99.0
    assert clock.milliseconds(start, clock.mark()) == 7.0
    clock.synchronize()
    assert hasattr(cards[1], 'waited') and not hasattr(cards[0], 'waited')


def test_memory_is_that_of_the_device(cards):
    cards[0].allocate(5000)
    cards[1].allocate(100)
    with meter_of(OTHER)() as meter:
        assert isinstance(meter, CudaMeter)
        cards[1].allocate(30)
        cards[0].allocate(900)
        assert (meter.live(), meter.peak()) == (30, 30)
        cards[1].allocate(-20)
        assert (meter.live(), meter.peak()) == (10, 30)
        meter.restart()
        assert meter.peak() == 10
    assert hasattr(cards[1], 'waited') and not hasattr(cards[0], 'waited')


def test_the_cpu_has_its_own_clock_and_meter():
    assert type(clock_of(torch.device('cpu'))) is WallClock
    assert isinstance(meter_of(torch.device('cpu'))(), TensorMeter)


def test_the_device_is_the_current_one_during_an_inference(monkeypatch):
    seen = []

    @contextmanager
    def device(which):
        seen.append(which)
        yield

    monkeypatch.setattr(torch.cuda, 'device', device)
    with current(OTHER):
        assert seen == [OTHER]
    with current(torch.device('cpu')):
        assert seen == [OTHER]


def test_noise_goes_to_the_device_once_and_not_in_every_inference(monkeypatch):
    model = build_segmentor(setr_head(), test_cfg=ConfigDict(mode='whole')).eval()
    sources, plain = [], torch.Tensor.to

    def recorded(self, *args, **kwargs):
        if self.shape == (2, 3, 64, 64):
            sources.append(self)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, 'to', recorded)
    infer = inference_on_noise(model, (64, 64), batch=2)
    assert len(sources) == 1
    infer()
    infer()
    assert len(sources) == 1


def test_every_inference_sees_the_same_noise_whatever_the_model_does_to_it():
    model = build_segmentor(setr_head(), test_cfg=ConfigDict(mode='whole')).eval()
    seen = []

    def keep_and_spoil(module, inputs):
        seen.append(inputs[0].clone())
        inputs[0].zero_()

    model.backbone.register_forward_pre_hook(keep_and_spoil)
    infer = inference_on_noise(model, (64, 64))
    infer()
    infer()
    assert torch.equal(*seen) and seen[0].std() > 0.9


def test_noise_has_the_channels_that_the_anchors_take():
    anchors = [vit_anchor(2, 32), vit_anchor(4, 64)]
    for one in anchors:
        one['model_kwargs']['in_chans'] = 5
    backbone = dict(tiny_stitched(), anchors=anchors)
    model = build_segmentor(setr_head(), backbone=backbone, test_cfg=ConfigDict(mode='whole'))
    shapes = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    inference_on_noise(model.eval(), (64, 64))()
    assert shapes == [(1, 5, 64, 64)]
