"""The commands on a classifier: its sweep, its latency, and the choice of a stitch from both."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmsnnet.apis import init_model
from mmsnnet.deploy import load
from mmsnnet.evaluation.cost.model_cost import model_costs
from mmsnnet.models import heads
from mmsnnet.runtime.session import StitchSession
from tests.classifiers import build, save_classifier, write_pictures
from tests.small_recipes import ROOT
from tools.choose_stitch import main as choose_stitch
from tools.export_stitch import main as export_stitch
from tools.list_stitches import main as list_stitches
from tools.measure_latency import main as measure_latency
from tools.test_all_stitches import main as sweep

pytest.importorskip('mmpretrain', reason='classifiers are those of mmpretrain')

METRIC = 'accuracy/top1'
NAMES = ('S3', 'L6', 'S1-L4', 'L2-S2')


@pytest.fixture(scope='module')
def swept(tmp_path_factory):
    """Config, checkpoint, results and latency of a classifier, written by the commands."""
    folder = tmp_path_factory.mktemp('classifier')
    config, checkpoint = save_classifier(write_pictures(folder, 0, 6))
    found = SimpleNamespace(
        config=config, checkpoint=checkpoint,
        results=str(folder / 'sweep'), latency=str(folder / 'latency.json'),
    )  # fmt: skip
    stitches = ['--stitches', ','.join(NAMES), '--out', found.results]
    assert sweep([found.config, found.checkpoint, *stitches]) == 0
    rounds = ['--rounds', '3', '--warmup', '0', '--max-seconds', '1', '--direct', 'anchors']
    assert measure_latency([found.config, found.checkpoint, *rounds, '--out', found.latency]) == 0
    return found


def read_records(swept):
    with open(f'{swept.results}/stitches.jsonl', encoding='utf-8') as file:
        return {row['name']: row for row in map(json.loads, file)}


def test_the_sweep_records_accuracy_and_what_the_last_classifier_costs(swept):
    costs = model_costs(build(Config.fromfile(swept.config).model.to_dict()), 64)
    records = read_records(swept)
    assert set(records) == set(NAMES)
    for name, row in records.items():
        assert 0 <= row['metrics'][METRIC] <= 100
        assert (row['flops'], row['params']) == (costs[name].flops, costs[name].params)


def test_every_stitch_of_a_classifier_has_a_latency(swept):
    with open(swept.latency, encoding='utf-8') as file:
        content = json.load(file)
    rows = {row['name']: row for row in content['stitches']}
    assert len(rows) == 8 and all(row['ms'] > 0 for row in rows.values())
    assert content['windows'] == 1 and content['check']['memory_error']['max'] < 0.01
    costs = model_costs(build(Config.fromfile(swept.config).model.to_dict()), 64)
    for name, row in rows.items():
        assert row['mb'] - row['activations_mb'] == pytest.approx(4e-6 * costs[name].params)


def test_a_budget_in_milliseconds_chooses_the_best_that_is_measured_to_keep_it(swept, capsys):
    with open(swept.latency, encoding='utf-8') as file:
        ms = {row['name']: row['ms'] for row in json.load(file)['stitches']}
    records = read_records(swept)
    limit = sorted(ms[name] for name in NAMES)[2]
    keeping = [name for name in NAMES if ms[name] <= limit]
    best = max(records[name]['metrics'][METRIC] for name in keeping)
    question = ['--latency', swept.latency, '--ms', str(limit), '--format', 'json']
    assert choose_stitch([swept.results, *question]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row['name'] in keeping and row[METRIC] == best

    model = init_model(
        swept.config, swept.checkpoint, results=swept.results, latency=swept.latency
    )
    assert model.set_budget(ms=limit).name == row['name'] == model.stitch


@pytest.mark.slow
def test_a_stitch_within_a_budget_is_exported_checked_and_scored(swept, tmp_path):
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason='needs the extra [deploy]')
    out, files = tmp_path / 'out', [swept.config, swept.checkpoint]
    options = ['--gflops', '1', '--results', swept.results, '--onnx', '--int8', '--check-data', '5']
    assert export_stitch([*files, *options, '--out', str(out)]) == 0
    records = read_records(swept)
    for name in ('model.onnx', 'model.int8.onnx'):
        said = StitchSession(out / name).metadata
        (entry,) = said.stitches
        assert entry.metrics[METRIC] == records[entry.name]['metrics'][METRIC]
        found = said.checks['data'][entry.name]
        assert abs(found['metrics'][METRIC] - found['metrics_in_torch'][METRIC]) <= 20.01
    assert load(out).backbone.stitch.name == entry.name

    many = ['--all-stitches', '--stitches', 'front', '--results', swept.results]
    assert export_stitch([*files, *many, '--out', str(tmp_path / 'front')]) == 0
    session = StitchSession(tmp_path / 'front' / 'all_stitches.onnx')
    assert set(session.stitches) <= set(NAMES) and session.metadata.metric == METRIC


def missing(name):
    raise PackageNotFoundError(name)


@pytest.mark.parametrize(
    ('version', 'problem'),
    [(missing, 'which is not installed'), (lambda name: '1.1.1', '1.2 or newer; 1.1.1 is')],
)
@pytest.mark.parametrize('command', [sweep, measure_latency, export_stitch, list_stitches])
def test_a_missing_or_old_mmpretrain_is_told_in_one_line_and_nothing_is_written(
    tmp_path, capsys, monkeypatch, command, version, problem
):
    config, checkpoint = str(ROOT / 'configs/cls_snnetv2_rooms.py'), str(tmp_path / 'weights.pth')
    torch.save(dict(state_dict={}), checkpoint)
    monkeypatch.setattr(heads, 'version', version)
    out = [] if command is list_stitches else [checkpoint, '--out', str(tmp_path / 'out')]
    assert command([config, *out]) == 2
    *_, last = capsys.readouterr().err.strip().splitlines()
    assert f"default_scope='mmpretrain' needs MMPretrain{' ' if '1.2' in problem else ', '}" in last
    assert problem in last and 'mmsnnet[cls]' in last
    assert [path.name for path in tmp_path.iterdir()] == ['weights.pth']
