"""The clock of the benchmarks, on calls whose time is known."""

from __future__ import annotations

import gc
import time

import pytest

from tools.benchmark import _timing


@pytest.fixture
def clock(monkeypatch):
    """A clock that only calls of ``spend`` move."""
    now = [0.0]
    monkeypatch.setattr(_timing.time, 'perf_counter', lambda: now[0])
    calls = []

    def spend(name, *durations):
        left = list(durations)

        def run():
            calls.append(name)
            now[0] += left.pop(0) if len(left) > 1 else left[0]

        return run

    return spend, calls


def test_the_ratio_is_the_median_over_pairs(clock):
    spend, _ = clock
    a = spend('a', 9.0, 1.0, 2.0, 3.0, 4.0, 100.0)  # the first call warms up
    assert _timing.paired_ratio(a, spend('b', 1.0), repeats=5) == (3.0, 1.0)


def test_every_other_pair_runs_the_second_first(clock):
    spend, calls = clock
    _timing.paired_ratio(spend('a', 1.0), spend('b', 1.0), repeats=3)
    assert ''.join(calls) == 'ab' + 'ab' + 'ba' + 'ab'


def test_equal_work_has_no_spread(clock):
    spend, _ = clock
    assert _timing.paired_ratio(spend('a', 2.0), spend('b', 4.0)) == (0.5, 0.0)


def test_the_median_time_is_not_moved_by_an_outlier(clock):
    spend, _ = clock
    assert _timing.median_seconds(spend('a', 1.0, 50.0, 2.0), repeats=3) == 2.0


def test_a_real_call_takes_its_time():
    assert _timing.seconds(lambda: time.sleep(0.02)) >= 0.02


def test_garbage_is_collected_again_afterwards():
    seen = []
    _timing.median_seconds(lambda: seen.append(gc.isenabled()), repeats=1)
    assert seen == [False] and gc.isenabled()


@pytest.mark.parametrize(
    'run', [lambda: _timing.median_seconds(int, 0), lambda: _timing.paired_ratio(int, int, 1)]
)
def test_too_few_repeats_are_refused(run):
    with pytest.raises(ValueError, match='repeats must be'):
        run()
