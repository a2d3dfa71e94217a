"""The controller on made-up devices, without a clock but where one is handed in."""
from __future__ import annotations

import pytest

from mmsnnet.runtime import BudgetController, MeasuredLatency
from mmsnnet.runtime.controller import quality_ladder

LATENCY = {'S': 10.0, 'M': 20.0, 'L': 40.0}
QUALITY = {'S': 1.0, 'M': 2.0, 'L': 3.0}


class Target:
    def __init__(self) -> None:
        self.called: list[str] = []

    def set_stitch(self, stitch: str) -> None:
        self.called.append(stitch)


def controller(**settings: object) -> BudgetController:
    return BudgetController(**dict(latency=LATENCY, quality=QUALITY, deadline_ms=45) | settings)


def run(one: BudgetController, load: float, frames: int) -> None:
    for _ in range(frames):
        one.observe(LATENCY[one.stitch] * load)


def test_the_costliest_that_fits_runs_at_first() -> None:
    assert controller().stitch == 'L'
    assert controller(deadline_ms=30).stitch == 'M'


def test_frames_a_second_are_a_deadline() -> None:
    assert controller(deadline_ms=None, fps=40).deadline_ms == 25.0


def test_one_slow_frame_leads_down_at_once() -> None:
    one = controller()
    one.observe(80.0)
    assert one.stitch == 'M'


def test_a_costlier_stitch_waits_until_it_has_fitted_for_long() -> None:
    one = controller(patience=6)
    one.observe(80.0)
    stitches = []
    for _ in range(40):
        one.observe(LATENCY[one.stitch])
        stitches.append(one.stitch)
    climbed = stitches.index('L')
    assert climbed >= 6
    assert set(stitches[:climbed]) == {'M'}
    assert set(stitches[climbed:]) == {'L'}


def test_patience_grows_when_a_climb_led_to_a_miss() -> None:
    def frames_until_climb(one: BudgetController) -> int:
        for frame in range(1, 200):
            one.observe(LATENCY[one.stitch])
            if one.stitch == 'L':
                return frame
        raise AssertionError

    one = controller()
    one.observe(80.0)
    first = frames_until_climb(one)
    one.observe(80.0)  # the climb did not hold
    assert frames_until_climb(one) > first


def test_where_nothing_fits_the_cheapest_runs_and_it_says_so() -> None:
    one = controller(deadline_ms=15)
    assert one.attainable
    run(one, 2.0, 5)
    assert (one.stitch, one.attainable) == ('S', False)


def test_it_counts_frames_misses_and_switches() -> None:
    one = controller()
    one.observe(80.0)
    one.observe(20.0)
    assert (one.frames, one.misses, one.switches) == (2, 1, 1)


def test_the_target_follows_each_change_and_nothing_else() -> None:
    target = Target()
    one = controller(target=target)
    run(one, 1.0, 3)
    one.observe(80.0)
    run(one, 1.0, 2)
    assert target.called == ['L', 'M']


def test_equal_observations_give_equal_choices() -> None:
    loads = [1.0, 3.0, 1.0, 2.0] * 20
    histories = []
    for _ in range(2):
        one = controller()
        histories.append([one.observe(LATENCY[one.stitch] * load) for load in loads])
    assert histories[0] == histories[1]


def test_a_frame_is_measured_by_the_clock_that_is_handed_in() -> None:
    seconds = iter([0.0, 0.08])
    one = controller(clock=lambda: next(seconds))
    with one.frame() as stitch:
        assert stitch == 'L'
    assert one.stitch == 'M'


def test_the_ladder_leaves_out_what_a_faster_one_equals() -> None:
    latency = {'a': 1.0, 'b': 2.0, 'c': 3.0, 'd': 4.0}
    quality = {'a': 5.0, 'b': 5.0, 'c': 4.0, 'd': 6.0}
    assert quality_ladder(latency, quality) == ('a', 'd')
    assert quality_ladder(latency) == ('a', 'b', 'c', 'd')


def test_the_ladder_leaves_out_what_has_no_quality() -> None:
    assert quality_ladder({'a': 1.0, 'b': 2.0}, {'b': 1.0}) == ('b',)


@pytest.mark.parametrize('settings', [
    dict(deadline_ms=None), dict(fps=30), dict(deadline_ms=0), dict(deadline_ms=float('nan')),
    dict(margin=1.0), dict(patience=0), dict(patience=1.5), dict(latency={}),
    dict(latency={'S': 0.0}), dict(latency={'S': float('nan')}), dict(quality={}),
])  # fmt: skip
def test_what_cannot_be_is_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match=r'Give|must|possible|needs|None of'):
        controller(**settings)


@pytest.mark.parametrize('ms', [-1.0, float('nan'), float('inf')])
def test_a_time_that_is_none_is_refused(ms: float) -> None:
    with pytest.raises(ValueError, match='cannot take'):
        controller().observe(ms)


class Session(Target):
    """What a controller reads of a session, of which smaller is better in the file."""

    def __init__(self) -> None:
        super().__init__()
        self.latency: dict[str, MeasuredLatency] = {}

    def measure(self) -> None:
        self.latency = {name: MeasuredLatency(ms, ms, 1.0) for name, ms in LATENCY.items()}

    def qualities(self) -> dict[str, float]:
        return {'S': -3.0, 'M': -4.0, 'L': -1.0}


def test_a_session_brings_its_measured_latencies_and_its_qualities() -> None:
    session = Session()
    one = BudgetController.of_session(session, deadline_ms=30)
    assert one.ladder == ('S', 'L') and one.stitch == 'S' and session.called == ['S']
    one.observe(2.0)
    assert one.load < 1


def test_what_a_session_measured_before_is_not_measured_again() -> None:
    session = Session()
    session.latency = {'M': MeasuredLatency(5.0, 5.0, 1.0)}
    assert BudgetController.of_session(session, fps=30).ladder == ('M',)


def test_settings_go_before_what_a_session_brings() -> None:
    one = BudgetController.of_session(Session(), deadline_ms=100, quality=QUALITY, patience=2)
    assert one.ladder == ('S', 'M', 'L')
