"""The demo: its plan, its trainings as processes, and what it says of the figures."""

from __future__ import annotations

import argparse
import json

import pytest
from mmengine import Config
from rich.console import Console

from tools.demo import ROOT, Run, StepError, plan, train, verdict


@pytest.fixture
def quiet():
    return Console(quiet=True)


@pytest.fixture
def run(tmp_path):
    return Run('toy', tmp_path / 'missing.py', tmp_path / 'toy', iters=10)


def test_the_full_demo_changes_nothing_of_the_configs():
    _, runs = plan(argparse.Namespace(quick=False))
    assert [run.options for run in runs] == [[], [], []]


def test_the_stitched_config_names_the_checkpoints_that_the_anchors_end_with():
    _, (small, large, stitched) = plan(argparse.Namespace(quick=False))
    anchors = Config.fromfile(stitched.config).model.backbone.anchors
    assert [ROOT / anchor.checkpoint for anchor in anchors] == [
        small.checkpoint,
        large.checkpoint,
    ]


def test_the_rooms_are_rendered_where_the_configs_read_them():
    make, runs = plan(argparse.Namespace(quick=False))
    roots = {Config.fromfile(run.config).train_dataloader.dataset.data_root for run in runs}
    assert roots == {make[1]}


def test_the_anchors_alone_are_the_anchors_of_the_stitched_model():
    _, (small, large, stitched) = plan(argparse.Namespace(quick=False))
    inside = Config.fromfile(stitched.config).model.backbone.anchors
    for run, anchor in zip((small, large), inside):
        (alone,) = Config.fromfile(run.config).model.backbone.anchors
        assert alone.model_kwargs == anchor.model_kwargs
        assert alone.label == anchor.label
        assert alone.checkpoint is None


def test_quick_overrides_fit_the_stitched_config_to_the_quick_anchors():
    _, (small, large, stitched) = plan(argparse.Namespace(quick=True))
    cfg = Config.fromfile(stitched.config)
    cfg.merge_from_dict(dict(option.split('=', 1) for option in stitched.options))
    files = [ROOT / anchor.checkpoint for anchor in cfg.model.backbone.anchors]
    assert files == [small.checkpoint, large.checkpoint]


def test_progress_is_the_last_whole_line_of_the_newest_log(run):
    for stamp, iteration in (('1', 9), ('2', 4)):
        log = run.folder / stamp / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True)
        log.write_text(json.dumps({'iter': iteration}) + '\n{"iter": 5')
    assert run.progress() == 4


def test_progress_stays_when_the_log_ends_with_metrics(run):
    log = run.folder / '1' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps({'iter': 10}) + '\n' + json.dumps({'mIoU': 12.0, 'step': 10}) + '\n')
    assert run.progress() == 10


def test_a_training_that_has_its_last_checkpoint_is_not_started(run, quiet):
    run.folder.mkdir()
    run.checkpoint.touch()
    train([run], quiet)
    assert not (run.folder / 'train.log').exists()


def test_a_training_that_dies_is_told_in_one_line_with_its_log(run, quiet):
    with pytest.raises(StepError, match=r'toy stopped: .*toy/train\.log') as caught:
        train([run], quiet)
    assert '\n' not in str(caught.value)


INSIDE = {'S6': 12.0, 'L12': 20.0, 'S3-L6': 15.0, 'L2-S5': 21.0, 'L4-S4': 11.0}


def test_the_verdict_counts_stitches_between_above_and_below_the_anchors():
    assert verdict({'S6': 12.5, 'L12': 20.5}, INSIDE)[-1] == (
        'of 3 stitches between the anchors 1 score between them, 1 above both and 1 below both'
    )


def test_the_verdict_says_when_an_anchor_lost_by_being_stitched():
    lines = verdict({'S6': 12.5, 'L12': 30.0}, INSIDE)
    assert lines[0].startswith('kept: anchor S6')
    assert lines[1].startswith('NOT KEPT: anchor L12 has 20.00 mIoU inside, 30.00 by itself')


def test_the_verdict_says_when_there_is_no_gap_to_bridge():
    lines = verdict({'S6': 12.0, 'L12': 10.0}, {**INSIDE, 'L12': 10.0})
    assert lines[2].startswith('NO GAP')


