"""Bytes that live while code runs."""

from __future__ import annotations

import torch

from mmsnnet.evaluation.planning.memory_meter import MemoryMeter


def test_what_lives_and_the_most_that_lived_at_once_are_told_apart():
    with MemoryMeter() as meter:
        kept = torch.zeros(100)
        gone = torch.zeros(50) + 1
        del gone
    assert (meter.live, meter.peak) == (400, 400 + 2 * 200)
    del kept
    assert meter.live == 0


def test_views_cost_nothing_and_tensors_from_before_count_once():
    before = torch.zeros(10, dtype=torch.float64)
    with MemoryMeter() as meter:
        meter.count([before, before])
        view = before.view(2, 5)[0]
    assert meter.live == 80 and len(view) == 5


def test_a_peak_begins_anew():
    with MemoryMeter() as meter:
        torch.zeros(100)
        assert meter.peak == 400
        meter.reset_peak()
        assert meter.peak == 0
