"""What learns in each mode of training."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn

from mmsnnet.models import StitchedViT
from tests.builders import random_images, tiny_anchor, tiny_backbone

SHAPE = ((3, 32), (4, 48))
LORA = dict(training='lora', anchor_lora=dict(rank=2, alpha=6))


def backbone_of(training: str = 'full', shape=SHAPE, **settings) -> StitchedViT:
    if training == 'lora':
        pytest.importorskip('peft')
        settings = LORA | settings
    backbone = tiny_backbone(shape, lora_rank=2, **dict(training=training) | settings)
    backbone.skip_anchor_weights()  # drawn by the builder
    return backbone


def train_step(backbone: StitchedViT, stitch: str, rate: float = 0.5) -> set[str]:
    """One step with weight decay; names of the parameters that moved."""
    before = {name: value.detach().clone() for name, value in backbone.named_parameters()}
    head = nn.Conv2d(backbone.channels, 3, 1)
    trained = [*head.parameters(), *backbone.parameters()]
    optimizer = torch.optim.SGD(trained, lr=rate, weight_decay=0.1)
    backbone.train()
    backbone.set_training_stitch(stitch)
    sum(head(one).square().mean() for one in backbone(random_images())).backward()
    optimizer.step()
    return {n for n, p in backbone.named_parameters() if not torch.equal(p, before[n])}


@pytest.mark.parametrize('stitch', ['S3', 'L4', 'S1-L3', 'L1-S1-L1'])
def test_stitches_moves_stitch_layers_alone_and_runs_anchors_as_in_eval_mode(stitch):
    backbone = backbone_of('stitches', drop_path_rate=0.9)
    clean = backbone.run(random_images(), stitch)
    moved = train_step(backbone, stitch)
    assert all(name.startswith('stitch_layers.') for name in moved)
    assert bool(moved) == (stitch != 'L4')
    backbone.train()
    assert backbone.training and not any(
        part.training for anchor in backbone.anchors.values() for part in anchor.modules()
    )
    fresh = backbone_of('stitches', drop_path_rate=0.9).train()
    for one, other in zip(clean, fresh.run(random_images(), stitch)):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def saved_bytes(backbone: StitchedViT, stitch: str) -> int:
    """Bytes that autograd keeps of a forward, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    backbone.set_training_stitch(stitch)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        features = backbone.train()(random_images())
    assert len(features)
    return sum(kept.values())


@pytest.mark.parametrize('with_cp', [False, True])
def test_stitches_keeps_nothing_for_backward_before_the_first_layer_that_learns(with_cp):
    frozen, full = (backbone_of(mode, with_cp=with_cp) for mode in ('stitches', 'full'))
    assert saved_bytes(frozen, 'L4') == 0 < saved_bytes(full, 'L4')
    # The last lift alone: its input of (2, 65, 32) and the update's of rank 2, with shared taps.
    late = backbone_of('stitches', with_cp=with_cp, out_indices=(3,))
    assert saved_bytes(late, 'S3') <= 2 * 65 * (32 + 2) * 4


@pytest.mark.parametrize('with_cp', [False, True])
def test_gradients_of_stitch_layers_are_those_of_a_full_training_without_drop_path(with_cp):
    grads = []
    for mode in ('full', 'stitches'):
        backbone = backbone_of(mode, drop_path_rate=0.0, with_cp=with_cp).train()
        sum(f.square().mean() for f in backbone(random_images(), 'L1-S1-L1')).backward()
        grads.append([p.grad for p in backbone.stitch_layers.parameters()])
    assert any(grad is not None for grad in grads[0])
    for one, other in zip(*grads):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_names_and_values_of_weights_are_those_of_a_full_training():
    full, stitches = backbone_of('full'), backbone_of('stitches')
    assert full.state_dict().keys() == stitches.state_dict().keys()
    stitches.load_state_dict(full.state_dict())


@pytest.mark.parametrize('kind', ['class token', 'BEiT', 'EVA-02', 'DINOv3', 'parallel', 'SwiGLU'])
def test_lora_moves_updates_of_every_linear_layer_of_the_blocks_alone(kind):
    backbone = backbone_of('lora', kind=kind, drop_path_rate=0.0)
    moved = train_step(backbone, 'L4', rate=1.0)
    linear = {
        f'anchors.L.vit.blocks.{name.replace(".base_layer", "")}'
        for name, one in backbone.anchors['L'].vit.blocks.named_modules()
        if type(one) is nn.Linear and 'lora_' not in name
    }
    assert len(linear) >= 4
    updates = {f'{name}.lora_{part}.default.weight' for name in linear for part in 'AB'}
    assert moved == updates


def test_lora_leaves_no_updates_where_stages_are_frozen():
    backbone = backbone_of('lora', frozen_stages=2)
    learning = {n.split('.blocks.')[1][0] for n, p in backbone.anchors['L'].named_parameters()
                if p.requires_grad}  # fmt: skip
    assert learning == {'2', '3'}


@pytest.mark.parametrize('kind', ['class token', 'BEiT', 'EVA-02'])
def test_a_full_backbone_loads_a_checkpoint_of_lora_merged(kind):
    lora, full = backbone_of('lora', kind=kind, seed=1), backbone_of('full', kind=kind)
    lora.double(), full.double()
    full.load_state_dict(lora.state_dict())
    images = random_images(1).double()
    for stitch in lora.space:
        for one, other in zip(*(backbone(images, stitch) for backbone in (lora, full))):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_lora_starts_from_a_checkpoint_of_full_training_with_updates_of_zero():
    lora, full = backbone_of('lora', seed=1), backbone_of('full')
    lora.load_state_dict(full.state_dict())
    for stitch in full.space:
        for one, other in zip(*(b(random_images(1), stitch) for b in (lora, full))):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_lora_loads_its_own_checkpoint_exactly_and_copies_run_alike():
    lora, other = backbone_of('lora', seed=1), backbone_of('lora')
    other.load_state_dict(lora.state_dict())
    copied = copy.deepcopy(lora)
    assert copied.state_dict().keys() == other.state_dict().keys()
    for name, value in lora.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
        assert torch.equal(value, copied.state_dict()[name])


def test_costs_count_lora_merged():
    assert backbone_of('lora').costs['S1-L3'] == backbone_of('full').costs['S1-L3']


def test_a_saved_backbone_keeps_its_mode_and_opens_as_another(tmp_path):
    lora = backbone_of('lora', seed=1)
    lora.save_pretrained(tmp_path)
    again = StitchedViT.from_pretrained(tmp_path)
    assert again.training_mode == 'lora'
    merged = StitchedViT.from_pretrained(tmp_path, training='full', anchor_lora=None)
    expected = lora(random_images(1), 'S1-L3')
    for found in (again, merged):
        for one, other in zip(expected, found(random_images(1), 'S1-L3')):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_updates_of_another_scale_are_refused():
    other = backbone_of('lora', anchor_lora=dict(rank=2, alpha=2))
    with pytest.raises(ValueError, match='updates of its anchors by 3, this StitchedViT by 1'):
        other.load_state_dict(backbone_of('lora').state_dict())


@pytest.mark.parametrize(
    ('settings', 'error', 'message'),
    [
        (dict(training='none'), ValueError, "training='none' of StitchedViT is unknown; choose"),
        (dict(training=True), ValueError, 'training=True of StitchedViT is unknown'),
        (dict(anchor_lora=dict(rank=4)), ValueError, "goes with training='lora' alone, not with"),
        (dict(training='stitches', anchor_lora={}), ValueError, "alone, not with 'stitches'"),
        (dict(training='lora', anchor_lora=4), TypeError, 'anchor_lora=4 must be a dict'),
        (dict(training='lora', anchor_lora=dict(r=4)), ValueError, r"does not know \['r'\]"),
        (dict(training='lora', anchor_lora=dict(rank=0)), ValueError, 'rank=0 of anchor_lora'),
        (dict(training='lora', anchor_lora=dict(alpha=0)), ValueError, 'alpha=0 of anchor_lora'),
        (dict(training='lora', anchor_lora=dict(dropout=1)), ValueError, 'dropout=1 of anchor_'),
    ],
)
def test_impossible_modes_are_refused_in_one_line(settings, error, message):
    with pytest.raises(error, match=message) as caught:
        tiny_backbone(SHAPE, **settings)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('training', ['stitches', 'lora'])
def test_frozen_anchors_at_random_weights_are_refused_before_anything_learns(training):
    if training == 'lora':
        pytest.importorskip('peft')
    backbone = tiny_backbone(SHAPE, training=training, fitted=False).train()
    backbone.init_weights()
    with pytest.raises(ValueError, match='nothing pretrained was loaded into S and L'):
        backbone(random_images())
    assert not backbone.is_fitted
    with torch.no_grad():
        backbone(random_images(1))  # a teacher
    backbone.load_state_dict(tiny_backbone(SHAPE).state_dict())
    backbone(random_images())


def test_without_peft_lora_alone_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, 'peft', None)
    backbone_of('stitches')
    with pytest.raises(ImportError, match=r'not installed: pip install "mmsnnet\[lora\]"\.'):
        tiny_backbone(SHAPE, training='lora')


def test_one_anchor_alone_can_be_kept_as_it_is():
    backbone = tiny_backbone(((3, 32),), anchors=[tiny_anchor(3, 32)], training='stitches')
    backbone.skip_anchor_weights()
    assert not train_step(backbone, 'S3' if 'S3' in {s.name for s in backbone.space} else 0)
