"""Latency composed from components, on a clock that only known work moves."""

from __future__ import annotations

import random
import re
import statistics
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from mmsnnet.evaluation.latency.components import (
    component_of,
    count_components,
    covering_stitches,
    stretches,
)
from mmsnnet.evaluation.latency.measure import (
    MAX_ATTEMPTS,
    Latency,
    LatencyMeasurement,
    ProgramTimer,
    WallClock,
    compose,
    mean_components,
    spread,
)
from mmsnnet.stitching import Block, Cross, Embed
from tests.builders import random_images, tiny_backbone

#: Milliseconds of each component, and of what a forward needs once per anchor.
COST = {
    'embed S': 3.0, 'embed L': 5.0, 'block S': 2.0, 'block L': 7.0, 'tap S': 0.5, 'tap L': 0.0,
    'cross S-L': 1.0, 'cross L-S': 1.5, 'context S': 0.25, 'context L': 4.0,
}  # fmt: skip
HEAD = 11.0


@pytest.fixture(scope='module')
def backbone():
    return tiny_backbone()


class Machine:
    """A backbone, a head and a clock; every step takes its known time, times a drift."""

    def __init__(self, space, windows=1, drift=lambda: 1.0):
        self.space, self.windows, self.drift = space, windows, drift
        self.now, self.executor, self.ran = 0.0, None, []

    @contextmanager
    def use_stitch(self, stitch):
        self.stitch = stitch
        yield

    @contextmanager
    def use_executor(self, executor):
        self.executor = executor
        yield
        self.executor = None

    def spend(self, ms):
        self.now += ms / 1e3 * self.drift()

    def anchor(self, index):
        return SimpleNamespace(context=lambda grid: self.context(index))

    def context(self, index):
        self.spend(COST[f'context {self.space.labels[index]}'])

    def grid(self, images):
        return None

    def advance(self, state, steps):
        for anchor in {step.anchor for step in steps if isinstance(step, Block)}:
            self.context(anchor)
        for step in steps:
            self.spend(COST[component_of(self.space, step)])
        return state

    def infer(self):
        self.ran.append(self.stitch.name)
        self.spend(HEAD)
        run = (self.executor or self).advance
        for _ in range(self.windows):
            run(SimpleNamespace(images=None), self.space.program(self.stitch))

    def mark(self):
        return self.now

    def milliseconds(self, start, stop):
        return (stop - start) * 1e3

    def synchronize(self):
        pass


def expected(space, stitch, windows=1):
    """Milliseconds of a stitch by its segments, counted without its program's components."""
    segments = stitch.route.segments
    total = COST[f'embed {space.labels[segments[0].anchor]}']
    for segment in segments:
        total += len(segment) * COST[f'block {space.labels[segment.anchor]}']
    for one, other in zip(segments, segments[1:]):
        total += COST[f'cross {space.labels[one.anchor]}-{space.labels[other.anchor]}']
    total += sum(COST[f'context {space.labels[a]}'] for a in {s.anchor for s in segments})
    taps = [step for step in space.program(stitch) if hasattr(step, 'lift')]
    total += 0.5 * sum(step.lift is not None for step in taps)
    return HEAD + windows * total


@pytest.mark.parametrize('windows', [1, 3])
def test_every_stitch_is_the_sum_of_its_components(backbone, windows):
    machine = Machine(backbone.space, windows)
    latency = LatencyMeasurement(machine, machine.infer, machine).run(rounds=2, warmup=0)
    assert latency.windows == windows
    assert {n: v[0] for n, v in latency.components.items()} == pytest.approx({**COST, 'rest': HEAD})
    for stitch in backbone.space:
        sums = latency.composed[stitch.name]
        assert sums == pytest.approx([expected(backbone.space, stitch, windows)] * 2)


def test_drift_between_rounds_leaves_the_error_zero(backbone):
    rng = random.Random(0)
    machine = Machine(backbone.space)
    direct = [backbone.space[name] for name in ('S3-L6', 'L2-S5')]
    measurement = LatencyMeasurement(machine, machine.infer, machine, direct)

    def slow_down():
        factor = rng.uniform(1, 5)
        machine.drift = lambda: factor

    latency = measurement.run(rounds=6, warmup=1, on_round=slow_down)
    assert latency.errors() == pytest.approx({'S3-L6': 0, 'L2-S5': 0})
    assert max(latency.direct['S3-L6']) > 1.2 * min(latency.direct['S3-L6'])


def test_a_stitch_that_takes_longer_than_its_components_shows_as_an_error(backbone):
    machine = Machine(backbone.space)
    direct = [backbone.space['S3-L6']]
    latency = LatencyMeasurement(machine, machine.infer, machine, direct).run(3, 0)
    latency.direct['S3-L6'] = [1.25 * value for value in latency.direct['S3-L6']]
    assert latency.errors()['S3-L6'] == pytest.approx(1 / 1.25 - 1)


def test_every_other_round_runs_backwards_and_warm_up_does_not_count(backbone):
    machine = Machine(backbone.space)
    direct = [backbone.space['S3-L6']]
    measurement = LatencyMeasurement(machine, machine.infer, machine, direct)
    latency = measurement.run(rounds=2, warmup=1)
    once = len(machine.ran) // 3
    rounds = [machine.ran[i * once : (i + 1) * once] for i in range(3)]
    assert rounds[0] == rounds[2] == rounds[1][::-1]
    assert len(latency.direct['S3-L6']) == 2


def test_time_that_runs_out_leaves_three_rounds(backbone):
    machine = Machine(backbone.space)
    latency = LatencyMeasurement(machine, machine.infer, machine).run(9, 1, max_seconds=0)
    assert len(latency.components['rest']) == 3


def test_the_backbone_runs_its_programs_itself_again_when_an_inference_fails(backbone):
    def fail():
        raise RuntimeError('out of memory')

    with pytest.raises(RuntimeError, match='out of memory'):
        LatencyMeasurement(backbone, fail, WallClock()).run(1, 0)
    assert backbone.executor is None


def test_covering_stitches_run_every_component_and_are_few():
    for shape in (((6, 48), (12, 96)), ((3, 32), (6, 48), (12, 96))):
        space = tiny_backbone(shape).space
        covering = covering_stitches(space)
        ran = {name for stitch in covering for name in count_components(space, stitch)}
        assert ran == {name for stitch in space for name in count_components(space, stitch)}
        assert len(covering) <= 2 * len(shape) + 1


def test_stretches_are_the_program_cut_where_the_component_changes(backbone):
    space = backbone.space
    for stitch in space:
        cut = list(stretches(space, space.program(stitch)))
        assert [step for _, steps in cut for step in steps] == list(space.program(stitch))
        assert all(one[0] != other[0] for one, other in zip(cut, cut[1:]))
        assert all({component_of(space, step) for step in steps} == {name} for name, steps in cut)


def test_components_are_named_by_anchor(backbone):
    space = backbone.space
    program = space.program('S3-L6')
    named = {type(step): component_of(space, step) for step in program}
    assert named[Embed] == 'embed S' and named[Cross] == 'cross S-L'
    assert count_components(space, 'S3-L6')['block S'] == 3
    assert count_components(space, 'S3-L6')['block L'] == 6


def test_a_timed_forward_is_the_plain_one_bit_for_bit(backbone):
    images = random_images(1)
    with torch.no_grad(), backbone.use_stitch('L2-S3-L4'):
        plain = backbone(images)
        timer = ProgramTimer(backbone, WallClock())
        with backbone.use_executor(timer):
            timed = backbone(images)
        counts = count_components(backbone.space, backbone.stitch)
    assert all(torch.equal(one, other) for one, other in zip(plain, timed))
    assert timer.calls == 1
    taken = timer.take()
    assert all(ms >= 0 for *_, ms in taken)
    summed = {name: sum(n for other, n, _ in taken if other == name) for name, *_ in taken}
    assert summed == counts


def test_blocks_are_relieved_of_their_context():
    samples = [[('block S', 4, 10.0), ('block S', 2, 6.0), ('context S', 1, 1.0), ('rest', 1, 2.0)]]
    assert mean_components(samples) == {'block S': (16.0 - 2) / 6, 'context S': 1.0, 'rest': 2.0}
    assert compose(mean_components(samples), {'block S': 6, 'context S': 1}) == 2 + 14 + 1


def test_the_spread_is_half_the_middle_half():
    assert spread([1.0, 2.0, 3.0, 4.0, 100.0]) == 1.0
    assert spread([3.0]) == 0.0
    values = [random.Random(1).gauss(0, 1) for _ in range(9)]
    low, _, high = statistics.quantiles(values, n=4, method='inclusive')
    assert spread(values) == (high - low) / 2


def test_no_rounds_are_refused(backbone):
    with pytest.raises(ValueError, match='rounds must be 1 or more'):
        LatencyMeasurement(backbone, int, WallClock()).run(0)


class Noisy(Machine):
    """A machine that is disturbed in its first attempts."""

    def __init__(self, space, disturbed):
        super().__init__(space)
        self.disturbed, self.rounds, self.rng = disturbed, 0, random.Random(3)

    def on_round(self):
        self.rounds += 1
        factor = self.rng.uniform(1, 9) if self.rounds < self.disturbed else 1.0
        self.drift = lambda: factor


def attempt(backbone, disturbed, rounds=4):
    machine = Noisy(backbone.space, disturbed)
    direct = [backbone.space['S3-L6']]
    measurement = LatencyMeasurement(machine, machine.infer, machine, direct)
    return machine, measurement.run_until_reliable(rounds, 0, on_round=machine.on_round)


def test_a_disturbed_measurement_is_repeated_until_it_is_quiet(backbone):
    machine, latency = attempt(backbone, disturbed=4)
    assert machine.rounds == 8 and latency.doubts() == []
    assert latency.worst() == pytest.approx(0, abs=1e-9)


def test_a_quiet_measurement_is_not_repeated(backbone):
    machine, latency = attempt(backbone, disturbed=0)
    assert machine.rounds == 4 and latency.doubts() == []


def test_a_measurement_that_stays_disturbed_ends_with_its_best_attempt_in_doubt(backbone):
    machine, latency = attempt(backbone, disturbed=99)
    assert machine.rounds == 4 * MAX_ATTEMPTS
    (doubt,) = latency.doubts()
    assert re.fullmatch(r'\S+ spreads by \d+% over rounds', doubt)


@pytest.mark.parametrize(
    ('direct', 'doubts'),
    [
        ([10.0] * 3, []),
        ([12.4] * 3, []),
        ([27.0] * 3, ['composed and direct timings differ by 63%']),
        ([3.7] * 3, ['composed and direct timings differ by 170%']),
    ],
)
def test_an_error_of_composing_beyond_a_quarter_is_a_doubt(direct, doubts):
    assert Latency(composed={'S6': [10.0] * 3}, direct={'S6': direct}).doubts() == doubts


def test_a_spread_beyond_a_quarter_of_any_stitch_is_a_doubt():
    quiet, loud = [10.0, 10.5, 11.0], [10.0, 16.0, 26.4]
    assert Latency(composed={'S6': quiet, 'L9': quiet}).doubts() == []
    assert Latency(composed={'S6': quiet, 'L9': loud}).doubts() == ['L9 spreads by 26% over rounds']


def test_less_than_three_rounds_are_a_doubt_and_are_not_repeated(backbone):
    machine, latency = attempt(backbone, disturbed=0, rounds=2)
    assert machine.rounds == 2
    assert latency.doubts() == ['2 round(s) show no spread, 3 are needed']
