"""What large trainings add: averaged weights, accumulated gradients, compiled blocks."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import Runner

from mmsnnet.models import find_stitched_backbone
from tests.toy_segmentation import (
    Probe,
    backbone_of,
    losses,
    toy_config,
    toy_runner,
    weights,
    write_images,
)

NO_VALIDATION = dict(val_cfg=None, val_dataloader=None, val_evaluator=None)
OPTIM = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'), train=6, val=2)


def hooks(*more):
    return [
        dict(type='StitchInitHook', num_images=4),
        dict(type='StitchSamplingHook', sampler=dict(type='UniformStitchSampler', seed=1)),
        *more,
    ]


def parameters(runner):
    return {n: p.detach().clone() for n, p in runner.model.named_parameters()}


class TestAveragedWeights:
    MOMENTUM = 0.3

    @pytest.fixture(scope='class')
    @staticmethod
    def runs(data, tmp_path_factory):
        """A run with EMAHook that validates after 2 and 4 iterations, and one without the hook."""
        found = {}
        averaging = dict(type='EMAHook', momentum=TestAveragedWeights.MOMENTUM)
        for name, more in (('ema', [averaging]), ('plain', [])):
            runner = toy_runner(
                data, tmp_path_factory.mktemp(name) / 'run', custom_hooks=hooks(*more),
                optim_wrapper=OPTIM, train_cfg=dict(max_iters=4, val_interval=2),
                default_hooks=dict(checkpoint=dict(interval=4)),
            )  # fmt: skip
            steps = []
            runner.register_hook(
                Probe(after_train_iter=lambda r, steps=steps: steps.append(parameters(r))),
                priority='LOWEST',
            )
            scored = []
            model = runner.model

            def spy(batch, model=model, scored=scored, step=model.val_step):
                if len(scored) < 99:
                    scored.append({n: p.detach().clone() for n, p in model.named_parameters()})
                return step(batch)

            model.val_step = spy
            with torch.random.fork_rng(devices=[]):
                runner.train()
            found[name] = runner, steps, scored
        return found

    def average(self, steps):
        """By hand: the first weights, from then on a weighted mean."""
        mean = {name: value.clone() for name, value in steps[0].items()}
        for step in steps[1:]:
            for name, value in step.items():
                mean[name] = (1 - self.MOMENTUM) * mean[name] + self.MOMENTUM * value
        return mean

    def test_validation_scores_the_averaged_weights_of_fitted_stitches(self, runs):
        _, steps, scored = runs['ema']
        mean = self.average(steps[:2])
        assert mean.keys() == scored[0].keys()
        for name, value in mean.items():
            torch.testing.assert_close(scored[0][name], value, rtol=1e-5, atol=1e-6)
        assert any(not torch.equal(scored[0][name], steps[1][name]) for name in mean)

    def test_training_goes_on_with_its_own_weights(self, runs):
        (ema, *_), (plain, *_) = runs['ema'], runs['plain']
        assert losses(ema) == losses(plain)
        one, two = weights(ema), weights(plain)
        assert all(torch.equal(one[name], two[name]) for name in two)

    def test_a_checkpoint_holds_averaged_weights_ready_to_be_tested(self, runs, data, tmp_path):
        runner, steps, _ = runs['ema']
        file = f'{runner.work_dir}/iter_4.pth'
        config = toy_config(data, tmp_path, load_from=file, custom_hooks=hooks())
        tested = Runner.from_cfg(config)
        metrics = tested.test()
        assert backbone_of(tested).is_fitted and {'S3/mIoU', 'L6/mIoU'} <= {*metrics}
        assert int(backbone_of(tested).training_steps) == 4
        found = dict(tested.model.named_parameters())
        for name, value in self.average(steps).items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)

    def test_a_resumed_run_averages_on(self, runs, data, tmp_path):
        runner, *_ = runs['ema']
        resumed = toy_runner(
            data, tmp_path / 'resumed', resume=True, load_from=f'{runner.work_dir}/iter_4.pth',
            custom_hooks=hooks(dict(type='EMAHook', momentum=self.MOMENTUM)),
            optim_wrapper=OPTIM, train_cfg=dict(max_iters=5, val_interval=9),
            default_hooks=dict(checkpoint=dict(interval=5)), **NO_VALIDATION,
        )  # fmt: skip
        before = {}
        resumed.register_hook(
            Probe(before_train_epoch=lambda r: before.update(weights(r))), priority='LOWEST'
        )
        resumed.train()
        own = weights(runner)
        assert all(torch.equal(before[name], own[name]) for name in own)
        averages = torch.load(tmp_path / 'resumed' / 'iter_5.pth')['ema_state_dict']
        assert int(averages['steps']) == 5


def test_each_accumulated_iteration_runs_a_stitch_of_its_own(data, tmp_path):
    """Their gradients add up to one step, divided by their number, as those of one batch do."""
    runner = toy_runner(
        data, tmp_path / 'run', custom_hooks=hooks(), train_cfg=dict(max_iters=3),
        optim_wrapper=dict(OPTIM, accumulative_counts=3), param_scheduler=None, **NO_VALIDATION,
    )  # fmt: skip
    names, states, start = [], [], {}

    def remember(runner):
        start.setdefault('weights', parameters(runner))
        names.append(runner.message_hub.get_info('stitch'))
        states.append({n: None if p.grad is None else p.grad.clone()
                       for n, p in runner.model.named_parameters()})  # fmt: skip

    runner.register_hook(Probe(after_train_iter=remember), priority='LOWEST')
    runner.train()
    assert len(set(names)) == 3, 'another stitch each'
    first, second = states[:2]
    assert {n for n in first if first[n] is not None} < {n for n in second if second[n] is not None}
    moved = parameters(runner)
    changed = {n for n in moved if not torch.equal(moved[n], start['weights'][n])}
    assert {n for n in second if second[n] is not None and second[n].any()} <= changed


@pytest.mark.filterwarnings('ignore:torch.cuda.amp.GradScaler is enabled')
def test_mixed_precision_keeps_the_residual_stream(data, tmp_path, monkeypatch):
    """In bfloat16 on the CPU, where MMEngine's wrapper wants to see a GPU and gets its way."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    optim = dict(OPTIM, type='AmpOptimWrapper', dtype='bfloat16')
    runner = toy_runner(
        data, tmp_path / 'run', custom_hooks=hooks(), optim_wrapper=optim,
        train_cfg=dict(max_iters=6), **NO_VALIDATION,
    )  # fmt: skip
    backbone, inside, between = backbone_of(runner), set(), set()

    def note(types):
        def hook(module, inputs, output):
            if module.training:  # not of the fit, which is in float32
                types.add(output.dtype)

        return hook

    for anchor in backbone.anchors.values():
        for block in anchor.vit.blocks:
            block.attn.qkv.register_forward_hook(note(inside))
    for layer in backbone.stitch_layers.values():
        layer.register_forward_hook(note(between))
    runner.train()
    assert inside == {torch.bfloat16}
    assert between == {torch.float32}, 'the residual stream'
    assert all(math.isfinite(loss) for loss in losses(runner))
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    assert all(p.grad is None or p.grad.isfinite().all() for p in backbone.parameters())


@pytest.mark.parametrize('wanted', [True, dict(backend='eager')])
@pytest.mark.parametrize('hook', ['StitchInitHook', 'StitchSamplingHook'])
def test_compilation_by_the_runner_is_refused_with_the_reason(data, tmp_path, wanted, hook):
    runner = toy_runner(
        data, tmp_path / 'run', custom_hooks=[dict(type=hook)], compile=wanted, **NO_VALIDATION
    )
    with pytest.raises(ValueError, match=r'compile=.* anew for every stitch.*compile_blocks') as no:
        runner.train()
    assert '\n' not in str(no.value)


def test_a_config_may_say_that_the_runner_does_not_compile(data, tmp_path):
    runner = toy_runner(
        data, tmp_path / 'run', compile=False, train_cfg=dict(max_iters=1), **NO_VALIDATION
    )
    runner.train()
    assert runner.iter == 1


def test_compiled_and_recomputed_blocks_train_with_averaged_weights(data, tmp_path):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    backbone = dict(compile_blocks=dict(backend=backend), with_cp=True)
    runners = []
    for name, more in (('compiled', backbone), ('plain', {})):
        runner = toy_runner(
            data, tmp_path / name, model=dict(backbone=dict(more, drop_path_rate=0.0)),
            custom_hooks=hooks(dict(type='EMAHook')), optim_wrapper=OPTIM,
            train_cfg=dict(max_iters=4, val_interval=4),
        )  # fmt: skip
        runner.train()
        runners.append(runner)
    torch._dynamo.reset()
    one, two = runners
    assert find_stitched_backbone(one.model).with_cp
    assert 0 < len(graphs) <= 2 * 4
    assert losses(one) == pytest.approx(losses(two), rel=1e-5)
    for name, value in weights(two).items():
        torch.testing.assert_close(weights(one)[name], value, rtol=1e-4, atol=1e-5)
