"""Head statistics measured by two real processes, with norms that synchronise."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys

import pytest
from torch import nn

from mmsnnet.evaluation.sweep.bn_recalibration import recalibrate
from mmsnnet.models.host.head_statistics import STATISTICS_NAME, HeadStatistics, head_norms
from tests.test_evaluation.test_sweep.test_bn_recalibration import make_batches, make_model
from tests.toy_segmentation import child_environment

CHILD = """
import datetime, json, pickle, sys
from pathlib import Path
import mmsnnet
from torch import distributed, nn
from mmsnnet.evaluation.sweep.bn_recalibration import attach_recalibrated
from mmsnnet.models.host.head_statistics import attached_statistics, detach_statistics, head_norms

distributed.init_process_group('gloo', timeout=datetime.timedelta(seconds=100))
folder, rank = Path(sys.argv[1]), distributed.get_rank()
model, all_batches = pickle.loads((folder / 'model.pkl').read_bytes())

class Waiting(nn.SyncBatchNorm):
    # As the real one on an accelerator it waits for the others and takes their images too.
    def forward(self, x):
        if self.training:
            distributed.all_reduce(x.mean((0, 2, 3)))
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training,
            1 / (self.num_batches_tracked.item() + 1), self.eps)

def attach(name, counts, batches):
    for count in counts:
        stitches = list(model.backbone.space)[:count]
        attach_recalibrated(model, stitches, folder / name, lambda: batches)
        assert len(attached_statistics(model).names) == count
        detach_statistics(model)
    assert not any('forward' in vars(norm) for norm in head_norms(model).values())

attach('real', (1, 3, 4), all_batches)
for norm in head_norms(model).values():
    norm.__class__ = Waiting
attach('waiting', (4,), all_batches)
try:
    attach('broken', (4,), all_batches if rank == 0 else [])
except ValueError as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture(scope='module')
def model():
    model = make_model()
    model.decode_head = nn.SyncBatchNorm.convert_sync_batchnorm(model.decode_head)
    assert any(isinstance(norm, nn.SyncBatchNorm) for norm in head_norms(model).values())
    return model


@pytest.fixture(scope='module')
def ends(model, tmp_path_factory):
    """Folder of results, and what each of the two processes printed."""
    folder = tmp_path_factory.mktemp('two')
    (folder / 'model.pkl').write_bytes(pickle.dumps((model, make_batches())))
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    shared = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', CHILD, str(folder)],
            env=child_environment(RANK=str(rank), LOCAL_RANK=str(rank), **shared),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = []
    for process in processes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        outputs.append(output)
    return folder, outputs


@pytest.mark.parametrize('kind', ['real', 'waiting'])
def test_synchronised_norms_do_not_wait_and_the_result_is_that_of_one_process(model, ends, kind):
    """The real norm refuses the CPU as soon as it would synchronise."""
    expected = recalibrate(model, make_batches())
    found = HeadStatistics.load(ends[0] / kind / STATISTICS_NAME)
    assert found.names == expected.names and found.digest == expected.digest


def test_an_error_of_one_process_ends_both(ends):
    messages = [json.loads(output) for output in ends[1]]
    assert messages == ['There are no images to recalibrate with.'] * 2
