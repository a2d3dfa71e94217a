"""What someone sees who uses the backbone in plain PyTorch, each time in a process of its own.

Nothing has set up a logger there, and no test framework catches what is said.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmsnnet.models import AnchorConfig, StitchedViT
from mmsnnet.results.chooser import chooser_of_results
from tests.builders import tiny_anchor, tiny_backbone
from tests.fresh_processes import NEEDS_FORK, Outcome, run_each
from tests.results_folder import record, write_results

pytestmark = NEEDS_FORK
BUILD = """
import time
from mmsnnet import StitchedViT
anchors = [
    dict(model_name='vit_tiny_patch16_224', pretrained={pretrained},
         model_kwargs=dict(depth=2, embed_dim=width, num_heads=3))
    for width in (24, 48)
]
backbone = StitchedViT(anchors, img_size=32, out_indices=(0, 1)){mode}
images = torch.randn(2, 3, 32, 32)
""".replace('import time\n', 'import time, torch\n')
NAMED = BUILD.format(pretrained=True, mode='.eval()')
RANDOM = BUILD.format(pretrained=False, mode='.eval()')
TRAINING = BUILD.format(pretrained=False, mode='')
RESET = """
import socket
from huggingface_hub import constants
def refuse(*_, **__):
    raise socket.gaierror(-2, 'Name or service not known')
socket.getaddrinfo = refuse
constants.HF_HUB_CACHE = '/nowhere'
"""
CASES = {
    'never loaded': NAMED + 'backbone(images)\nbackbone(images)',
    'never fitted': RANDOM + "backbone.set_stitch('S1-L1')\nbackbone(images)\nbackbone(images)",
    'anchor': RANDOM + 'backbone(images)',
    'train mode': TRAINING + (
        'backbone.fit_stitches(images)\n'
        "backbone.set_stitch('S2')\n"
        'ran = []\n'
        'for _ in range(8):\n'
        '    maps = backbone(images)\n'
        '    again = backbone.run(images, backbone.last_stitch)\n'
        '    ran.append(backbone.last_stitch.name)\n'
        'assert len(set(ran)) > 1 and backbone.stitch.name == "S2"\n'
        'backbone.eval()\n'
        'assert torch.equal(backbone(images)[1], backbone.run(images, "S2")[1])\n'
    ),
    'part': RANDOM + (
        'state = backbone.state_dict()\n'
        "part = {k: v + 1 for k, v in state.items() if k.startswith('anchors.S.')}\n"
        'found = backbone.load_state_dict(part, strict=False)\n'
        'assert not found.unexpected_keys\n'
        "own = set(backbone.state_dict()) - {'position_grid'}  # each network knows its own\n"
        'assert set(found.missing_keys) == own - set(part)\n'
        "key = 'anchors.S.vit.blocks.0.mlp.fc1.weight'\n"
        'assert torch.equal(backbone.state_dict()[key], part[key])\n'
    ),
    'no network': NAMED + RESET + (
        'start = time.monotonic()\n'
        'try:\n'
        '    backbone.init_weights()\n'
        'except FileNotFoundError as error:\n'
        '    sys.stdout.write(f"SAID {error}\\n")\n'
        'sys.stdout.write(f"TOOK {time.monotonic() - start}\\n")\n'
    ),
    'folder': """
import json, os, torch
from mmsnnet import StitchedViT
again = StitchedViT.from_pretrained(os.environ['SAVED'])
name, limit = again.stitch.name, float(os.environ['GFLOPS'])
with torch.no_grad():
    features = [float(one.double().sum()) for one in again(torch.ones(1, 3, 64, 64))]
chosen = again.set_budget(gflops=limit)
hosts = [one for one in ('mmcv', 'mmdet', 'mmseg', 'mmengine.runner') if one in sys.modules]
sys.stdout.write(json.dumps([
    name, again.space.labels, features, again.costs[name].flops, again.chooser.metric,
    again.stitch.name, chosen.flops, dict(chosen.metrics), hosts,
]))
""",
}  # fmt: skip


@pytest.fixture(scope='module')
def saved(tmp_path_factory) -> tuple[Path, StitchedViT]:
    """A backbone, its anchors objects, saved with the table of a sweep that judges by mIoU."""
    folder = tmp_path_factory.mktemp('plain')
    anchors = [
        AnchorConfig.parse(tiny_anchor(2, 48, label='T')),
        AnchorConfig.parse(tiny_anchor(4, 96, label='B')),
    ]
    backbone = tiny_backbone(anchors=anchors, out_indices=(1, 3), stitch='B4')
    records = [
        record(one, 1 + cost.flops / 1e9, (7 * number) % 5, number)
        for number, (one, cost) in enumerate(backbone.costs.items())
    ]
    write_results(folder / 'sweep', records, dict(metric='mIoU', rule='greater'))
    backbone.set_stitch('T1-B2')
    backbone.save_pretrained(folder / 'saved', results=folder / 'sweep')
    return folder, backbone


@pytest.fixture(scope='module')
def gflops(saved) -> float:
    """A budget that about half of the stitches keep."""
    flops = sorted(one.flops for one in saved[1].chooser.candidates)
    return flops[len(flops) // 2] / 1e9


@pytest.fixture(scope='module')
def outcomes(saved, gflops) -> dict[str, Outcome]:
    found = run_each(
        list(CASES.values()), SAVED=str(saved[0] / 'saved'), GFLOPS=repr(gflops)
    )
    return {name: found[code] for name, code in CASES.items()}


@pytest.mark.parametrize('case', CASES)
def test_nothing_ends_in_a_traceback(outcomes, case):
    assert outcomes[case].error == ''


def test_names_of_timm_that_were_never_loaded_are_told_on_the_terminal_once(outcomes):
    shown = outcomes['never loaded'].shown
    assert shown.count('The anchors run at random weights: vit_tiny_patch16_224') == 1
    assert 'init_weights()' in shown and 'StitchedViT.from_timm(...)' in shown


def test_stitch_layers_that_were_never_fitted_are_told_on_the_terminal_once(outcomes):
    shown = outcomes['never fitted'].shown
    assert shown.count('S1-L1 runs stitch layers that were never fitted') == 1
    assert 'fit_stitches(images)' in shown
    assert outcomes['anchor'].shown == ''


def test_set_stitch_in_train_mode_says_that_another_stitch_will_run(outcomes):
    shown = outcomes['train mode'].shown
    assert shown.count('set_stitch chose S2 for eval mode, but this backbone is in train mode') == 1


def test_weights_that_cannot_be_fetched_are_told_in_one_line_within_seconds(outcomes):
    said, took = outcomes['no network'].shown.split('SAID ')[1].splitlines()[:2]
    assert "'vit_tiny_patch16_224' could not be loaded" in said and 'checkpoint=FILE' in said
    assert float(took.removeprefix('TOOK ')) < 20


@torch.no_grad()
def test_a_saved_folder_is_enough_for_a_budget_without_any_host(outcomes, saved, gflops):
    folder, backbone = saved
    name, labels, features, flops, metric, chosen, whole, metrics, hosts = json.loads(
        outcomes['folder'].shown
    )
    assert (name, tuple(labels), metric, hosts) == ('T1-B2', ('T', 'B'), 'mIoU', [])
    ours = backbone.run(torch.ones(1, 3, 64, 64), name)
    assert features == pytest.approx([float(one.double().sum()) for one in ours], abs=1e-9)
    assert flops == backbone.costs[name].flops
    best = chooser_of_results(folder / 'sweep').within(gflops=gflops)
    assert (chosen, whole, metrics) == (best.name, best.flops, dict(best.metrics))
