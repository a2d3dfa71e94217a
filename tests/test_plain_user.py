"""What someone sees who uses the backbone in plain PyTorch, each time in a process of its own.

Nothing has set up a logger there, and no test framework catches what is said.
"""

from __future__ import annotations

import pytest

from tests.fresh_processes import NEEDS_FORK, Outcome, run_each

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
}  # fmt: skip


@pytest.fixture(scope='module')
def outcomes() -> dict[str, Outcome]:
    found = run_each(list(CASES.values()))
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
