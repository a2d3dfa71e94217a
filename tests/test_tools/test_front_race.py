"""The simulator of races: its outcomes where they are known, and its share of the work."""

from __future__ import annotations

import numpy as np
import pytest

from tools.benchmark import front_race
from tools.benchmark._front_spaces import BLOCK_FLOPS, PUBLISHED_MIOU, SimulatedSweep


@pytest.fixture(scope='module')
def sweep():
    return SimulatedSweep('ade20k', 400, seed=3)


def test_the_means_of_a_published_space_are_the_published_ones(sweep):
    np.testing.assert_allclose(sweep.quality, PUBLISHED_MIOU, atol=1e-4)
    assert sweep.costs[0] + 12 * (BLOCK_FLOPS[1] - BLOCK_FLOPS[0]) + 12 * BLOCK_FLOPS[1] == (
        sweep.costs[1]
    )


def test_a_synthetic_space_differs_from_seed_to_seed():
    one, again, other = (SimulatedSweep('synthetic', 50, seed).quality for seed in (1, 1, 2))
    assert (one == again).all() and (one != other).all()


def test_a_race_that_never_looks_is_the_full_pass(sweep, monkeypatch):
    monkeypatch.setattr(front_race, 'MIN_IMAGES', sweep.num_images)
    found = front_race.race(sweep, 0, 0.998)
    assert found.runs == 894 * 400
    assert front_race.judge(sweep, found) == front_race.Outcome(1.0, 1.0, 0)


def test_a_race_saves_most_of_the_work_and_keeps_the_front(sweep):
    outcome = front_race.judge(sweep, front_race.race(sweep, 0, 0.998))
    assert outcome.work < 0.6 and outcome.volume > 0.999


def test_random_stitches_have_the_anchors_and_no_more_work_than_they_may(sweep):
    found = front_race.random_stitches(sweep, 0, 0.2)
    assert {0, 1} <= set(found.scored)
    outcome = front_race.judge(sweep, found)
    assert 0.19 < outcome.work <= 0.2 and outcome.volume < 1 and outcome.lost > 0


def test_all_images_give_the_front_itself(sweep):
    found = front_race.few_images(sweep, 0, 1.0)
    outcome = front_race.judge(sweep, found)
    assert outcome.work == 1 and outcome.volume == pytest.approx(1, abs=1e-12)


def test_the_table_has_a_row_for_each_way(capsys):
    front_race.main(['--tables', 'synthetic', '--images', '60', '--seeds', '1'])
    lines = capsys.readouterr().out.splitlines()
    ways = [line[11:38].strip() for line in lines[1:-1]]
    assert ways[:3] == ['race 0.998', 'race 0.99', 'random stitches, as race']
    assert 'members of the true front' in lines[-1]
