"""Cost of neck and head, against hand formulas, the published head and fvcore's tracing."""

from __future__ import annotations

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from mmengine.model import MMDistributedDataParallel
from torch import nn

from mmsnnet.evaluation.cost.flop_counter import FlopCounter
from mmsnnet.evaluation.cost.model_cost import head_cost, model_costs
from mmsnnet.models import StitchedViT
from mmsnnet.models.host.meta_call import meta_call
from mmsnnet.stitching import Cost
from tests.builders import tiny_backbone
from tests.segmentors import (
    build_segmentor,
    head,
    multi_level_neck,
    setr_head,
    single_head,
    tiny_stitched,
    wide_stitched,
)


class Behind(nn.Module):
    """What runs behind the backbone, written out for tracing."""

    def __init__(self, model):
        super().__init__()
        self.neck = model.neck if model.with_neck else nn.Identity()
        self.head = model.decode_head

    def forward(self, *features):
        if not isinstance(self.head, nn.ModuleList):
            return self.head(self.neck(features))
        first, second = self.head
        return second(features, first(features))


def traced_flops(model, grid):
    features = tuple(torch.randn(1, 64, *grid) for _ in range(4))
    analysis = FlopCountAnalysis(Behind(model).eval(), features)
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()


FEATURE_PYRAMID = dict(type='Feature2Pyramid', embed_dim=64, norm_cfg=dict(type='BN'))
SEGMENTORS = {
    'SETR naive': dict(head=setr_head()),
    'SETR PUP': dict(head=setr_head(num_convs=4, up_scale=2, kernel_size=3)),
    'FCN': dict(head=single_head('FCNHead', num_convs=2)),
    'PSP': dict(head=single_head('PSPHead')),
    'ASPP': dict(head=single_head('ASPPHead', dilations=(1, 2))),
    'Segformer': dict(head=head('SegformerHead')),
    'UPer': dict(head=head('UPerHead', 32), neck=multi_level_neck()),
    'UPer on a pyramid': dict(head=head('UPerHead'), neck=FEATURE_PYRAMID),
    'Segmenter': dict(
        head=single_head(
            *('SegmenterMaskTransformerHead', 64),
            **dict(num_layers=2, num_heads=4, embed_dims=64, channels=64),
            norm_cfg=dict(type='LN'),
        )
    ),
    'cascade': dict(
        head=[single_head('FCNHead'), single_head('OCRHead', ocr_channels=8)],
        type='CascadeEncoderDecoder',
        num_stages=2,
    ),
}


@pytest.mark.parametrize('name', SEGMENTORS)
def test_flops_behind_the_backbone_are_those_that_fvcore_traces(name):
    model = build_segmentor(**SEGMENTORS[name])
    assert head_cost(model, (48, 64)).flops == traced_flops(model, (6, 8)) > 0


def test_the_published_setr_head_costs_the_published_flops():
    model = build_segmentor(setr_head(1024), backbone=wide_stitched(), device='meta')
    assert head_cost(model, 512).flops == 920_125_440
    assert head_cost(model, 4096).flops == 64 * 920_125_440


def test_the_setr_head_costs_the_sum_of_its_layers():
    model = build_segmentor(setr_head(64))
    rows, columns = 6, 8
    norm, projection = 5 * rows * columns * 64, rows * columns * 64 * 256
    batch_norm, upsampling = 2 * rows * columns * 256, 4 * 16 * rows * columns * 256
    classes = 16 * rows * columns * 256 * 150
    flops = norm + projection + batch_norm + upsampling + classes
    params = 2 * 64 + 64 * 256 + 2 * 256 + 256 * 150 + 150
    assert head_cost(model, (48, 64)) == Cost(flops, params)


def upernet_flops(grid, width, channels, classes):
    """UperNet of equal channels behind a multi-level neck, layer by layer."""
    areas = [(4 * grid) ** 2, (2 * grid) ** 2, grid**2, (grid // 2) ** 2]
    square, batch_norm, resize = channels**2, 2 * channels, 4 * channels
    flops = 4 * grid**2 * width * channels
    flops += sum(area * (resize + 9 * square) for area in areas)
    for bins in (1, 2, 3, 6):
        flops += areas[3] * channels + bins**2 * (square + batch_norm) + areas[3] * resize
    flops += areas[3] * (9 * 5 * square + batch_norm)
    flops += sum(area * (square + batch_norm) for area in areas[:3])
    flops += sum(area * (resize + 9 * square + batch_norm) for area in areas[:3])
    flops += areas[0] * (3 * resize + 9 * 4 * square + batch_norm + channels * classes)
    return flops


def test_upernet_of_256_channels_costs_68_gflops_and_of_1024_and_512_431():
    def cost(neck_channels, channels):
        uper = head('UPerHead', neck_channels, channels=channels, num_classes=150)
        neck = multi_level_neck(1024, neck_channels)
        model = build_segmentor(uper, neck, backbone=wide_stitched(), device='meta')
        return head_cost(model, 512).flops

    assert cost(256, 256) == upernet_flops(32, 1024, 256, 150) == 68_169_786_368
    assert round(cost(1024, 512) / 1e9) == 431


def test_auxiliary_heads_are_not_counted():
    auxiliary = [single_head('FCNHead'), single_head('FCNHead')]
    alone, with_two = (build_segmentor(setr_head(), auxiliary=aux) for aux in (None, auxiliary))
    assert head_cost(with_two, 64) == head_cost(alone, 64)


def test_parameters_are_those_of_neck_and_head():
    model = build_segmentor(head('UPerHead', 32), multi_level_neck())
    behind = [*model.neck.parameters(), *model.decode_head.parameters()]
    assert head_cost(model, 64).params == sum(p.numel() for p in behind)


def test_partial_patches_count_as_whole_ones():
    model = build_segmentor(setr_head())
    assert head_cost(model, (41, 57)) == head_cost(model, (48, 64))


def test_heads_that_read_class_tokens_get_them():
    def flops(readout_type):
        dpt = head('DPTHead', 64, embed_dims=64, post_process_channels=[8, 16, 32, 64])
        dpt |= dict(input_transform='multiple_select', readout_type=readout_type, patch_size=8)
        backbone = tiny_stitched(output_cls_token=True)
        return head_cost(build_segmentor(dpt, backbone=backbone), 64).flops

    # Each of 64 tokens of each of 4 maps, with the class token beside it, is projected to 64.
    assert flops('project') - flops('ignore') == 4 * 64 * (2 * 64) * 64


def test_counting_leaves_the_model_as_it_was():
    model = build_segmentor(head('UPerHead', 32), multi_level_neck()).train()
    model.decode_head.bottleneck.eval()
    modes = [module.training for module in model.modules()]
    tensors = dict(model.state_dict(keep_vars=True))
    values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    state = torch.get_rng_state()
    head_cost(model, 64)
    assert [module.training for module in model.modules()] == modes
    after = model.state_dict(keep_vars=True)
    assert all(after[name] is tensor for name, tensor in tensors.items())
    assert all(torch.equal(after[name], value) for name, value in values.items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_on_the_meta_device_costs_the_same():
    parts = head('UPerHead', 32), multi_level_neck()
    assert head_cost(build_segmentor(*parts, device='meta'), 64) == head_cost(
        build_segmentor(*parts), 64
    )


def test_a_wrapped_model_costs_the_same():
    model = build_segmentor(setr_head())
    wrapped = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapped)
    wrapped.module = model
    assert head_cost(wrapped, 64) == head_cost(model, 64)
    assert dict(model_costs(wrapped, 64)) == dict(model_costs(model, 64))


def test_the_whole_model_costs_backbone_and_head_under_every_stitch():
    model = build_segmentor(setr_head())
    costs, behind = model_costs(model, (48, 64)), head_cost(model, (48, 64))
    backbone = model.backbone.costs.at((48, 64))
    assert dict(costs) == {name: cost + behind for name, cost in backbone.items()}
    assert costs.image_size == (48, 64)
    assert costs.constant == behind


def executed_flops(backbone, stitch, size):
    """FLOPs of a real forward, counted while it runs on shapes alone."""
    images = torch.empty(1, 3, *size, device='meta')
    with FlopCounter() as counter:
        meta_call([backbone], backbone.run, images, stitch)
    return counter.total


@pytest.mark.parametrize(
    'kind', ['class token', 'registers', 'pre-norm', 'qk-norm', 'no class token', 'SwiGLU']
)
@pytest.mark.parametrize('final_norm', [False, True])
def test_the_analytic_table_is_what_every_stitch_executes(kind, final_norm):
    # Rank 0, because costs count the low-rank update as merged.
    backbone = tiny_backbone(((2, 32), (4, 64)), kind, lora_rank=0, final_norm=final_norm)
    costs = backbone.costs.at((48, 80))
    executed = {s.name: executed_flops(backbone, s, (48, 80)) for s in backbone.space}
    assert costs.flops == executed


def test_the_published_anchors_execute_their_analytic_flops():
    with torch.device('meta'):
        backbone = StitchedViT(lora_rank=0)
    for name in ('S12', 'S5-L14', 'L4-S3-L14', 'S1-L20-S1', 'L24'):
        assert executed_flops(backbone, name, (512, 512)) == backbone.costs[name].flops


def test_parameters_of_a_whole_anchor_model_are_those_that_it_runs():
    model = build_segmentor(setr_head())
    vit = model.backbone.anchors['L'].vit
    used = [*vit.patch_embed.parameters(), vit.cls_token, vit.pos_embed, *vit.blocks.parameters()]
    expected = sum(p.numel() for p in (*used, *model.decode_head.parameters()))
    assert model_costs(model, 64)['L4'].params == expected


def test_channels_that_do_not_fit_are_told_before_anything_is_counted():
    with pytest.raises(ValueError, match=r'decode_head\.in_channels=48 .*put 64'):
        head_cost(build_segmentor(setr_head(48)), 64)


class NeedsSamples(nn.Module):
    in_channels, in_index = 64, 3

    def forward(self, features, samples):
        return features


def test_a_head_that_does_not_run_on_shapes_is_refused_with_its_name():
    model = build_segmentor(setr_head())
    model.decode_head = NeedsSamples()
    with pytest.raises(ValueError, match=r'Cannot count decode_head NeedsSamples: .*samples'):
        head_cost(model, 64)


def test_a_model_without_a_decode_head_is_refused():
    model = build_segmentor(setr_head())
    del model.decode_head
    with pytest.raises(ValueError, match='EncoderDecoder has no decode_head'):
        head_cost(model, 64)


def test_a_model_without_a_stitched_backbone_is_refused():
    model = build_segmentor(setr_head())
    model.backbone = nn.Identity()
    with pytest.raises(ValueError, match='0 StitchedViT'):
        head_cost(model, 64)


def test_an_impossible_size_is_refused():
    with pytest.raises(ValueError, match=r'positive, got \(0, 64\)'):
        head_cost(build_segmentor(setr_head()), (0, 64))
