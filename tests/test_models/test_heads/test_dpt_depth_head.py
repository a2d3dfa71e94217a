"""The DPT head for depth, against the same layers written out with torch's functions."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.nn import functional

from mmsnnet.models.heads import build_dpt_depth_head
from mmsnnet.models.host.head_check import check_channels
from tests.builders import random_images, shake
from tests.segmentors import build, build_segmentor, head, tiny_stitched

WIDTH, CHANNELS = 64, 16


def dpt(**settings):
    return dict(
        type='DPTDepthHead',
        in_channels=[WIDTH] * 4,
        channels=CHANNELS,
        post_process_channels=(8, 12, 20, 28),
    ) | dict(settings)


def built(seed=0, **settings):
    """The head, none of its parameters zero, half of its pixels below the rectifier."""
    one = build(dpt(**settings)).eval()
    shake(one, seed)
    outputs = []
    handle = one.conv_seg.register_forward_hook(lambda *call: outputs.append(call[-1]))
    with torch.no_grad():
        one(inputs(4, 6))
        one.conv_seg[-1].bias.sub_(outputs[0].median())
    handle.remove()
    return one


def inputs(rows, columns, batch=2):
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(batch, WIDTH, rows, columns, generator=generator),
            torch.randn(batch, WIDTH, generator=generator),
        )
        for _ in range(4)
    ]


def enlarge(x, factor=2):
    return functional.interpolate(
        x, scale_factor=factor, mode='bilinear', align_corners=True
    )


def written_out(state, pairs, readout):
    """Depth from the head's weights by its description, before ``min_depth`` is added."""
    conv, relu = functional.conv2d, functional.relu

    def layer(x, name, **how):
        return conv(x, state[f'{name}.weight'], state.get(f'{name}.bias'), **how)

    def residual(x, name):
        hidden = layer(relu(x), f'{name}.conv1.conv', padding=1)
        return x + layer(relu(hidden), f'{name}.conv2.conv', padding=1)

    maps = []
    for i, (x, token) in enumerate(pairs):
        part = f'reassemble_blocks.readout_projects.{i}.0'
        if readout == 'project':
            # The weight of the linear map in its two halves: of the patch and of the token.
            patch, whole = state[f'{part}.weight'].chunk(2, dim=1)
            x = torch.einsum('bchw,dc->bdhw', x, patch)
            x = x + (token @ whole.T + state[f'{part}.bias'])[:, :, None, None]
            x = functional.gelu(x)
        elif readout == 'add':
            x = x + token[:, :, None, None]
        x = layer(x, f'reassemble_blocks.projects.{i}.conv')
        name = f'reassemble_blocks.resize_layers.{i}'
        if i < 2:
            x = functional.conv_transpose2d(
                x, state[f'{name}.weight'], state[f'{name}.bias'], stride=(4, 2)[i]
            )
        elif i == 3:
            x = layer(x, name, stride=2, padding=1)
        maps.append(layer(x, f'convs.{i}.conv', padding=1))
    out = None
    for i, x in enumerate(reversed(maps)):
        name = f'fusion_blocks.{i}'
        if out is not None:
            size = out.shape[2:]
            x = functional.interpolate(x, size=size, mode='bilinear', align_corners=False)
            x = out + residual(x, f'{name}.res_conv_unit1')
        out = layer(enlarge(residual(x, f'{name}.res_conv_unit2')), f'{name}.project.conv')
    out = relu(layer(out, 'project.conv', padding=1))
    out = enlarge(layer(out, 'conv_seg.0', padding=1))
    out = relu(layer(out, 'conv_seg.2', padding=1))
    return relu(layer(out, 'conv_seg.4'))


@pytest.mark.parametrize('readout', ['project', 'add', 'ignore'])
@pytest.mark.parametrize('grid', [(4, 6), (3, 5)])
def test_depth_is_that_of_the_layers_written_out(readout, grid):
    one, pairs = built(readout_type=readout, min_depth=0.25), inputs(*grid)
    with torch.no_grad():
        depth = one(pairs)
    expected = written_out(one.state_dict(), pairs, readout) + 0.25
    if grid == (4, 6):
        assert depth.shape == (2, 1, 64, 96)
    assert 0.02 < (expected > 0.25).float().mean() < 0.98  # the rectifier is at work
    torch.testing.assert_close(depth, expected, rtol=1e-4, atol=1e-5)


def test_ignore_reads_maps_without_class_tokens_alike():
    one, pairs = built(readout_type='ignore'), inputs(4, 4)
    with torch.no_grad():
        assert torch.equal(one([item for item, _ in pairs]), one(pairs))


@pytest.mark.parametrize('index', [[0, 1, 2, 4], [-5, 1, 2, 3], [9, 8, 7, 6]])
def test_an_index_without_a_map_is_named_in_the_forward(index):
    one = built()
    one.in_index = index
    with pytest.raises(ValueError, match=r'in_index=.* does not fit: 4 maps are delivered'):
        one(inputs(4, 4))


@pytest.mark.parametrize('readout', ['project', 'add'])
def test_maps_without_class_tokens_are_refused_with_what_to_write(readout):
    one = built(readout_type=readout)
    message = f"readout_type='{readout}' .*put backbone.output_cls_token=True"
    with pytest.raises(ValueError, match=message):
        one([item for item, _ in inputs(4, 4)])


def test_predictions_are_clamped_and_losses_are_not():
    one, pairs = built(min_depth=0.2, max_depth=0.8), inputs(2, 2)
    with torch.no_grad():
        for parameter in one.conv_seg[-1].parameters():
            parameter.mul_(100)
        raw = one(pairs)
        predicted = one.predict(pairs, [dict(img_shape=(32, 32))], None)
    assert raw.max() > 1 and raw.min() == torch.tensor(0.2)
    assert torch.equal(predicted, raw.clamp(0.2, 0.8))
    samples = [SegDataSample(gt_depth_map=PixelData(data=raw[i])) for i in range(2)]
    one.loss_decode.warm_up_iters = 0
    with torch.no_grad():
        assert one.loss(pairs, samples, None)['loss_depth'] == 0


def test_depth_is_resized_to_the_image():
    one, pairs = built(), inputs(2, 3)
    with torch.no_grad():
        predicted = one.predict(pairs, [dict(img_shape=(30, 41))], None)
        depth = one(pairs).clamp(1e-3, 10)
    expected = functional.interpolate(depth, (30, 41), mode='bilinear', align_corners=False)
    assert torch.equal(predicted, expected)


def test_a_head_that_starts_at_a_depth_has_a_gradient_and_one_of_torch_may_have_none():
    def share_of_live_pixels(seed, **settings):
        torch.manual_seed(seed)
        one = build(dpt(**settings)).eval()
        with torch.no_grad():
            return float((one(inputs(4, 4)) > one.min_depth).float().mean())

    with torch.random.fork_rng(devices=[]):
        assert min(share_of_live_pixels(seed) for seed in range(12)) < 0.02
        assert min(share_of_live_pixels(seed, init_depth=2.0) for seed in range(12)) > 0.9


def test_the_loss_is_the_published_one_unless_another_is_named():
    assert type(build(dpt()).loss_decode).__name__ == 'SigLoss'
    several = build(dpt(loss_decode=[dict(type='SiLogLoss'), dict(type='SigLoss')]))
    samples = [SegDataSample(gt_depth_map=PixelData(data=torch.full((1, 8, 8), 2.0)))] * 2
    losses = several.loss(inputs(2, 2), samples, None)
    assert set(losses) == {'loss_silog', 'loss_depth'}


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(in_channels=[64] * 3), 'in_channels=[64, 64, 64] of DPTDepthHead must list four'),
        (dict(in_channels=64), 'in_channels=64 of DPTDepthHead must list four'),
        (dict(in_channels=[64, 64, 64, 96]), 'must be the same four times'),
        (dict(in_index=[3]), 'in_index=[3] of DPTDepthHead must list four'),
        (dict(post_process_channels=[8]), 'post_process_channels=[8] of DPTDepthHead must list'),
        (dict(channels=1), 'channels=1 of DPTDepthHead must be 2 or more'),
        (dict(readout_type='cat'), "readout_type='cat' of DPTDepthHead is unknown: choose one"),
        (dict(min_depth=-1.0), 'min_depth=-1.0 and max_depth=10.0 of DPTDepthHead must be metres'),
        (dict(min_depth=0), '0 < min_depth < max_depth'),
        (dict(min_depth=5.0, max_depth=2.0), 'min_depth=5.0 and max_depth=2.0'),
        (dict(init_depth=20.0), 'init_depth=20.0 of DPTDepthHead must lie between'),
        (dict(in_channels=['64'] * 4), "in_channels of DPTDepthHead must be integers, got '64'"),
        (dict(channels='8'), "channels of DPTDepthHead must be integers, got '8'"),
        (dict(post_process_channels=[0, 8, 8, 8]), 'post_process_channels of DPTDepthHead must be'),
        (dict(max_depth='10'), "max_depth='10' of DPTDepthHead must be a number of metres"),
        (dict(init_depth='2'), "init_depth='2' of DPTDepthHead must be a number of metres"),
        (dict(init_depth=float('nan')), 'init_depth=nan of DPTDepthHead must lie between'),
        (dict(min_depth=float('nan')), 'min_depth=nan and max_depth=10.0 of DPTDepthHead must be'),
        (dict(max_depth=float('nan')), 'max_depth=nan of DPTDepthHead must be metres'),
        (dict(max_depth=float('inf')), 'max_depth=inf of DPTDepthHead must be metres'),
        (dict(min_depth=5.0, max_depth=2.0), 'min_depth=5.0 and max_depth=2.0 of DPTDepthHead'),
        (dict(in_index=[9] * 4), 'in_index=[9, 9, 9, 9] of DPTDepthHead must name four different'),
        (dict(in_index=[0, 1, 2, 2]), 'in_index=[0, 1, 2, 2] of DPTDepthHead must name four'),
    ],
)
def test_what_cannot_be_built_is_refused(settings, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        build(dpt(**settings))


def estimator(**backbone):
    parts = dict(output_cls_token=True) | backbone
    return dict(
        type='DepthEstimator',
        backbone=tiny_stitched(**parts),
        test_cfg=ConfigDict(mode='slide_flip', crop_size=(64, 64), stride=(64, 64)),
    )


@pytest.mark.parametrize(
    ('decode_head', 'backbone', 'message'),
    [
        (
            dpt(),
            dict(output_cls_token=False),
            "decode_head DPTDepthHead with readout_type='project' reads class tokens, but the "
            'backbone hands on maps alone: put backbone.output_cls_token=True.',
        ),
        (
            head('DPTHead', 64, embed_dims=64, input_transform='multiple_select'),
            dict(output_cls_token=False),
            "decode_head DPTHead with readout_type='ignore' reads class tokens",
        ),
        (dpt(in_channels=[48] * 4), {}, 'in_channels=[48, 48, 48, 48] of DPTDepthHead does not'),
        (dpt(in_index=[0, 1, 2, 4]), {}, 'in_index=[0, 1, 2, 4] does not fit'),
    ],
)
def test_a_head_that_does_not_fit_its_backbone_is_told_before_training(
    decode_head, backbone, message
):
    model = build_segmentor(decode_head, **estimator(**backbone))
    with pytest.raises(ValueError, match=re.escape(message)):
        check_channels(model)


def test_ignore_fits_a_backbone_without_class_tokens():
    check_channels(build_segmentor(dpt(readout_type='ignore'), **estimator(output_cls_token=False)))


def test_the_flip_test_is_the_mean_of_picture_and_mirror_image():
    model = build_segmentor(dpt(), **estimator()).eval()
    shake(model)
    images = random_images(2)
    samples = [SegDataSample(metainfo=dict(ori_shape=(64, 64), img_shape=(64, 64)))] * 2
    with torch.no_grad():
        results = model.predict(images, samples)
        straight = model(images).clamp(1e-3, 10)
        mirrored = model(images.flip(3)).clamp(1e-3, 10).flip(3)
    large = [functional.interpolate(x, (64, 64), mode='bilinear') for x in (straight, mirrored)]
    assert not torch.allclose(*large)
    # One sample object stands for both images here, so it holds the second.
    torch.testing.assert_close(results[1].pred_depth_map.data, (sum(large) / 2)[1])


def test_where_mmseg_is_missing_the_head_says_so_when_it_is_built(monkeypatch):
    monkeypatch.delitem(sys.modules, 'mmsnnet.models.heads.dpt_depth_head', raising=False)
    for name in [name for name in sys.modules if name.split('.')[0] == 'mmseg']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'mmseg', None)  # as if not installed
    with pytest.raises(ImportError, match=r'pip install "mmsegmentation>=1\.2\.2"'):
        build_dpt_depth_head(in_channels=[8] * 4)
