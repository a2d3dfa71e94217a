"""Loops that score several stitches, against MMEngine's own loops and hand-made sums."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import torch
from mmengine.runner import TestLoop as StockTestLoop

from mmsnnet.engine.rng_state import capture_rng_state
from tests.toy_segmentation import (
    NAMES,
    Probe,
    backbone_of,
    losses,
    toy_runner,
    weights,
    write_images,
)

STITCHES = ['anchors', 'S1-L4', 'L2-S1-L2']
CHOSEN = ('S3', 'L6', 'S1-L4', 'L2-S1-L2')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def checkpoint(data, tmp_path_factory):
    """Weights after 6 iterations."""
    runner = toy_runner(data, tmp_path_factory.mktemp('trained') / 'run')
    runner.train()
    path = tmp_path_factory.mktemp('weights') / 'trained.pth'
    torch.save(dict(state_dict=weights(runner)), path)
    return str(path)


@pytest.fixture(scope='module')
def tester(data, checkpoint, tmp_path_factory):
    """Runner of a test of four stitches, and its metrics."""
    runner = toy_runner(
        data,
        tmp_path_factory.mktemp('tested') / 'run',
        load_from=checkpoint,
        test_cfg=dict(stitches=STITCHES),
    )
    backbone_of(runner).set_stitch('S2-L2')
    return runner, runner.test()


def test_metrics_come_by_stitch_and_in_sum(tester):
    _, metrics = tester
    keys = {f'{name}/{key}' for name in CHOSEN for key in ('aAcc', 'mIoU', 'mAcc')}
    summary = {'mIoU', 'best/mIoU', 'worst/mIoU', 'pareto/size', 'pareto/hypervolume'}
    families = {'-'.join(re.findall('[A-Z]', name)) for name in CHOSEN}
    assert set(metrics) == keys | summary | {f'best/{family}/mIoU' for family in families}
    assert next(iter(metrics)) == 'mIoU'  # which save_best='auto' takes
    assert metrics['mIoU'] == metrics['best/mIoU']


def test_each_stitch_scores_as_in_the_stock_loop(tester, data):
    runner, metrics = tester
    backbone = backbone_of(runner)
    stock = StockTestLoop(runner, runner.test_dataloader, runner.cfg.test_evaluator)
    seen = set()
    for name in CHOSEN:
        with backbone.use_stitch(name):
            expected = stock.run()
        digits = {key: float(str(value)) for key, value in expected.items()}  # of float32
        assert {key: metrics[f'{name}/{key}'] for key in expected} == digits
        seen.add(expected['mIoU'])
    assert len(seen) > 1


def test_best_and_worst_are_those_of_the_stitches(tester):
    _, metrics = tester
    values = [metrics[f'{name}/mIoU'] for name in CHOSEN]
    assert metrics['best/mIoU'] == pytest.approx(max(values))
    assert metrics['worst/mIoU'] == pytest.approx(min(values))
    for family in ('S', 'L'):
        own = [metrics[f'{n}/mIoU'] for n in CHOSEN if n.strip('0123456789') == family]
        assert metrics[f'best/{family}/mIoU'] == max(own)


def volume_by_sweep(costs, gains, limit):
    """Area under the best gain that a budget buys, by steps from each cost to the next."""
    edges = [*sorted(costs), limit]
    area = 0.0
    for left, right in zip(edges, edges[1:]):
        area += (right - left) / limit * max(g for c, g in zip(costs, gains) if c <= left)
    return area


def test_the_hypervolume_is_that_of_a_sweep_over_budgets(tester):
    runner, metrics = tester
    costs = backbone_of(runner).costs
    flops = [costs[name].flops for name in CHOSEN]
    gains = [metrics[f'{name}/mIoU'] / 100 for name in CHOSEN]
    limit = max(costs[name].flops for name in NAMES)
    expected = volume_by_sweep(flops, gains, limit)
    assert metrics['pareto/hypervolume'] == pytest.approx(expected, rel=1e-6)
    assert 0 < expected < 1


def test_the_size_of_the_front_is_that_of_comparing_all_pairs(tester):
    runner, metrics = tester
    costs = backbone_of(runner).costs
    points = [(costs[name].flops, metrics[f'{name}/mIoU']) for name in CHOSEN]
    front = [p for p in points if not any(q[0] <= p[0] and q[1] > p[1] for q in points)]
    assert metrics['pareto/size'] == len(front)


def test_the_active_stitch_is_restored(tester):
    runner, _ = tester
    assert backbone_of(runner).stitch.name == 'S2-L2'


def test_a_test_scores_all_stitches_unless_told_otherwise(data, checkpoint, tmp_path):
    test_cfg = dict(_delete_=True, type='StitchTestLoop')
    metrics = toy_runner(data, tmp_path, load_from=checkpoint, test_cfg=test_cfg).test()
    assert set(metrics) == {f'{name}/{key}' for name in NAMES for key in ('aAcc', 'mIoU', 'mAcc')}


def test_a_validation_scores_the_anchors_unless_told_otherwise(data, checkpoint, tmp_path):
    val_cfg = dict(_delete_=True, type='StitchValLoop')
    metrics = toy_runner(data, tmp_path, load_from=checkpoint, val_cfg=val_cfg).val()
    assert {key.split('/')[0] for key in metrics} == {'S3', 'L6'}


@pytest.mark.parametrize('mode', ['val', 'test'])
def test_hooks_of_the_whole_fire_once_and_those_of_iterations_in_every_pass(
    data, checkpoint, tmp_path, mode
):
    runner = toy_runner(
        data, tmp_path, load_from=checkpoint, **{f'{mode}_cfg': dict(stitches=STITCHES)}
    )
    calls = Counter()
    points = [f'{side}_{mode}{part}' for side in ('before', 'after') for part in ('', '_epoch')]
    points += [f'before_{mode}_iter', f'after_{mode}_iter']
    probe = Probe(**{p: lambda _, p=p: calls.update([p]) for p in points})
    runner.register_hook(probe)
    getattr(runner, mode)()
    images = len(runner.val_dataloader.dataset if mode == 'val' else runner.test_dataloader.dataset)
    assert calls == {p: len(CHOSEN) * images if p.endswith('iter') else 1 for p in points}


@pytest.mark.parametrize('mode', ['val', 'test'])
def test_stitch_and_random_states_are_restored_after_an_error_too(
    data, checkpoint, tmp_path, mode
):
    runner = toy_runner(
        data, tmp_path, load_from=checkpoint, **{f'{mode}_cfg': dict(stitches=STITCHES)}
    )
    runner.load_or_resume()
    backbone = backbone_of(runner)
    backbone.set_stitch('L4-S1')

    def fail(runner):
        torch.rand(1)
        if backbone.stitch.name == 'S1-L4':
            raise ZeroDivisionError

    runner.register_hook(Probe(**{f'after_{mode}_iter': fail}))
    loop = runner.build_val_loop(runner._val_loop) if mode == 'val' else runner.test_loop
    before = capture_rng_state()['torch']
    with pytest.raises(ZeroDivisionError):
        loop.run()
    assert backbone.stitch.name == 'L4-S1'
    assert torch.equal(capture_rng_state()['torch'], before)


def test_the_checkpoint_of_the_best_front_is_kept(data, tmp_path):
    checkpoint = dict(interval=-1, save_best='pareto/hypervolume', rule='greater')
    runner = toy_runner(
        data,
        tmp_path,
        default_hooks=dict(checkpoint=checkpoint),
        train_cfg=dict(val_interval=1, max_iters=5),
        val_cfg=dict(stitches='all'),
        optim_wrapper=dict(optimizer=dict(lr=0.03)),
    )
    runner.train()
    volumes = runner.message_hub.get_scalar('val/pareto/hypervolume')._log_history
    assert len(volumes) == 5 and len(set(volumes)) > 1
    best = int(np.argmax(volumes)) + 1
    assert [p.name for p in tmp_path.glob('best_*')] == [f'best_pareto_hypervolume_iter_{best}.pth']
    assert runner.message_hub.get_info('best_score') == max(volumes)


@pytest.fixture(scope='module')
def unvalidated(data, tmp_path_factory):
    runner = toy_runner(data, tmp_path_factory.mktemp('plain') / 'run')
    runner._val_loop = None
    runner.train()
    return runner


@pytest.mark.parametrize('hooked', [True, False])
def test_validation_leaves_no_trace_in_training(unvalidated, data, tmp_path, hooked):
    """With StitchSamplingHook and without, where the loop alone sees to it."""
    hooks = [dict(type='StitchInitHook', num_images=8)]
    if hooked:
        hooks.append(dict(type='StitchSamplingHook'))
    runner = toy_runner(
        data, tmp_path, custom_hooks=hooks, train_cfg=dict(val_interval=2),
        val_cfg=dict(stitches='all'),
    )  # fmt: skip
    runner.register_hook(Probe(before_val_iter=lambda _: torch.rand(1)))
    runner.train()
    assert len(runner.message_hub.get_scalar('val/S3/mIoU')._log_history) == 3
    assert losses(runner) == losses(unvalidated)
    assert all(torch.equal(weights(unvalidated)[k], v) for k, v in weights(runner).items())


def test_an_unknown_metric_is_refused_with_those_that_there_are(data, checkpoint, tmp_path):
    runner = toy_runner(data, tmp_path, load_from=checkpoint, test_cfg=dict(metric='mIOU'))
    message = r"metric='mIOU' of the loop is not among .*: \['aAcc', 'mAcc', 'mIoU'\]"
    with pytest.raises(ValueError, match=message) as caught:
        runner.test()
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(stitches='S1-L5'), "Unknown stitch 'S1-L5' .* closest names: .*S1-L4"),
        (dict(rule='more'), "rule='more' is not possible: choose 'greater' or 'less'"),
        (dict(rule='less'), r"metric_range=\(0.0, 100.0\) is \(worst, best\) and contradicts"),
        (dict(metric_range=(1, 0)), r"metric_range=\(1, 0\) is .* contradicts rule='greater'"),
    ],
)
def test_a_loop_that_cannot_work_is_refused_before_training(data, tmp_path, settings, message):
    runner = toy_runner(data, tmp_path, val_cfg=settings)
    with pytest.raises(ValueError, match=message):
        runner.train()
    assert not list(tmp_path.glob('*.pth'))


def test_an_error_counts_down_from_its_worst_value(data, checkpoint, tmp_path):
    """By the rule 'less' the best is the least, and the volume lies below the worst."""
    runner = toy_runner(
        data, tmp_path, load_from=checkpoint,
        test_cfg=dict(stitches=STITCHES, rule='less', metric_range=(100.0, 0.0)),
    )  # fmt: skip
    metrics = runner.test()
    values = [metrics[f'{name}/mIoU'] for name in CHOSEN]
    assert metrics['best/mIoU'] == pytest.approx(min(values))
    costs = backbone_of(runner).costs
    expected = volume_by_sweep(
        [costs[name].flops for name in CHOSEN],
        [(100 - value) / 100 for value in values],
        max(costs.flops.values()),
    )
    assert metrics['pareto/hypervolume'] == pytest.approx(expected, rel=1e-6)
