"""The stitch of a budget, out of files."""

from __future__ import annotations

import pytest

from mmsnnet.results.chooser import chooser_of_costs, chooser_of_results
from mmsnnet.results.initial_stitch import resolve_stitch
from mmsnnet.stitching import CostTable
from tests.builders import tiny_backbone
from tests.results_folder import record, write_latency, write_results

RECORDS = [
    record('S6', 1, 40.0, 0, rmse=0.9),
    record('L12', 9, 50.0, 1, rmse=0.6),
    record('S3-L6', 5, 49.0, 2, rmse=0.5),
    record('L2-S5', 3, 39.0, 3, rmse=0.8),
]
LATENCY = {'S6': (10, 5), 'L12': (90, 50), 'S3-L6': (70, 30), 'L2-S5': (20, 9)}


@pytest.fixture(scope='module')
def space():
    return tiny_backbone().space


@pytest.fixture
def folder(tmp_path):
    return write_results(tmp_path / 'sweep', RECORDS, dict(metric='mIoU', rule='greater'))


def test_results_and_latency_join_by_name(folder, tmp_path):
    chooser = chooser_of_results(folder, write_latency(tmp_path / 'l.json', LATENCY))
    assert [(o.name, o.quality, o.ms, o.mb) for o in chooser.candidates] == [
        (r['name'], r['metrics']['mIoU'], *LATENCY[r['name']]) for r in RECORDS
    ]


@pytest.mark.parametrize(
    ('question', 'name'),
    [
        (dict(gflops=6), 'S3-L6'),
        (dict(gflops=4.9), 'S6'),
        (dict(ms=60), 'S6'),
        (dict(mb=30), 'S3-L6'),
        (dict(params=0.3, gflops=8), 'S6'),
        (dict(min_metric=45), 'S3-L6'),
        (dict(min_metric=49.5), 'L12'),
        (dict(knee=True), 'S3-L6'),
        (dict(gflops=6, metric='rmse'), 'S3-L6'),
        (dict(min_metric=0.85, metric='rmse'), 'L2-S5'),
        (dict(gflops=3, metric='rmse', rule='greater'), 'S6'),
    ],
)
def test_a_backbone_is_given_its_stitch_by_a_question(space, folder, tmp_path, question, name):
    question |= dict(
        results=str(folder), latency=str(write_latency(tmp_path / 'l.json', LATENCY))
    )
    assert resolve_stitch(space, (64, 64), question).name == name


def test_without_results_a_budget_is_of_the_backbone_alone_and_takes_the_most_flops(space):
    flops = CostTable(space, 64).flops
    limit = sorted(flops.values())[len(flops) // 2]
    stitch = resolve_stitch(space, (64, 64), dict(gflops=limit / 1e9))
    assert flops[stitch.name] == limit


def test_names_ids_and_nothing_are_taken_as_ever(space):
    assert resolve_stitch(space, (64, 64), 'S3-L6').name == 'S3-L6'
    assert resolve_stitch(space, (64, 64), 0).name == 'S6'
    assert resolve_stitch(space, (64, 64), None).name == 'L12'


def test_a_backbone_built_with_a_budget_runs_its_stitch(folder):
    assert tiny_backbone(stitch=dict(results=str(folder), gflops=6)).stitch.name == 'S3-L6'


def test_results_of_other_anchors_are_refused(folder, space):
    write_results(folder, [*RECORDS, record('S9-L9', 2, 1.0)])
    with pytest.raises(ValueError, match='1 stitches that this model has not, such as S9-L9'):
        resolve_stitch(space, (64, 64), dict(results=str(folder), gflops=6))


@pytest.mark.parametrize(
    ('question', 'message'),
    [
        (dict(flops=3), r'stitch=dict\(flops=...\) is not possible; keys are results'),
        (dict(), 'Ask for one thing: limits'),
        (dict(gflops=3, knee=True), 'Ask for one thing'),
        (dict(gflops=1e-9), r'No stitch keeps within 1e-09 GFLOPs; the cheapest is S6 with'),
        (dict(knee=True), 'give the results folder'),
        (dict(ms=3), 'latency=FILE'),
    ],
)
def test_questions_without_an_answer_are_refused_in_a_line(space, question, message):
    with pytest.raises(ValueError, match=message) as error:
        resolve_stitch(space, (64, 64), question)
    assert '\n' not in str(error.value)


def test_a_limit_of_a_cost_table_agrees_with_the_table(space):
    costs = CostTable(space, 96)
    chooser = chooser_of_costs(costs)
    assert {one.name: one.flops for one in chooser.candidates} == costs.flops
    assert chooser.choose(params=1e9).name == max(costs.flops, key=costs.flops.get)
