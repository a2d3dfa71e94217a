"""Head statistics of each stitch against numpy over features, and in use."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.nn.functional import conv2d

from mmsnnet.evaluation.sweep.bn_recalibration import recalibrate
from mmsnnet.models.host.head_statistics import (
    STATISTICS_NAME,
    HeadStatistics,
    attach_statistics_of,
    attached_statistics,
    detach_statistics,
    head_norms,
)
from tests.builders import random_images, shake
from tests.segmentors import build_segmentor, head, setr_head, single_head

NORM = 'decode_head.convs.0.bn'


def make_model(decode_head=None):
    size = (64, 64)
    model = build_segmentor(
        decode_head or single_head('FCNHead', num_convs=2),
        auxiliary=single_head('FCNHead', num_convs=1),
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[9] * 3, std=[50] * 3, size=size),
        test_cfg=ConfigDict(mode='whole'),
    )
    shake(model)
    model.backbone.mark_fitted()
    return model.eval()


def make_batches(sizes=(3, 2), seed=0):
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for size in sizes:
        images = [
            torch.randint(0, 255, (3, 64, 64), generator=generator).byte() for _ in range(size)
        ]
        meta = dict(img_shape=(64, 64), ori_shape=(640, 480))
        samples = [SegDataSample(metainfo=meta) for _ in images]
        for sample in samples:
            sample.gt_sem_seg = PixelData(data=torch.zeros(1, 64, 64))
        batches.append(dict(inputs=images, data_samples=samples))
    return batches


@pytest.fixture(scope='module')
def model():
    return make_model()


@pytest.fixture(scope='module')
def statistics(model):
    return recalibrate(model, make_batches())


def test_the_first_norm_of_the_head_has_the_mean_statistics_of_the_batches(model, statistics):
    weight = model.decode_head.convs[0].conv.weight
    for row, stitch in enumerate(model.backbone.space):
        means, variances = [], []
        for batch in make_batches():
            images = (torch.stack(batch['inputs']).float() - 9) / 50
            with torch.no_grad():
                feature = model.backbone.run(images, stitch)[3]
                values = conv2d(feature, weight, padding=1).numpy().astype(np.float64)
            means.append(values.mean(axis=(0, 2, 3)))
            variances.append(values.var(axis=(0, 2, 3), ddof=1))
        assert statistics.names[row] == stitch.name
        mean, var = (table[row].numpy() for table in statistics.tables[NORM])
        np.testing.assert_allclose(mean, np.mean(means, axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(var, np.mean(variances, axis=0), rtol=1e-4)


def test_the_model_is_left_as_it_was_and_no_random_number_is_drawn():
    model = make_model()
    model.decode_head.train()
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    recalibrate(model, make_batches((2,)), ['S2', 'L2-S1'])
    assert torch.equal(torch.get_rng_state(), random)
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert model.decode_head.training and not model.backbone.training
    assert all(norm.momentum == 0.1 for norm in head_norms(model).values())


def test_order_and_choice_of_stitches_do_not_matter(model, statistics):
    some = recalibrate(model, make_batches(), ['L2-S1', 'S2'])
    assert some.names == ('L2-S1', 'S2') and some.num_images == 5
    for name, tables in some.tables.items():
        for mine, other in zip(tables, statistics.tables[name]):
            rows = [statistics.names.index(n) for n in some.names]
            assert torch.equal(mine, other[rows])


def test_each_stitch_runs_with_its_own_statistics(model, statistics):
    images = random_images(2)
    with torch.no_grad(), statistics.attached(model):
        own = {}
        for name in ('S2', 'L4', 'S2'):
            model.backbone.set_stitch(name)
            own[name] = model.encode_decode(images, [dict(img_shape=(64, 64))] * 2)
    for name in ('S2', 'L4'):
        plain = copy.deepcopy(model)
        row = statistics.names.index(name)
        for key, norm in head_norms(plain).items():
            norm.running_mean.copy_(statistics.tables[key][0][row])
            norm.running_var.copy_(statistics.tables[key][1][row])
        plain.backbone.set_stitch(name)
        with torch.no_grad():
            logits = plain.encode_decode(images, [dict(img_shape=(64, 64))] * 2)
        assert torch.equal(own[name], logits)
        baked = copy.deepcopy(model)
        statistics.bake(baked, name)
        baked.backbone.set_stitch(name)
        with torch.no_grad():
            assert torch.equal(baked.encode_decode(images, [dict(img_shape=(64, 64))] * 2), logits)


def test_stitches_without_statistics_and_training_take_the_common_ones(model):
    some = recalibrate(model, make_batches((2,)), ['S2'])
    norm = head_norms(model)[NORM]
    x = torch.randn(2, norm.num_features, 4, 4)
    plain = norm(x)
    with some.attached(model), model.backbone.use_stitch('L4'):
        assert torch.equal(norm(x), plain)
    with some.attached(model), model.backbone.use_stitch('S2'):
        assert not torch.equal(norm(x), plain)
        copied = copy.deepcopy(norm).train()
        assert torch.equal(copied(x), copy.deepcopy(norm).train()(x))
        assert not torch.equal(copied.running_mean, norm.running_mean)


def test_attaching_changes_neither_state_dict_nor_what_is_left_behind(model, statistics):
    kinds = [type(norm) for norm in head_norms(model).values()]
    keys = list(model.state_dict())
    with statistics.attached(model):
        assert attached_statistics(model) is statistics
        assert list(model.state_dict()) == keys
        assert all(isinstance(norm, kind) for norm, kind in zip(head_norms(model).values(), kinds))
    assert attached_statistics(model) is None
    assert [type(norm) for norm in head_norms(model).values()] == kinds
    assert not any('stitch_means' in name for name, _ in model.named_buffers())


def test_a_copy_follows_its_own_stitch(model, statistics):
    with statistics.attached(model):
        other = copy.deepcopy(model)
    model.backbone.set_stitch('S2')
    other.backbone.set_stitch('L4')
    norm = head_norms(other)[NORM]
    x = torch.randn(1, norm.num_features, 3, 3)
    row = statistics.names.index('L4')
    means, variances = (table[row] for table in statistics.tables[NORM])
    expected = torch.nn.functional.batch_norm(
        x, means, variances, norm.weight, norm.bias, False, 0.0, norm.eps
    )
    assert torch.equal(norm(x), expected)
    detach_statistics(other)


def test_a_file_holds_the_same(statistics, model, tmp_path):
    statistics.save(tmp_path / 'new' / STATISTICS_NAME)
    read = HeadStatistics.load(tmp_path / 'new' / STATISTICS_NAME)
    assert (read.names, read.num_images, read.weights) == (statistics.names, 5, statistics.weights)
    assert read.digest == statistics.digest
    attach_statistics_of(tmp_path / 'new', model)
    assert attached_statistics(model).digest == statistics.digest
    detach_statistics(model)
    attach_statistics_of(tmp_path, model)
    assert attached_statistics(model) is None


def test_what_does_not_fit_is_refused(statistics, model, tmp_path):
    other = make_model()
    head_norms(other)[NORM].weight.data += 1
    with pytest.raises(ValueError, match='of other weights'):
        statistics.attach(other)
    with statistics.attached(model):
        with pytest.raises(ValueError, match='already'):
            statistics.attach(model)
        with pytest.raises(ValueError, match='already'):
            recalibrate(model, make_batches())
    with pytest.raises(ValueError, match='no images'):
        recalibrate(model, [])
    with pytest.raises(ValueError, match="no head statistics of the stitch 'S9'"):
        statistics.bake(model, 'S9')
    with pytest.raises(FileNotFoundError, match='no file'):
        HeadStatistics.load(tmp_path / 'none.pth')
    (tmp_path / 'x.pth').write_text('x')
    with pytest.raises(ValueError, match='holds no head statistics'):
        HeadStatistics.load(tmp_path / 'x.pth')


def test_heads_without_batch_norm_have_nothing_to_recalibrate():
    plain = setr_head(norm_cfg=dict(type='GN', num_groups=4))
    with pytest.raises(ValueError, match='no batch norm'):
        recalibrate(make_model(plain), make_batches())


def test_one_image_a_batch_is_refused_where_it_has_no_variance():
    pooled = head('UPerHead', pool_scales=(1, 2))
    with pytest.raises(ValueError, match='batches of 2 or more images'):
        recalibrate(make_model(pooled), make_batches((1,)), ['S2'])
