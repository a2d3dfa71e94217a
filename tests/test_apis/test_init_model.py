"""Loading a trained model and choosing its stitch by budget, through mmseg's own functions."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import inference_model
from mmseg.apis import init_model as init_segmentor
from mmseg.models import EncoderDecoder

from mmsnnet.apis import StitchControl, init_model
from mmsnnet.evaluation.sweep.run_identity import run_fingerprint
from mmsnnet.results.fingerprint import fingerprint_file
from mmsnnet.runtime import BudgetController
from tests.results_folder import record, write_latency, write_results
from tests.toy_segmentation import NAMES, ROOT
from tests.trained_segmentor import QUALITIES, Trained


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp('trained'))


@pytest.fixture
def model(trained):
    return init_model(trained.config, trained.checkpoint, results=trained.results)


def affordable(trained, gflops):
    return [name for name in NAMES if trained.costs[name].flops <= gflops * 1e9]


def test_every_budget_runs_the_best_stitch_that_it_allows(trained, model):
    flops = sorted(trained.costs.flops.values())
    for limit in (flops[0] / 1e9, flops[3] / 1e9, flops[-2] / 1e9, 1e3):
        chosen = model.set_budget(gflops=limit)
        assert chosen.name == max(affordable(trained, limit), key=QUALITIES.get)
        assert model.stitch == model.backbone.stitch.name == chosen.name
        assert chosen.quality == QUALITIES[chosen.name]


def test_inference_of_mmseg_runs_the_chosen_stitch(trained, model):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    plain = init_segmentor(trained.config, trained.checkpoint, device='cpu')
    maps = []
    for name in ('S3', 'S2-L2'):
        model.select_stitch(name)
        plain.backbone.set_stitch(name)
        logits = inference_model(model, image).seg_logits.data
        assert torch.equal(logits, inference_model(plain, image).seg_logits.data)
        maps.append(logits)
    assert not torch.equal(*maps)


def test_inference_of_mmseg_needs_no_depth_map_of_a_depth_estimator():
    config = Config.fromfile(ROOT / 'configs' / 'dpt_snnetv2_rooms.py')
    before = copy.deepcopy(config.to_dict())
    model = init_model(config)
    picture = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    maps = {}
    for name in ('S6', 'L12'):
        model.select_stitch(name)
        maps[name] = inference_model(model, picture).pred_depth_map.data
        assert maps[name].shape == (1, 96, 128)
    assert not torch.equal(*maps.values())
    assert config.to_dict() == before


def test_the_model_is_one_of_its_host_with_the_hosts_state(trained, model):
    assert isinstance(model, EncoderDecoder) and isinstance(model, StitchControl)
    state = trained.model.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_copy_chooses_for_itself(model):
    other = copy.deepcopy(model)
    model.select_stitch('S3')
    other.select_stitch('L6')
    assert (model.stitch, other.stitch) == ('S3', 'L6')


def test_stitches_are_selected_by_metric_and_knee(trained, model):
    good = [name for name in NAMES if QUALITIES[name] >= 45]
    expected = min(good, key=lambda name: trained.costs[name].flops)
    assert model.select_stitch(min_metric=45).name == expected
    assert model.select_stitch(knee=True) == model.chooser.knee()


def test_a_stitch_without_a_score_is_selected_by_name_with_the_cost_of_the_whole_model(
    trained, tmp_path
):
    folder = write_results(tmp_path / 'few', trained.records[:2])
    model = init_model(trained.config, trained.checkpoint, results=folder)
    chosen = model.select_stitch('S2-L2')
    assert model.stitch == 'S2-L2'
    assert (chosen.flops, chosen.params) == tuple(vars(trained.costs['S2-L2']).values())
    assert model.set_budget(gflops=1e3).name == 'L6'


def test_without_results_the_budget_takes_the_costliest_of_the_whole_model(trained, tmp_path):
    flops = trained.costs.flops
    rows = {name: (number + 1, 1) for number, name in enumerate(sorted(NAMES, key=flops.get))}
    latency = write_latency(tmp_path / 'l.json', rows)
    model = init_model(trained.config, trained.checkpoint, latency=latency)
    limit = sorted(flops.values())[2]
    assert model.set_budget(gflops=limit / 1e9).flops == limit
    assert model.set_budget(ms=5).flops == sorted(flops.values())[4]


def test_set_stitch_takes_names_and_ids_and_returns_what_select_stitch_does(model):
    for stitch in ('S2-L2', 0):
        assert model.set_stitch(stitch) == model.select_stitch(stitch)
        assert model.stitch == model.backbone.space[stitch].name
    for unknown in ('S9-L9', None, 99):
        with pytest.raises(ValueError):
            model.set_stitch(unknown)
        assert model.stitch == 'S3'


def test_a_controller_steers_the_model_by_the_time_that_its_clock_shows(trained, tmp_path):
    """Frames of a loaded model, on a device that is slow for a while."""
    ms = {name: 10.0 + 10 * number for number, name in enumerate(NAMES)}
    path = write_latency(tmp_path / 'latency.json', {name: (one, 1.0) for name, one in ms.items()})
    model = init_model(trained.config, trained.checkpoint, results=trained.results, latency=path)
    now = [0.0]
    controller = BudgetController.of_model(model, deadline_ms=25, clock=lambda: now[0])
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    ran = []
    model.backbone.register_forward_hook(lambda module, *_: ran.append(module.stitch.name))
    for load in (1, 1, 1, 3, 3, 3, *[1] * 60):
        with controller.frame() as name:
            inference_model(model, image)
            now[0] += ms[model.stitch] * load / 1000
        assert ran[-1] == name
    # S3 costs 10 ms and L6 20 ms: under the load only S3 is near, and none fits.
    assert ran[:7] == ['L6'] * 4 + ['S3'] * 3 and ran[-1] == 'L6'
    assert controller.misses == 3 and controller.switches == 2 and controller.attainable


def test_a_controller_of_a_model_needs_latencies(model):
    with pytest.raises(ValueError, match='load it with latency=FILE'):
        BudgetController.of_model(model, deadline_ms=25)


def test_a_budget_out_of_reach_is_refused_and_the_stitch_stays(model):
    model.select_stitch('S2-L2')
    with pytest.raises(ValueError, match=r'No stitch keeps within 1e-06 GFLOPs; the cheapest is'):
        model.set_budget(gflops=1e-6)
    with pytest.raises(ValueError, match='one of them'):
        model.select_stitch('S3', knee=True)
    assert model.stitch == 'S2-L2'


def test_a_checkpoint_of_another_model_is_refused(trained, tmp_path):
    config = Config.fromfile(trained.config)
    config.model.backbone.anchors = config.model.backbone.anchors[1:]  # one needs no fit
    torch.save(dict(state_dict=dict(other=torch.ones(1)), meta={}), tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='holds no weights of the stitched backbone'):
        init_model(config, tmp_path / 'other.pth')


def test_what_is_missing_or_not_stitched_is_said(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no checkpoint none\.pth'):
        init_model(trained.config, 'none.pth')
    with pytest.raises(FileNotFoundError, match=r'no config none\.py'):
        init_model('none.py')
    with pytest.raises(ValueError, match='has no model'):
        init_model(Config())
    state = dict(trained.model.state_dict())
    state['backbone.stitches_fitted'] = torch.tensor(False)
    torch.save(dict(state_dict=state, meta=dict(dataset_meta={})), tmp_path / 'raw.pth')
    with pytest.raises(ValueError, match='never fitted'):
        init_model(trained.config, tmp_path / 'raw.pth')
    foreign = write_results(tmp_path / 'foreign', [record('S9-L9', 1, 2.0)])
    with pytest.raises(ValueError, match='S9-L9'):
        init_model(trained.config, trained.checkpoint, results=foreign)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'<html>404</html>', r'bad\.pth cannot be read: it is a page of the web'),
        (b'no pickle', r'bad\.pth cannot be read: it is damaged, cut off'),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named_in_one_line(trained, tmp_path, content, message):
    (tmp_path / 'bad.pth').write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        init_model(trained.config, tmp_path / 'bad.pth')
    assert '\n' not in str(caught.value) and 'weights_only' not in str(caught.value)


def test_a_pickle_is_refused_whatever_the_environment_says(trained, tmp_path, monkeypatch):
    class Runs:
        def __reduce__(self):
            return (tmp_path / 'made').mkdir, ()

    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    content = torch.load(trained.checkpoint, weights_only=True)
    torch.save(dict(content, extra=Runs()), tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match=r'evil\.pth cannot be read: it asks for'):
        init_model(trained.config, tmp_path / 'evil.pth')
    assert not (tmp_path / 'made').exists()


def test_weights_without_what_the_host_reads_are_named(trained, tmp_path):
    torch.save(trained.model.state_dict(), tmp_path / 'bare.pth')
    with pytest.raises(ValueError, match=r'bare\.pth has no meta, which MMSegmentation reads'):
        init_model(trained.config, tmp_path / 'bare.pth')
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match=r'list\.pth is a list where a dict'):
        init_model(trained.config, tmp_path / 'list.pth')


def scored_with(trained, folder, checkpoint):
    """Results whose run names the checkpoint that was scored."""
    write_results(folder, trained.records)
    run = dict(fingerprint=dict(checkpoint=fingerprint_file(checkpoint)), details={})
    (folder / 'run.json').write_text(json.dumps(run))
    return folder


def test_results_of_another_checkpoint_are_refused(trained, tmp_path):
    content = torch.load(trained.checkpoint, weights_only=True)
    content['state_dict']['decode_head.conv_seg.bias'] += 1
    torch.save(content, tmp_path / 'other.pth')
    own = scored_with(trained, tmp_path / 'own', trained.checkpoint)
    assert init_model(trained.config, trained.checkpoint, results=own).stitch
    foreign = scored_with(trained, tmp_path / 'foreign', tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'foreign are of another checkpoint than .*weights\.pth'):
        init_model(trained.config, trained.checkpoint, results=foreign)


def test_results_by_the_sweep_itself_name_the_checkpoint_as_it_is_checked(trained):
    cfg = Config.fromfile(trained.config)
    identity = run_fingerprint(cfg, trained.checkpoint, [])
    assert identity['checkpoint'] == fingerprint_file(trained.checkpoint)
