"""The fit on the first batch in two real processes, whose solvers differ or fail."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
import torch

from tests.toy_segmentation import child_environment

CHILD = """
import sys, torch
import torch.distributed as dist
from mmsnnet.models import StitchedViT
from mmsnnet.models.feature_matching import MatchSettings, match_features
from mmsnnet.models.least_squares import AffineFit, PairedMoments

torch.set_num_threads(1)
rank, port, folder, failing = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == 'fail'
dist.init_process_group(
    'gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2
)
solve = PairedMoments.solve

def rounding(self, *nodes):
    if failing:
        raise torch.linalg.LinAlgError('did not converge') if rank == 0 else AssertionError
    fit = solve(self, *nodes)
    return AffineFit(fit.weight + 1e-3 * rank, fit.bias, fit.residual, fit.total)

PairedMoments.solve = rounding
torch.manual_seed(3)
anchor = dict(model_name='vit_tiny_patch16_224', pretrained=False)
kwargs = [dict(depth=d, embed_dim=w, num_heads=1) for d, w in ((2, 8), (4, 16))]
backbone = StitchedViT(
    [dict(model_kwargs=k, **anchor) for k in kwargs], img_size=32, out_indices=(3,), lora_rank=2
)
backbone.train()
images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(rank))
try:
    backbone(images)
except RuntimeError as error:
    torch.save(str(error), f'{folder}/{rank}.pth')
else:
    state = {k: v.clone() for k, v in backbone.state_dict().items()}
    match_features(backbone, [images] * 4, MatchSettings(4), together=True)
    torch.save(
        dict(images=images, state=state, matched=backbone.state_dict()), f'{folder}/{rank}.pth'
    )
"""


def run_both(folder, way):
    """What each process stored."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', CHILD, str(rank), port, str(folder), way],
            env=child_environment(), stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in processes:
        errors = process.communicate(timeout=240)[1]
        assert process.returncode == 0, errors
    return [torch.load(folder / f'{rank}.pth') for rank in range(2)]


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    return run_both(tmp_path_factory.mktemp('both'), 'solve')


def test_processes_whose_solvers_round_differently_hold_the_same_stitch_layers(both):
    one, two = (result['state'] for result in both)
    names = [name for name in one if 'stitch' in name]
    assert len(names) > 8 and one['stitches_fitted'] and two['stitches_fitted']
    assert all(torch.equal(one[name], two[name]) for name in names)
    assert not torch.equal(both[0]['images'], both[1]['images'])


def test_processes_match_features_alike_on_images_of_their_own(both):
    one, two = (result['matched'] for result in both)
    assert all(torch.equal(one[name], two[name]) for name in one)
    before = both[0]['state']
    moved = {name for name in one if not torch.equal(one[name], before[name])}
    assert {name.rpartition('.')[2] for name in moved} == {'bias', 'lora_a', 'lora_b'}


def test_a_solver_that_fails_ends_every_process_with_its_reason(tmp_path):
    messages = run_both(tmp_path, 'fail')
    assert messages[0] == messages[1] and 'did not converge' in messages[0]
