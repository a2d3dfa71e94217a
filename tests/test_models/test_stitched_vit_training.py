"""The stitched backbone in training without hooks: own sampler, fit on the first batch."""

from __future__ import annotations

import io

import torch

from mmsnnet.models import StitchedViT
from mmsnnet.stitching.sampler import CostBinStitchSampler, UniformStitchSampler
from tests.builders import random_images, tiny_backbone


def snapshot(backbone: StitchedViT) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in backbone.state_dict().items()}


def assert_unchanged(backbone: StitchedViT, before: dict[str, torch.Tensor]) -> None:
    after = backbone.state_dict()
    assert [n for n in before if not torch.equal(after[n], before[n])] == []


def names_of_training(backbone: StitchedViT, steps: int) -> list[str]:
    """Stitches of the next training forwards, told by their outputs."""
    images = random_images(1, 16)
    with torch.no_grad():
        known = {float(backbone.run(images, name)[1].sum()): name for name in backbone.space.names}
    assert len(known) == len(backbone.space)
    return [known[float(backbone(images)[1].detach().sum())] for _ in range(steps)]


def test_the_own_sampler_steps_by_the_number_of_training_forwards():
    backbone = tiny_backbone(drop_path_rate=0.0).train()
    sampler = CostBinStitchSampler(
        backbone.space, backbone.costs.flops, relative_bin_width=0.03
    )
    names = names_of_training(backbone, 12)
    assert names == [sampler.sample(step).name for step in range(12)]
    assert int(backbone.training_steps) == 12 and len(set(names)) > 4


def test_the_own_sampler_goes_on_after_reloading():
    whole = names_of_training(tiny_backbone(drop_path_rate=0.0).train(), 10)
    first, second = (tiny_backbone(drop_path_rate=0.0).train() for _ in range(2))
    names = names_of_training(first, 4)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file))
    assert names + names_of_training(second, 6) == whole


def test_eval_forwards_do_not_advance_the_own_sampler():
    backbone = tiny_backbone(drop_path_rate=0.0).train()
    expected = names_of_training(tiny_backbone(drop_path_rate=0.0).train(), 6)
    names = names_of_training(backbone, 3)
    backbone.eval()(random_images(1))
    assert names + names_of_training(backbone.train(), 3) == expected


def test_the_own_sampler_can_be_another():
    sampler = dict(type='UniformStitchSampler', seed=7, stitches=['S-L', 'S6'])
    backbone = tiny_backbone(drop_path_rate=0.0, sampler=sampler).train()
    expected = UniformStitchSampler(
        backbone.space, backbone.costs.flops, seed=7, stitches=['S-L', 'S6']
    )
    assert names_of_training(backbone, 6) == [expected.sample(step).name for step in range(6)]


def test_the_sampler_is_called_with_the_rank(monkeypatch):
    monkeypatch.setattr('mmsnnet.models.stitched_vit.get_rank', lambda: 3)
    sampler = dict(type='UniformStitchSampler', per_rank=True)
    backbone = tiny_backbone(drop_path_rate=0.0, sampler=sampler).train()
    expected = UniformStitchSampler(backbone.space, backbone.costs.flops, per_rank=True)
    names = names_of_training(backbone, 4)
    assert names == [expected.sample(step, 3).name for step in range(4)]
    assert names != [expected.sample(step, 0).name for step in range(4)]


def test_an_unfitted_backbone_fits_itself_on_the_first_training_batch(log_lines):
    backbone, other = (tiny_backbone(fitted=False, lora_rank=0) for _ in range(2))
    images = random_images(2)
    backbone.train()
    assert not backbone.is_fitted
    for _ in range(3):
        backbone(images)
    warnings = log_lines.text(level=30)
    assert len(warnings) == 1 and '\n' not in warnings[0]
    assert 'first training batch of 2 images' in warnings[0] and 'StitchInitHook' in warnings[0]
    assert backbone.is_fitted and all(module.training for module in backbone.modules())
    other.fit_stitches(images)
    for name, layer in other.stitch_layers.items():
        assert torch.equal(backbone.stitch_layers[name].weight, layer.weight)


def test_a_fitted_backbone_is_not_fitted_again(log_lines):
    backbone = tiny_backbone(fitted=False)
    backbone.fit_stitches(random_images(2))
    before = snapshot(backbone)
    backbone.train()(random_images(1, seed=4))
    del before['training_steps']
    assert_unchanged(backbone, before)
    assert log_lines.text(level=30) == []


def test_an_unfitted_backbone_stays_unfitted_in_eval():
    backbone = tiny_backbone(fitted=False)
    before = snapshot(backbone)
    backbone(random_images(1))
    assert_unchanged(backbone, before)
    assert not backbone.is_fitted


def test_being_fitted_is_saved_with_the_weights():
    fitted, fresh = tiny_backbone(), tiny_backbone(fitted=False, seed=1)
    assert fitted.is_fitted and not fresh.is_fitted
    fresh.load_state_dict(fitted.state_dict())
    assert fresh.is_fitted
    fresh.load_state_dict(tiny_backbone(fitted=False).state_dict())
    assert not fresh.is_fitted
