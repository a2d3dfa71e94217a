"""Memory that inferences hold, composed and as counted while they run."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import ConfigDict

from mmsnnet.evaluation.latency.inference import inference_on_noise
from mmsnnet.evaluation.latency.memory import (
    TensorMeter,
    compose_peak,
    measure_components,
    measure_whole,
    weight_bytes,
)
from tests import classifiers
from tests.builders import tiny_backbone
from tests.segmentors import build_segmentor, multi_level_neck, setr_head, single_head
from tests.segmentors import head as make_head


def test_the_peak_is_what_was_alive_at_once():
    with TensorMeter() as meter:
        one = torch.ones(1000)  # 4,000 bytes
        other = one + 1  # 8,000 bytes at once
        del one
        third = other * 2  # still 8,000
        view = third[:10].reshape(2, 5)  # makes nothing
        third.add_(1)
        assert (meter.live(), meter.peak()) == (8000, 8000)
        del other
        double = third.double()  # 4,000 and 8,000
        assert meter.peak() == 12000
        del third, double
        assert meter.live() == 4000  # the view holds its whole storage
        meter.restart()
        assert meter.peak() == 4000
        del view
        assert meter.live() == 0


def test_what_was_made_before_does_not_count():
    weight = torch.ones(50, 50)
    with torch.no_grad(), TensorMeter() as meter:
        weight.t()
        assert meter.peak() == 0
        torch.nn.functional.linear(torch.ones(3, 50), weight)
        assert meter.peak() == 4 * (150 + 150)


WHOLE = ConfigDict(mode='whole')
CASES = {
    'whole': (lambda: build_segmentor(setr_head(), test_cfg=WHOLE), (64, 64)),
    'neck': (
        lambda: build_segmentor(make_head('UPerHead', 32), multi_level_neck(), test_cfg=WHOLE),
        (64, 96),
    ),
    'slide': (
        lambda: build_segmentor(
            single_head('FCNHead', num_convs=1),
            test_cfg=ConfigDict(mode='slide', crop_size=(64, 64), stride=(32, 32)),
        ),
        (96, 128),
    ),
}


@pytest.mark.parametrize('case', CASES)
def test_composed_peaks_are_those_counted_in_every_stitch(case):
    make, size = CASES[case]
    model = make().eval()
    backbone, infer = model.backbone, inference_on_noise(model, size)
    parts = measure_components(backbone, infer, TensorMeter)
    assert backbone.executor is None
    for stitch in backbone.space:
        counted = measure_whole(backbone, infer, TensorMeter, stitch)
        assert compose_peak(backbone.space, stitch, parts) == pytest.approx(counted, rel=0.01)
        assert counted > 4 * 3 * size[0] * size[1]


@pytest.mark.parametrize('settings', [{}, dict(final_norm=True), dict(output_cls_token=True)])
def test_peaks_inside_the_backbone_are_composed_to_the_byte(settings):
    backbone = tiny_backbone(((3, 32), (6, 64)), **settings)

    def infer():
        with torch.no_grad():
            return backbone(torch.ones(2, 3, 64, 96))

    parts = measure_components(backbone, infer, TensorMeter)
    peaks = {s.name: measure_whole(backbone, infer, TensorMeter, s) for s in backbone.space}
    composed = {s.name: compose_peak(backbone.space, s, parts) for s in backbone.space}
    assert composed == peaks
    assert len(set(peaks.values())) > 2


def test_weights_are_those_of_the_stitch_with_neck_and_head():
    auxiliary = single_head('FCNHead', num_convs=1)
    model = build_segmentor(setr_head(), auxiliary=auxiliary)
    head = sum(p.numel() for p in model.decode_head.parameters())
    weights = weight_bytes(model, model.backbone)
    for name, cost in model.backbone.costs.items():
        assert weights[name] == 4 * (head + cost.params)


def test_of_a_classifier_the_weights_of_the_last_anchor_alone_count():
    pytest.importorskip('mmpretrain', reason='classifiers are those of mmpretrain')
    model = classifiers.build(classifiers.classifier())
    weights = weight_bytes(model, model.backbone)
    for name, cost in model.backbone.costs.items():
        width = dict(S=32, L=48)[name.split('-')[-1][0]]
        assert weights[name] == 4 * (cost.params + classifiers.NUM_CLASSES * (width + 1))
