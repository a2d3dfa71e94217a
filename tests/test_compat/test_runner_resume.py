"""mmengine's runner writes and resumes its own checkpoints with the checks of torch.load on."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmsnnet import compat

compat.install()


class Line(BaseModel):
    """Fits one line; small enough that a run takes a fraction of a second."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        torch.nn.init.constant_(self.layer.weight, 0.1)
        torch.nn.init.zeros_(self.layer.bias)

    def forward(self, inputs, mode='tensor'):
        out = self.layer(inputs)
        return dict(loss=out.square().mean()) if mode == 'loss' else [out]


class Mean(BaseMetric):
    """A metric in numpy numbers, as mmseg's metrics are; the runner stores the best one."""

    def process(self, data_batch, data_samples):
        self.results.extend(float(sample.mean()) for sample in data_samples)

    def compute_metrics(self, results):
        return dict(score=np.float32(np.mean(results)))


DATA = [dict(inputs=torch.tensor([float(i), 1.0 - i])) for i in range(8)]


def a_runner(folder, by_epoch, checkpoint=None, one_cycle=None):
    """A run of four epochs or iterations, from the start or from a checkpoint."""
    loader = dict(batch_size=2, num_workers=0, dataset=DATA,
                  collate_fn=dict(type='default_collate'),
                  sampler=dict(type='DefaultSampler', shuffle=False))
    train = {'by_epoch': by_epoch, 'max_epochs' if by_epoch else 'max_iters': 4,
             'val_interval': 1}
    schedulers = [dict(type='LinearLR', start_factor=0.1, by_epoch=by_epoch, begin=0, end=2),
                  dict(type='CosineAnnealingLR', T_max=4, eta_min=0., by_epoch=by_epoch),
                  dict(type='CosineAnnealingMomentum', T_max=4, eta_min=.5, by_epoch=by_epoch)]
    if one_cycle:
        schedulers = [dict(type='OneCycleLR', eta_max=0.1, end=4, by_epoch=by_epoch,
                           anneal_strategy=one_cycle)]
    return Runner(
        model=Line(), work_dir=str(folder), train_dataloader=loader, train_cfg=train,
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=schedulers, val_dataloader=loader, val_cfg=dict(), val_evaluator=[Mean()],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=by_epoch,
                                           save_best='score', rule='less'),
                           logger=dict(type='LoggerHook', interval=1)),
        custom_hooks=[dict(type='EMAHook')], resume=checkpoint is not None, load_from=checkpoint,
        default_scope='mmengine',
        experiment_name=f'{folder.parent.name}_{folder.name}', log_level='ERROR')


def history(runner, name):
    return runner.message_hub.log_scalars[name].data[0]


@pytest.mark.parametrize('by_epoch', [True, False])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path, by_epoch):
    whole = a_runner(tmp_path / 'whole', by_epoch)
    whole.train()
    half = tmp_path / 'whole' / ('epoch_2.pth' if by_epoch else 'iter_2.pth')
    resumed = a_runner(tmp_path / 'resumed', by_epoch, str(half))
    resumed.train()
    assert not torch.equal(torch.load(half)['state_dict']['layer.weight'],
                           whole.model.layer.weight)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    assert len(history(whole, 'train/loss')) == (16 if by_epoch else 4)
    np.testing.assert_array_equal(history(resumed, 'train/loss'), history(whole, 'train/loss'))
    best = resumed.message_hub.get_info('best_score')
    assert isinstance(best, np.float32)
    assert best == whole.message_hub.get_info('best_score')


@pytest.mark.parametrize('strategy', ['cos', 'linear'])
def test_a_run_with_one_cycle_resumes(tmp_path, strategy):
    whole = a_runner(tmp_path / 'whole', False, one_cycle=strategy)
    whole.train()
    half = tmp_path / 'whole' / 'iter_2.pth'
    resumed = a_runner(tmp_path / 'resumed', False, str(half), one_cycle=strategy)
    resumed.train()
    np.testing.assert_array_equal(history(resumed, 'train/lr'), history(whole, 'train/lr'))
    assert len(set(history(whole, 'train/lr'))) == 4
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_a_file_of_the_runner_holds_history_buffers_and_loads_with_checks(tmp_path):
    a_runner(tmp_path / 'run', False).train()
    loaded = compat.load_allowed(str(tmp_path / 'run' / 'iter_2.pth'))
    scalars = loaded['message_hub']['log_scalars']
    assert isinstance(scalars['train/loss'], HistoryBuffer)
    assert {'optimizer', 'param_schedulers', 'ema_state_dict'} <= set(loaded)
