"""Several stitches in one training step, against the same stitches apart."""

from __future__ import annotations

import logging

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from mmsnnet.engine.shared_routes import SharedRoutes, mean_losses
from mmsnnet.models import StitchedViT, build_sampler
from mmsnnet.stitching.route_groups import RouteGroups
from tests.builders import tiny_anchor
from tests.toy_segmentation import backbone_of, logged, toy_runner, write_images

GROUP = ('L6', 'L4-S1', 'L2-S1-L2', 'S3')


class Model(BaseModel):
    """A stitched backbone and a layer, which both run in train mode."""

    def __init__(self, **settings):
        super().__init__()
        torch.manual_seed(0)
        anchors = [tiny_anchor(3, 32), tiny_anchor(6, 48)]
        self.backbone = StitchedViT(
            anchors, img_size=32, out_indices=(2, 5), lora_rank=2, **settings
        )
        self.backbone.mark_fitted()
        self.head = nn.Conv2d(48, 4, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        maps = [self.head(item) for item in self.backbone(inputs)]
        if mode != 'loss':
            return maps
        losses = [item.square().mean() for item in maps]
        return dict(loss=sum(losses), loss_each=losses, accuracy=maps[0].mean())


def gradients(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def block_runs(model):
    """Counts the blocks that run from now on."""
    runs = []
    for module in model.backbone.modules():
        if type(module).__name__ == 'Block':
            module.register_forward_hook(lambda *_: runs.append(1))
    return runs


@pytest.mark.parametrize(
    'settings',
    [dict(), dict(with_cp=True), dict(frozen_stages=2), dict(final_norm=True)],
    ids=str,
)
def test_gradients_are_the_means_of_those_of_separate_passes(settings):
    model = Model(drop_path_rate=0.0, **settings).train()
    images = torch.randn(2, 3, 32, 32)
    runs = block_runs(model)
    total = 0.0
    for stitch in GROUP:
        model.backbone.set_training_stitch(stitch)
        loss = model.parse_losses(model(images, mode='loss'))[0] / len(GROUP)
        loss.backward()
        total += float(loss.detach())
    expected, apart = gradients(model), len(runs)
    model.zero_grad()
    runs.clear()
    shared = SharedRoutes(model, model.backbone)
    shared.set_stitches([model.backbone.space[name] for name in GROUP])
    shared.install()
    loss = model.parse_losses(model(images, mode='loss'))[0]
    loss.backward()
    found = gradients(model)
    assert float(loss.detach()) == pytest.approx(total, rel=1e-5)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    assert len(runs) < 0.8 * apart


def test_a_shared_beginning_draws_its_random_numbers_once():
    model = Model(drop_path_rate=0.9).train()
    shared = SharedRoutes(model, model.backbone)
    pair = [model.backbone.space[name] for name in ('L6', 'L4-S1')]
    shared.set_stitches(pair)
    shared.install()
    starts = []
    model.backbone.anchor(1).vit.blocks[3].register_forward_hook(
        lambda _, __, out: starts.append(out.detach().clone())
    )
    model(torch.randn(2, 3, 32, 32), mode='loss')
    assert len(starts) == 1 and list(shared.losses) == pair


def test_other_modes_and_the_model_afterwards_are_as_before():
    model = Model()
    shared = SharedRoutes(model, model.backbone)
    shared.set_stitches([model.backbone.space['S3']])
    images = torch.randn(1, 3, 32, 32)
    expected = model.eval()(images)
    shared.install()
    found = model(images)
    assert all(torch.equal(one, other) for one, other in zip(found, expected))
    assert not shared.losses
    shared.remove()
    assert 'forward' not in vars(model)


def test_losses_are_averaged_by_name_and_a_missing_one_counts_as_zero():
    one = dict(a=torch.tensor(2.0), b=[torch.tensor(4.0), torch.tensor(6.0)])
    two = dict(a=torch.tensor(4.0), c=torch.tensor(8.0))
    means = mean_losses([one, two])
    assert means == dict(a=3.0, b=[2.0, 3.0], c=4.0)


class TestTraining:
    SAMPLER = dict(type='UniformStitchSampler', seed=3)

    @pytest.fixture(scope='class')
    @staticmethod
    def run(tmp_path_factory):
        """A training of three iterations with two stitches each, what ran and what was logged."""
        data = write_images(tmp_path_factory.mktemp('data'), train=4, val=1)
        sampling = dict(
            type='StitchSamplingHook', sampler=TestTraining.SAMPLER, log_interval=1,
            routes_per_step=2,
        )  # fmt: skip
        runner = toy_runner(
            data, tmp_path_factory.mktemp('two') / 'run', train_cfg=dict(max_iters=3),
            custom_hooks=[dict(type='StitchInitHook', num_images=4), sampling],
            val_cfg=None, val_dataloader=None, val_evaluator=None,
        )  # fmt: skip
        backbone, names = backbone_of(runner), []
        run = backbone.run
        backbone.run = lambda images, stitch: (names.append(stitch), run(images, stitch))[1]
        with logged(runner, logging.INFO) as lines:
            runner.train()
        return runner, names, lines

    def test_each_iteration_runs_its_group(self, run):
        runner, names, lines = run
        backbone = backbone_of(runner)
        groups = RouteGroups(build_sampler(backbone, self.SAMPLER), backbone.costs, 2)
        for step in range(3):
            group = groups.sample(step)
            assert {*names[2 * step : 2 * step + 2]} == {*group}
            assert any(all(stitch.name in line for stitch in group) for line in lines)

    def test_families_have_losses_of_their_own_and_the_loss_is_their_mean(self, run):
        runner, names, _ = run
        hub = runner.message_hub
        total = hub.get_scalar('train/loss').data[0].sum()
        parts = sum(
            hub.get_scalar(f'train/loss_{family}').data[0].sum()
            for family in {stitch.family for stitch in names}
        )
        assert total == pytest.approx(parts / 2, rel=1e-4)

    def test_the_model_has_its_forward_back(self, run):
        assert 'forward' not in vars(run[0].model)


def test_the_runners_activation_checkpointing_is_refused(tmp_path):
    data = write_images(tmp_path / 'data', train=2, val=1)
    runner = toy_runner(
        data, tmp_path / 'run', cfg=dict(),
        custom_hooks=[dict(type='StitchSamplingHook', routes_per_step=2)],
    )  # fmt: skip
    runner.cfg.activation_checkpointing = ['backbone']
    with pytest.raises(ValueError, match='does not go with activation_checkpointing'):
        runner.call_hook('before_run')


@pytest.mark.parametrize('wrong', [0, -1])
def test_fewer_routes_than_one_are_refused(wrong):
    from mmsnnet.engine import StitchSamplingHook

    with pytest.raises(ValueError, match=f'routes_per_step must be 1 or more, got {wrong}'):
        StitchSamplingHook(routes_per_step=wrong)
