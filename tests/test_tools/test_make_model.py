"""From a config and a budget to a file: what is done, done again, refused, and gone on with."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.results_folder import record, write_results
from tests.toy_segmentation import ROOT, child_environment, toy_config, write_images
from tools import make_model

HAS_ONNX = all(map(importlib.util.find_spec, ('onnx', 'onnxscript', 'onnxruntime')))
#: A metric that kills the job with all its processes, in a program that a file names.
DYING = """
import os, signal, sys
from pathlib import Path
from mmengine.registry import METRICS
from mmseg.evaluation import IoUMetric

@METRICS.register_module()
class DyingMetric(IoUMetric):
    def process(self, batch, samples):
        super().process(batch, samples)
        order = Path(os.environ['ORDER'])
        if order.is_file() and order.read_text() in sys.argv[0]:
            order.unlink()
            os.killpg(0, signal.SIGKILL)
"""


def write_config(folder: Path, **settings) -> Path:
    write_images(folder / 'data')
    config = toy_config(folder / 'data', folder / 'work', **settings)
    config.pop('work_dir')
    config.test_pipeline = config.test_dataloader.dataset.pipeline
    config.dump(folder / 'config.py')
    return folder / 'config.py'


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp('toy'))


class Tools:
    """In the place of the tools: leaves what they would leave, and notes the commands."""

    def __init__(self, out: Path) -> None:
        self.out, self.called = out, []
        self.fails: set[str] = set()

    def __call__(self, stage, command, log=None):
        self.called.append(stage)
        self.command = [str(part) for part in command]
        if stage in self.fails:
            raise RuntimeError(f'{stage} stopped')
        getattr(self, stage)()

    def training(self):
        folder = self.out / 'training'
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'iter_6.pth').write_text('weights')
        (folder / 'last_checkpoint').write_text(str(folder / 'iter_6.pth'))

    def measuring(self):
        rows = [dict(name=name, ms=ms, mb=1.0) for name, ms in (('S3', 1.0), ('L6', 5.0))]
        (self.out / 'latency.json').write_text(json.dumps(dict(stitches=rows)))

    def scoring(self):
        rows = [record('S3', 1, 40.0), record('L6', 9, 50.0)]
        write_results(self.out / 'stitches', rows)

    def export(self):
        (self.out / 'model').mkdir(exist_ok=True)
        name = self.command[self.command.index('--stitch') + 1]
        (self.out / 'model' / 'model.onnx').write_text(name)


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'out'


@pytest.fixture
def tools(out, monkeypatch):
    found = Tools(out)
    monkeypatch.setattr(make_model, 'run_tool', found)
    monkeypatch.setattr(make_model.Job, 'verify', lambda job: {'checkpoint': 'equal'})
    return found


def run(config, out, *options) -> int:
    return make_model.main([str(config), '--out', str(out), *map(str, options)])


STAGES = ['training', 'scoring', 'export']


def test_all_stages_are_done_once_and_reported(config, out, tools, capsys):
    for _ in range(2):
        assert run(config, out, '--min-metric', 45) == 0
        assert capsys.readouterr().out.startswith('L6: ')
    assert tools.called == STAGES
    report = (out / 'report.md').read_text()
    for text in ('# L6 of config', '--min-metric 45', 'model.onnx', 'S3', '- checkpoint: equal'):
        assert text in report


@pytest.mark.parametrize(
    ('given', 'images'),
    [('--onnx', None), ('--int8', '32'), ('--fp16', '32'), ('--int8 --check-data 5', '5')],
)
@pytest.mark.skipif(not HAS_ONNX, reason='needs the extra [deploy]')
def test_lower_precision_is_checked_on_images_of_the_data(config, out, tools, given, images):
    assert run(config, out, '--min-metric', 45, '--', *given.split()) == 0
    command = tools.command
    assert ('--check-data' in command) == (images is not None)
    if images is not None:
        assert command[command.index('--check-data') + 1] == images
        assert command.count('--check-data') == 1


def test_another_budget_chooses_and_exports_anew_and_nothing_else(config, out, tools):
    run(config, out, '--min-metric', 45)
    assert run(config, out, '--min-metric', 35) == 0
    assert tools.called == [*STAGES, 'export']
    assert (out / 'model' / 'model.onnx').read_text() == 'S3'
    assert '# S3 of config' in (out / 'report.md').read_text()


def test_a_budget_in_ms_measures_first_and_once(config, out, tools):
    for ms, name in ((2, 'S3'), (6, 'L6')):
        assert run(config, out, '--ms', ms) == 0
        assert (out / 'model' / 'model.onnx').read_text() == name
    assert tools.called == ['training', 'measuring', 'scoring', 'export', 'export']


@pytest.mark.parametrize('stage', STAGES)
def test_a_stage_that_stops_is_said_and_gone_on_with(config, out, tools, capsys, stage):
    tools.fails.add(stage)
    assert run(config, out, '--min-metric', 45) == 2
    assert f'{stage} stopped' in capsys.readouterr().err.splitlines()[-1]
    tools.fails.clear()
    tools.called.clear()
    assert run(config, out, '--min-metric', 45) == 0
    assert tools.called == STAGES[STAGES.index(stage) :]


@pytest.mark.parametrize(
    ('lost', 'again'),
    [('training/iter_6.pth', ['training']), ('model/model.onnx', ['export']), ('report.md', [])],
)
def test_what_was_lost_is_made_again(config, out, tools, lost, again):
    run(config, out, '--min-metric', 45)
    tools.called.clear()
    (out / lost).unlink()
    assert run(config, out, '--min-metric', 45) == 0
    assert tools.called == again and (out / lost).is_file()


def test_another_config_in_the_same_folder_is_refused_with_what_differs(
    config, out, tools, capsys
):
    run(config, out, '--min-metric', 45)
    tools.called.clear()
    options = ('--cfg-options', 'optim_wrapper.optimizer.lr=0.5')
    assert run(config, out, '--min-metric', 45, *options) == 2
    error = capsys.readouterr().err
    assert 'of another config or checkpoint (config.optim_wrapper.optimizer.lr was 0.001' in error
    assert tools.called == []


def test_another_checkpoint_in_the_same_folder_is_refused(config, out, tools, tmp_path, capsys):
    weights = tmp_path / 'w.pth'
    weights.write_text('one')
    given = ('--min-metric', 45, '--checkpoint', weights)
    assert run(config, out, *given) == 0 and tools.called == ['scoring', 'export']
    weights.write_text('other')
    assert run(config, out, *given) == 2
    assert 'of another config or checkpoint (checkpoint was' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ([], 'one of the arguments --gflops --ms --min-metric is required'),
        (['--gflops', '1', '--ms', '2'], 'not allowed with'),
        (['--gflops', '1', '--', '--stitch', 'S3'], '--stitch is not to be given behind --'),
        (['--gflops', '1', '--', '--unknown'], 'unrecognized arguments: --unknown'),
    ],
)
def test_a_wrong_command_line_is_refused_before_any_work(
    config, out, tools, capsys, options, message
):
    with pytest.raises(SystemExit) as end:
        run(config, out, *options)
    assert end.value.code == 2 and message in capsys.readouterr().err
    assert not out.exists()


def test_a_missing_checkpoint_is_refused_and_nothing_is_written(config, out, tools, capsys):
    assert run(config, out, '--gflops', 1, '--checkpoint', 'none.pth') == 2
    assert 'There is no checkpoint none.pth' in capsys.readouterr().err
    assert not out.exists()


def test_a_budget_out_of_reach_is_one_line_and_leaves_the_curve(config, out, tools, capsys):
    assert run(config, out, '--min-metric', 99) == 2
    assert 'make_model: error:' in capsys.readouterr().err
    assert tools.called == ['training', 'scoring'] and (out / 'stitches').is_dir()


def run_alone(config: Path, out: Path, order: Path) -> subprocess.CompletedProcess:
    """The command as a process group of its own."""
    folders = os.pathsep.join([str(config.parent), child_environment()['PYTHONPATH']])
    tool = ROOT / 'tools' / 'make_model.py'
    options = ['--', '--onnx'] if HAS_ONNX else []
    return subprocess.run(
        [sys.executable, tool, config, '--gflops', '1', '--out', out, *options],
        env=child_environment(PYTHONPATH=folders, ORDER=str(order)), capture_output=True,
        text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_job_killed_in_training_and_in_the_sweep_goes_on_to_the_same_model(tmp_path):
    (tmp_path / 'dying.py').write_text(DYING)
    evaluator = dict(type='DyingMetric', iou_metrics=['mIoU'])
    config = write_config(
        tmp_path, custom_imports=dict(imports=['mmsnnet', 'dying'], allow_failed_imports=False),
        val_evaluator=evaluator, test_evaluator=evaluator,
    )  # fmt: skip
    order, killed, whole = (tmp_path / name for name in ('order', 'killed', 'whole'))
    for program in ('tools/train.py', 'test_all_stitches.py'):
        order.write_text(program)
        done = run_alone(config, killed, order)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not order.exists() and not (killed / 'model').exists()
    for out in (killed, whole):
        done = run_alone(config, out, order)
        assert done.returncode == 0, done.stderr
        assert 'Compared with the stitched model' in (out / 'report.md').read_text()
    records = [(out / 'stitches' / 'stitches.jsonl').read_text() for out in (killed, whole)]
    assert records[0] == records[1] and records[0].count('\n') == 8
    files = [(out / 'make_model.json').read_text() for out in (killed, whole)]
    stages = [json.loads(text)['stages'] for text in files]
    assert stages[0]['choose']['outputs'] == stages[1]['choose']['outputs']
    assert set(stages[0]['verify']['outputs']) >= {'checkpoint'}
    assert ('model.onnx' in stages[0]['verify']['outputs']) == HAS_ONNX
