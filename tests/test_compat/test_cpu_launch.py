"""Two real processes on the CPU, and what the config must say for them."""
from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import mmsnnet.compat
from mmsnnet.compat import cpu_launch

PACKAGE = Path(mmsnnet.compat.__file__).parents[1]

# The bare package keeps mmseg and mmdet out: they would take most of the test's time.
SCRIPT = '''
import json, sys, torch, types
sys.modules["mmsnnet"] = types.ModuleType("mmsnnet")
sys.modules["mmsnnet"].__path__ = [sys.argv[2]]
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmsnnet.compat import prepare_cpu_launch

@MODELS.register_module()
class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.unused = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(self.layer.weight, 0.5)
        torch.nn.init.zeros_(self.layer.bias)
    def forward(self, inputs, mode="tensor"):
        return dict(loss=(self.layer(inputs) - 1).square().mean())

cfg = Config(dict(
    model=dict(type="Line"), work_dir=sys.argv[1], launcher="pytorch", log_level="ERROR",
    find_unused_parameters=True, train_cfg=dict(by_epoch=False, max_iters=2),
    optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01)),
    train_dataloader=dict(batch_size=2, num_workers=0, collate_fn=dict(type="default_collate"),
                          sampler=dict(type="DefaultSampler", shuffle=False),
                          dataset=[dict(inputs=torch.tensor([float(i)])) for i in range(8)])))
assert prepare_cpu_launch(cfg)
runner = Runner.from_cfg(cfg)
runner.train()
layer = runner.model.module.layer
print(json.dumps([runner.rank, runner.world_size, layer.weight.item(), layer.bias.item()]))
'''


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def test_two_gloo_processes_train_like_one_on_the_whole_batch(tmp_path):
    script = tmp_path / 'train.py'
    script.write_text(SCRIPT)
    common = dict(os.environ, WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', OMP_NUM_THREADS='1',
                  MASTER_PORT=str(free_port()))
    workers = [subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / 'work'), str(PACKAGE)],
        env=dict(common, RANK=str(rank)), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True) for rank in range(2)]
    results = []
    for worker in workers:
        out, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err
        results.append(json.loads(out.splitlines()[-1]))
    weight, bias = 0.5, 0.0
    for batch in ([0, 1, 2, 3], [4, 5, 6, 7]):  # rank r takes images r, r + 2, ...
        residuals = [weight * x + bias - 1 for x in batch]
        weight -= 0.01 * sum(2 * r * x for r, x in zip(residuals, batch)) / 4
        bias -= 0.01 * sum(2 * r for r in residuals) / 4
    for rank, result in enumerate(results):
        assert result[:2] == [rank, 2]
        assert result[2:] == pytest.approx([weight, bias], rel=1e-5)
    assert results[0][2:] == results[1][2:]


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)


@pytest.fixture
def started(monkeypatch):
    """Records the start of a process group in place of starting one."""
    calls = []
    monkeypatch.setattr(cpu_launch, 'init_cpu_distributed', lambda: calls.append(1) or True)
    return calls


def test_the_wrapper_has_no_devices_and_keeps_the_search_for_unused_parameters(no_cuda, started):
    cfg = Config(dict(launcher='pytorch', find_unused_parameters=True, model=dict(type='X')))
    assert cpu_launch.prepare_cpu_launch(cfg) is True
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=True,
        device_ids=None)
    assert started == [1]


def test_a_wrapper_of_the_users_keeps_its_settings(no_cuda, started):
    cfg = Config(dict(launcher='pytorch', model_wrapper_cfg=dict(
        type='Mine', broadcast_buffers=True, device_ids=[0])))
    cpu_launch.prepare_cpu_launch(cfg)
    assert cfg.model_wrapper_cfg.type == 'Mine'
    assert cfg.model_wrapper_cfg.broadcast_buffers is True
    assert cfg.model_wrapper_cfg.device_ids is None


def test_synchronised_norms_become_plain_ones_wherever_they_stand(no_cuda, started):
    cfg = Config(dict(launcher='pytorch', sync_bn='torch', model=dict(
        type='A', norm_cfg=dict(type='SyncBN', requires_grad=True),
        heads=[dict(norm_cfg=dict(type='MMSyncBN')), dict(norm_cfg=dict(type='LN'))])))
    cpu_launch.prepare_cpu_launch(cfg)
    assert cfg.model.norm_cfg == dict(type='BN', requires_grad=True)
    assert [head.norm_cfg.type for head in cfg.model.heads] == ['BN', 'LN']
    assert 'sync_bn' not in cfg


def test_without_a_launcher_or_with_cuda_nothing_changes(monkeypatch, started):
    for launcher, cuda in (('none', False), ('pytorch', True)):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda cuda=cuda: cuda)
        cfg = Config(dict(launcher=launcher, model=dict(norm_cfg=dict(type='SyncBN'))))
        before = cfg.to_dict()
        assert cpu_launch.prepare_cpu_launch(cfg) is False
        assert cfg.to_dict() == before
    assert started == []


def test_launchers_that_need_cuda_are_refused_without_it(no_cuda, started):
    with pytest.raises(ValueError, match=r"'slurm' needs CUDA.*torchrun"):
        cpu_launch.prepare_cpu_launch(Config(dict(launcher='slurm')))


def test_missing_variables_are_named(no_cuda, monkeypatch):
    for name in cpu_launch.NEEDED_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('RANK', '0')
    with pytest.raises(ValueError, match='WORLD_SIZE, MASTER_ADDR, MASTER_PORT are not set'):
        cpu_launch.init_cpu_distributed()


def test_a_machine_with_cuda_starts_no_gloo_group(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert cpu_launch.init_cpu_distributed() is False
