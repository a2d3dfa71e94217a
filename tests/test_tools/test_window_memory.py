"""The allocator behind the figure for the memory of windows, on storages whose life is known."""

from __future__ import annotations

import torch

from tools.benchmark.window_memory import PeakMemory, build_block, main, peak_bytes


def test_storages_count_while_they_live():
    x = torch.empty(10, device='meta')
    with PeakMemory() as memory:
        first = x + 1
        second = first + 1
        assert memory.live == 80
        del first
        assert memory.live == 40
        view = second.view(2, 5)  # no storage of its own
        third = view * 2
    assert (memory.live, memory.peak) == (80, 80)
    del third, view, second
    assert memory.live == 0


def test_what_the_graph_keeps_for_the_backward_pass_counts():
    x = torch.empty(10, device='meta', requires_grad=True)
    with PeakMemory() as memory:
        y = x.exp()
        loss = y.sum()
        del y
        assert memory.live == 40 + 4
        loss.backward()
    assert x.grad is not None and memory.peak >= 40 + 4 + 40


def test_a_block_holds_at_least_its_maps_of_pairs():
    """16 heads, 4 bytes: scores and their softmax, one of them kept for the backward pass."""
    pairs = 16 * 256 * 256 * 4
    found = peak_bytes(build_block(), build_block(), 256)
    assert 2 * pairs < found < 60 * 256 * 1024 * 4 + 4 * pairs + 4 * 13_000_000


def test_windows_meet_the_goal(capsys):
    assert main([]) == 0
    assert 'MISSED' not in capsys.readouterr().out
    assert main(['--size', '224']) == 1  # a map of one window has nothing to save
