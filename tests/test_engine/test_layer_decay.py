"""Layer-wise learning rates, against tables made by hand."""

from __future__ import annotations

import re

import pytest
from mmengine.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from torch import nn

from mmsnnet.engine import StitchLayerDecayOptimWrapperConstructor
from tests.segmentors import build_segmentor, head, multi_level_neck
from tests.toy_segmentation import toy_runner, write_images

LR, DECAY = 0.1, 0.05
NAME = 'StitchLayerDecayOptimWrapperConstructor'


def wrapper(model, optimizer=None, **settings):
    """Optimizer wrapper of a model; ``settings`` besides those of the wrapper are paramwise."""
    own = {key: settings.pop(key) for key in ('type', 'accumulative_counts') if key in settings}
    return build_optim_wrapper(
        model,
        dict(
            optimizer=optimizer or dict(type='AdamW', lr=LR, weight_decay=DECAY),
            constructor=NAME,
            paramwise_cfg=dict(dict(decay_rate=0.5), **settings),
            **own,
        ),
    )


def settings_by_name(model, optim_wrapper):
    """(lr, weight decay) of every parameter that the optimizer has."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [
        (names[id(parameter)], (round(group['lr'] / LR, 9), group['weight_decay']))
        for group in optim_wrapper.optimizer.param_groups
        for parameter in group['params']
    ]
    assert len(found) == len(dict(found)), 'a parameter in two groups'
    return dict(found)


@pytest.fixture(scope='module')
def model():
    """Anchors of 2 and 4 blocks with taps after each block of the larger, neck and two heads."""
    auxiliary = head('FCNHead') | dict(in_channels=32, in_index=2, num_convs=1)
    return build_segmentor(head('UPerHead', 32), multi_level_neck(), auxiliary)


# Powers of 0.5: 5 - depth. Blocks of S end at 2 and 4; L2_to_S1 enters its block 1.
SCALES = {
    r'backbone\.anchors\.[SL]\.vit\.(cls_token|pos_embed|patch_embed\..*)': 5,
    r'backbone\.anchors\.L\.vit\.blocks\.0\..*': 4,
    r'backbone\.anchors\.L\.vit\.blocks\.1\..*': 3,
    r'backbone\.anchors\.L\.vit\.blocks\.2\..*': 2,
    r'backbone\.anchors\.L\.vit\.blocks\.3\..*': 1,
    r'backbone\.anchors\.S\.vit\.blocks\.0\..*': 3,
    r'backbone\.anchors\.S\.vit\.blocks\.1\..*': 1,
    r'backbone\.stitch_layers\.S1_to_L2\.(lora_a|lora_b|bias)': 2,
    r'backbone\.stitch_layers\.L2_to_S1\.(lora_a|lora_b|bias)': 1,
    r'backbone\.stitch_layers\.S2_to_L4\.(lora_a|lora_b|bias)': 0,
    r'(neck|decode_head|auxiliary_head)\..*': 0,
}


def test_the_learning_rate_falls_with_the_depth(model):
    found = settings_by_name(model, wrapper(model))
    used = set()
    for name, (scale, _) in found.items():
        (pattern,) = [pattern for pattern in SCALES if re.fullmatch(pattern, name)]
        used.add(pattern)
        assert scale == 0.5 ** SCALES[pattern], name
    assert used == {*SCALES}


def test_every_trained_parameter_is_in_one_group_and_no_frozen_one(model):
    found = settings_by_name(model, wrapper(model))
    assert {*found} == {n for n, p in model.named_parameters() if p.requires_grad}
    assert 'backbone.stitch_layers.S1_to_L2.weight' not in found, 'frozen beside its LoRA'


def test_weights_alone_decay(model):
    decays = {name: decay for name, (_, decay) in settings_by_name(model, wrapper(model)).items()}
    weights = (
        r'.*\.(qkv|proj|fc1|fc2)\.weight|.*\.lora_[ab]|(neck|.*_head)\.(.*conv|.*conv_seg)\.weight'
    )
    assert {decay for name, decay in decays.items() if re.fullmatch(weights, name)} == {DECAY}
    rest = {name for name in decays if not re.fullmatch(weights, name)}
    assert {decays[name] for name in rest} == {0.0}
    ends = {name.rpartition('.')[2] for name in rest}
    assert ends == {'cls_token', 'pos_embed', 'weight', 'bias'}
    norms = [name for name in rest if name.endswith('weight')]
    assert norms and all(re.search(r'norm\d?\.|\.bn\.', name) for name in norms)


def stitched_segmentor(name, **more):
    """Segmentor on two small anchors of a timm name."""
    anchors = [
        dict(
            model_name=name, pretrained=False,
            model_kwargs=dict(depth=depth, embed_dim=width, num_heads=width // 16, **more),
        )
        for depth, width in ((2, 32), (4, 64))
    ]  # fmt: skip
    backbone = dict(type='StitchedViT', anchors=anchors, img_size=64, out_indices=(0, 1, 2, 3))
    return build_segmentor(head('UPerHead'), backbone=backbone)


@pytest.mark.parametrize(
    ('name', 'part', 'depth'),
    [
        ('vit_small_patch14_reg4_dinov2', 'reg_token', 0),
        ('vit_small_patch14_reg4_dinov2', 'blocks.0.ls1.gamma', 1),
        ('beit_base_patch16_224', 'blocks.2.attn.relative_position_bias_table', 3),
        ('beit_base_patch16_224', 'blocks.2.gamma_1', 3),
        ('vit_small_patch16_rope_mixed_224', 'rope.freqs', 0),
    ],
)
def test_tokens_layer_scales_and_what_knows_of_positions_do_not_decay(name, part, depth):
    model = stitched_segmentor(name)
    found = settings_by_name(model, wrapper(model))
    assert found[f'backbone.anchors.L.vit.{part}'] == (0.5 ** (5 - depth), 0.0)


def test_groups_are_merged_by_learning_rate_and_decay(model):
    groups = wrapper(model).optimizer.param_groups
    pairs = [(group['lr'], group['weight_decay']) for group in groups]
    assert len(pairs) == len(set(pairs)) == 2 * 6, 'six depths, with and without weight decay'


def test_a_rate_of_one_gives_all_the_same_learning_rate(model):
    assert {g['lr'] for g in wrapper(model, decay_rate=1).optimizer.param_groups} == {LR}


def test_frozen_stages_are_left_out(model):
    backbone = model.backbone
    anchors = [anchor.config for anchor in backbone.anchors.values()]
    frozen = build_segmentor(
        head('UPerHead', 32), multi_level_neck(),
        backbone=dict(type='StitchedViT', anchors=anchors, img_size=64, out_indices=(0, 1, 2, 3),
                      frozen_stages=2),
    )  # fmt: skip
    found = settings_by_name(frozen, wrapper(frozen))
    assert min(scale for scale, _ in found.values()) == 0.5**2
    assert not [n for n in found if '.S.vit.blocks.0.' in n or '.L.vit.blocks.1.' in n]


def test_heads_and_necks_have_a_factor_of_their_own(model):
    found = settings_by_name(model, wrapper(model, head_lr_mult=10))
    assert {s for name, (s, _) in found.items() if not name.startswith('backbone.')} == {10.0}
    assert max(s for name, (s, _) in found.items() if name.startswith('backbone.')) == 1.0


def test_custom_keys_multiply_the_learning_rate_and_replace_the_rule_of_decay(model):
    keys = {
        'stitch_layers': dict(lr_mult=3.0),
        'anchors.L': dict(lr_mult=0.5, decay_mult=2.0),
        'anchors.L.vit.pos_embed': dict(lr_mult=4.0),
        'decode_head': dict(decay_mult=0.0, eps=1e-3),
    }
    optim = wrapper(model, custom_keys=keys)
    found = settings_by_name(model, optim)
    assert found['backbone.stitch_layers.S1_to_L2.bias'] == (3 * 0.5**2, 0.0)
    assert found['backbone.anchors.L.vit.blocks.1.norm1.bias'] == (0.5 * 0.5**3, 2 * DECAY)
    assert found['backbone.anchors.L.vit.pos_embed'] == (4 * 0.5**5, 0.0)
    assert found['backbone.anchors.S.vit.blocks.1.mlp.fc1.weight'] == (0.5, DECAY)
    assert found['decode_head.conv_seg.weight'] == (1.0, 0.0)
    special = [group for group in optim.optimizer.param_groups if group['eps'] == 1e-3]
    (group,) = special
    assert {id(p) for p in group['params']} == {id(p) for p in model.decode_head.parameters()}


def test_a_wrapped_model_has_the_groups_of_the_model(model):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = model

    assert wrapper(Wrapped()).optimizer.param_groups[3]['params'][0] is (
        wrapper(model).optimizer.param_groups[3]['params'][0]
    )


@pytest.mark.filterwarnings('ignore:torch.cuda.amp.GradScaler is enabled')
def test_mixed_precision_has_the_same_groups(model, monkeypatch):
    """AmpOptimWrapper refuses to be built without a GPU, which is all that is patched away."""
    with pytest.raises(AssertionError, match='is only available training on gpu'):
        wrapper(model, type='AmpOptimWrapper')
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    mixed = wrapper(model, type='AmpOptimWrapper')
    assert isinstance(mixed, AmpOptimWrapper)
    assert settings_by_name(model, mixed) == settings_by_name(model, wrapper(model))


def test_an_optimizer_without_weight_decay_gets_none(model):
    optim = wrapper(model, optimizer=dict(type='SGD', lr=LR))
    assert isinstance(optim, OptimWrapper)
    assert {group['weight_decay'] for group in optim.optimizer.param_groups} == {0}
    assert len(optim.optimizer.param_groups) == 6


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(decay_rate=0), r'decay_rate=0 of paramwise_cfg .* must be in \(0, 1\]'),
        (dict(decay_rate=1.2), r'decay_rate=1\.2 '),
        (dict(decay_rate='0.7'), r"decay_rate='0\.7' "),
        (dict(decay_rate=True), r'decay_rate=True '),
        (dict(decay_rate=None), r'decay_rate=None '),
        (dict(head_lr_mult=0), r'head_lr_mult=0 of paramwise_cfg must be positive'),
        (dict(layer_decay_rate=0.7), r'does not know layer_decay_rate; it takes decay_rate, num_'),
        (dict(num_layers=12), r'num_layers=12 .* is not the depth of the largest anchor, 4: leave'),
    ],
)
def test_impossible_options_are_refused_in_one_line(model, settings, message):
    with pytest.raises(ValueError, match=message) as refusal:
        wrapper(model, **settings)
    assert '\n' not in str(refusal.value)


def test_the_number_of_layers_may_be_told(model):
    wrapper(model, num_layers=4)


def test_an_optimizer_without_learning_rate_is_refused(model):
    with pytest.raises(ValueError, match='needs an lr'):
        wrapper(model, optimizer=dict(type='AdamW'))


def test_a_model_without_stitched_backbone_is_refused():
    with pytest.raises(ValueError, match='Linear has 0 StitchedViT'):
        wrapper(nn.Linear(2, 2))


def test_it_trains_through_the_runner_and_schedules_keep_the_proportions(tmp_path):
    """With accumulated gradients: of 6 iterations the 3rd and the 6th update the weights."""
    data = write_images(tmp_path / 'data', train=4, val=2)
    optim = dict(
        type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3), constructor=NAME,
        paramwise_cfg=dict(decay_rate=0.7), accumulative_counts=3,
    )  # fmt: skip
    runner = toy_runner(
        data, tmp_path / 'run', optim_wrapper=optim, val_cfg=None, val_dataloader=None,
        val_evaluator=None,
    )  # fmt: skip
    seen = []
    original = OptimWrapper.step
    OptimWrapper.step = lambda self, **kw: (seen.append(runner.iter + 1), original(self, **kw))[1]
    try:
        runner.train()
    finally:
        OptimWrapper.step = original
    assert seen == [3, 6]
    rates = sorted({group['lr'] for group in runner.optim_wrapper.param_groups})
    assert len(rates) == 6 + 2  # embeddings, blocks, heads
    for low, high in zip(rates, rates[1:]):
        assert low / high == pytest.approx(0.7)


def test_the_class_is_found_from_any_scope():
    from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope

    for scope in ('mmengine', 'mmseg'):
        with DefaultScope.overwrite_default_scope(scope):
            found = OPTIM_WRAPPER_CONSTRUCTORS.get(NAME)
        assert found is StitchLayerDecayOptimWrapperConstructor
