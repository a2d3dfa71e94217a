"""The demo: its plan, its trainings as processes, and what it says of the figures."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from mmengine import Config
from rich.console import Console

from tools.demo import (
    ROOT,
    TASKS,
    Run,
    StepError,
    cause_of,
    rendering,
    texts,
    train,
    trainings,
    verdict,
)


@pytest.fixture
def quiet():
    return Console(quiet=True)


@pytest.fixture
def run(tmp_path):
    return Run('toy', tmp_path / 'missing.py', tmp_path / 'toy', iters=10)


@pytest.fixture(params=TASKS.values(), ids=list(TASKS))
def task(request):
    return request.param


def test_the_full_demo_changes_nothing_of_the_configs(task):
    runs = trainings(quick=False, task=task)
    assert [run.options for run in runs] == [[], [], []]


def test_the_stitched_config_names_the_checkpoints_that_the_anchors_end_with(task):
    small, large, stitched = trainings(quick=False, task=task)
    anchors = Config.fromfile(stitched.config).model.backbone.anchors
    assert [ROOT / anchor.checkpoint for anchor in anchors] == [
        small.checkpoint,
        large.checkpoint,
    ]


def test_the_rooms_are_rendered_where_the_configs_read_them(task):
    make, runs = rendering(quick=False, task=task), trainings(quick=False, task=task)
    roots = {Config.fromfile(run.config).train_dataloader.dataset.data_root for run in runs}
    assert roots == {make[1]}


def test_the_anchors_alone_are_the_anchors_of_the_stitched_model(task):
    small, large, stitched = trainings(quick=False, task=task)
    inside = Config.fromfile(stitched.config).model.backbone.anchors
    for run, anchor in zip((small, large), inside):
        (alone,) = Config.fromfile(run.config).model.backbone.anchors
        assert alone.model_kwargs == anchor.model_kwargs
        assert alone.label == anchor.label
        assert alone.checkpoint is None


def quick_config(run):
    cfg = Config.fromfile(run.config)
    cfg.merge_from_dict(dict(option.split('=', 1) for option in run.options))
    return cfg


def test_quick_overrides_fit_the_stitched_config_to_the_quick_anchors(task):
    small, large, stitched = trainings(quick=True, task=task)
    files = [ROOT / anchor.checkpoint for anchor in quick_config(stitched).model.backbone.anchors]
    assert files == [small.checkpoint, large.checkpoint]


def test_a_quick_demo_reads_nothing_of_a_full_one(task):
    full = (rendering(quick=False, task=task)[1] + '/', 'work_dirs/rooms/')
    for run in trainings(quick=True, task=task):
        left = {key: text for key, text in texts(quick_config(run)) if f'{text}/'.startswith(full)}
        # Names at the top level of a config are variables, which nothing reads after its parsing.
        assert not [key for key in left if key.split('.')[0] not in ('rooms', 'anchors')]


def test_the_head_of_a_quick_stitched_model_comes_from_the_quick_large_anchor():
    _, large, stitched = trainings(quick=True)
    (init,) = [
        hook for hook in quick_config(stitched).custom_hooks if hook.type == 'StitchInitHook'
    ]
    assert ROOT / init.head_checkpoint == large.checkpoint


def test_quick_schedules_warm_up_and_end_within_their_iterations(task):
    for run in trainings(quick=True, task=task):
        warm_up, decay = quick_config(run).param_scheduler
        assert int(warm_up.end) == int(decay.begin) < int(decay.end) == run.iters


def test_each_task_trains_by_its_own_package(task, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, 'Popen', lambda command, **_: commands.append(command))
    for run in trainings(quick=False, task=task):
        run.folder = tmp_path
        run.start()
        assert commands[-1][3:5] == ['train', task.host]
        assert Config.fromfile(run.config).default_scope == task.host


def test_every_training_gets_the_same_seed(run, monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, 'Popen', lambda command, **_: commands.append(command))
    run.options = ['a=1']
    run.start()
    options = commands[0][commands[0].index('--cfg-options') + 1 :]
    assert options == ['randomness.seed=0', 'a=1']


def test_the_first_word_comes_before_torch_and_mmengine_are_imported():
    code = (
        'import sys, demo\n'
        'def call(command):\n'
        "    sys.stdout.write(str(sorted({'torch', 'mmengine'} & sys.modules.keys())))\n"
        "    raise demo.StepError('enough')\n"
        'demo.call = call\n'
        "demo.main(['--quick'])\n"
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT / 'tools', capture_output=True, text=True
    )
    assert done.stdout == '[]'
    assert done.stderr.splitlines()[0].endswith('1/5 rendering rooms')


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


def test_a_training_that_dies_is_told_with_its_log_and_its_cause(run, quiet):
    """The config is missing, which OpenMIM says; its own error says nothing but the command."""
    with pytest.raises(StepError, match=r'the training of toy stopped .*toy/train\.log') as caught:
        train([run], quiet)
    assert "missing.py doesn't exist" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 9


LOG = """Traceback (most recent call last):
  File "train.py", line 104, in <module>
    main()
FileNotFoundError: Checkpoint work_dirs/x.pth
  can not be found
Training command is python train.py --work-dir x.
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
    raise CalledProcessError(retcode, cmd)
subprocess.CalledProcessError: Command '['python', 'train.py']' returned non-zero exit status 1.
"""


def test_the_cause_is_the_error_of_the_training_and_not_that_of_openmim():
    expected = 'FileNotFoundError: Checkpoint work_dirs/x.pth\n  can not be found'
    assert cause_of(LOG) == expected


def test_a_log_without_an_error_is_told_by_its_last_lines():
    log = '\n'.join(f'line {number}' for number in range(100)) + '\nKilled\n'
    last = [f'line {number}' for number in range(93, 100)]
    assert cause_of(log).splitlines() == [*last, 'Killed']


INSIDE = {'S6': 12.0, 'L12': 20.0, 'S3-L6': 15.0, 'L2-S5': 21.0, 'L4-S4': 11.0}


def test_the_verdict_counts_stitches_between_above_and_below_the_anchors():
    assert verdict({'S6': 12.5, 'L12': 20.5}, INSIDE)[-1] == (
        'of 3 stitches between the anchors 1 score between them, 1 above both and 1 below both'
    )


def test_the_verdict_says_when_an_anchor_lost_by_being_stitched():
    lines = verdict({'S6': 12.5, 'L12': 30.0}, INSIDE)
    assert lines[0].startswith('kept: anchor S6')
    assert lines[1].startswith('NOT KEPT: anchor L12 has 20.00 mIoU inside, 30.00 by itself')


def test_the_verdict_names_the_metric():
    lines = verdict({'S6': 12.0, 'L12': 20.0}, INSIDE, 'accuracy/top1')
    assert lines[0].endswith('has 12.00 accuracy/top1 inside, 12.00 by itself')
    assert lines[2] == 'a gap to bridge: 12.00 (small) to 20.00 (large) accuracy/top1'


def test_the_verdict_says_when_there_is_no_gap_to_bridge():
    lines = verdict({'S6': 12.0, 'L12': 10.0}, {**INSIDE, 'L12': 10.0})
    assert lines[2].startswith('NO GAP')


