"""Training, resuming and testing through OpenMIM, as users of OpenMMLab do it."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch

from mmsnnet.compat import load_allowed
from mmsnnet.compat.fork_packages import installed_name
from tests.toy_segmentation import losses, run_python, toy_config, toy_runner, write_images


def missing() -> str | None:
    """What of OpenMIM's needs is not installed."""
    if importlib.util.find_spec('mim') is None:
        return 'OpenMIM is not installed'
    for name in ('mmsegmentation', 'mmsnnet'):
        if installed_name(name) is None:
            return f'the metadata of {name} are not installed'
    return None


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


def mim(*arguments: object) -> str:
    """Standard output of a command of OpenMIM that succeeds."""
    done = run_python('-m', 'mim', *arguments)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


class Commands:
    """A training of 3 iterations, its continuation to 6, and a test, each a command."""

    def __init__(self, folder):
        self.data = write_images(folder / 'data')
        config, work_dir = folder / 'config.py', folder / 'run'
        toy_config(self.data, work_dir).dump(config)
        train = ('train', 'mmseg', config, '--work-dir', work_dir)
        mim(*train, '--cfg-options', 'train_cfg.max_iters=3')
        self.after_training = sorted(path.name for path in work_dir.glob('*.pth'))
        mim(*train, '--resume')
        self.checkpoint = work_dir / 'iter_6.pth'
        mim(
            'test', 'mmseg', config, '--checkpoint', self.checkpoint, '--work-dir',
            folder / 'test', '--cfg-options', 'test_cfg.stitches=spread:3',
        )  # fmt: skip
        (scores,) = (folder / 'test').glob('*/*.json')
        self.scores = json.loads(scores.read_text())


@pytest.fixture(scope='module')
def commands(tmp_path_factory):
    return Commands(tmp_path_factory.mktemp('mim'))


@pytest.fixture(scope='module')
def whole(commands, tmp_path_factory):
    """The same training in one go and in this process."""
    runner = toy_runner(commands.data, tmp_path_factory.mktemp('whole') / 'run')
    runner.train()
    return runner


def test_a_training_saves_its_checkpoint(commands):
    assert commands.after_training == ['iter_3.pth']


def test_a_resumed_training_has_the_losses_of_one_in_one_go(commands, whole):
    content = load_allowed(str(commands.checkpoint))
    history = content['message_hub']['log_scalars']['train/loss']._log_history
    assert history.tolist() == losses(whole)


def test_a_resumed_training_has_the_weights_of_one_in_one_go(commands, whole):
    state = load_allowed(str(commands.checkpoint))['state_dict']
    for name, value in whole.model.state_dict().items():
        assert torch.equal(state[name], value), name


def test_a_test_gives_the_metrics_by_stitch(commands, whole, tmp_path):
    runner = toy_runner(
        commands.data, tmp_path, load_from=str(commands.checkpoint),
        test_cfg=dict(stitches='spread:3'),
    )  # fmt: skip
    expected = runner.test()
    sums = ('best/', 'worst/')
    names = [key for key in expected if key.endswith('/mIoU') and not key.startswith(sums)]
    assert len(names) == 3
    found = {key: value for key, value in commands.scores.items() if key in expected}
    assert found == pytest.approx({key: float(value) for key, value in expected.items()})
