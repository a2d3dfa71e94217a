"""Augmentations of depth training, and mmseg's own as the recipe uses them on depth."""

from __future__ import annotations

import re

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope, init_default_scope
from PIL import Image

import mmsnnet
from mmsnnet.datasets.transforms import ColorAug, NYUCrop


def sample(height=480, width=640, seed=0):
    """A picture whose red channel tells the row, and depth in metres that does the same."""
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows = np.broadcast_to(np.arange(height)[:, None], (height, width))
    picture[..., 2] = rows % 256
    return dict(
        img=picture,
        img_shape=(height, width),
        ori_shape=(height, width),
        gt_depth_map=(0.001 * rows + 1).astype(np.float32),
        seg_fields=['gt_depth_map'],
    )


def test_the_frame_of_nyuv2_is_cut_off_picture_and_depth():
    before, after = sample(), NYUCrop()(sample())
    assert after['img_shape'] == after['gt_depth_map'].shape == (427, 565)
    np.testing.assert_array_equal(after['img'], before['img'][45:472, 43:608])
    np.testing.assert_array_equal(after['gt_depth_map'], before['gt_depth_map'][45:472, 43:608])


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match='has 96 x 96: leave NYUCrop out'):
        NYUCrop()(sample(96, 96))


def test_colours_are_raised_to_a_power_and_scaled_and_depth_is_left():
    before = sample(8, 8)
    aug = ColorAug(1.0, gamma_range=(1.1, 1.1), brightness_range=(0.5, 0.5), color_range=(0.9, 0.9))
    after = aug(sample(8, 8))
    expected = np.clip(before['img'].astype(float) ** 1.1 * 0.45, 0, 255)
    assert after['img'].dtype == np.float32
    np.testing.assert_allclose(after['img'], expected, rtol=1e-5)
    np.testing.assert_array_equal(after['gt_depth_map'], before['gt_depth_map'])


def test_each_channel_is_scaled_by_itself_within_the_ranges():
    aug = ColorAug(1.0, gamma_range=(1, 1), brightness_range=(0.8, 0.8), color_range=(0.5, 1))
    white = np.full((1, 1, 3), 100, np.uint8)
    factors = np.array([aug(dict(img=white))['img'][0, 0] for _ in range(50)]) / 80
    assert 0.5 <= factors.min() < 0.6 and 0.9 < factors.max() <= 1
    assert (factors.std(axis=1) > 0.001).all()


def test_pictures_are_left_alone_with_the_other_probability():
    grey = np.full((1, 1, 3), 100, np.uint8)
    coloured = [ColorAug(0.25)(dict(img=grey))['img'] is not grey for _ in range(400)]
    assert 50 < sum(coloured) < 150
    assert ColorAug(0.0)(sample(8, 8))['img'].dtype == np.uint8


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(prob=1.5), 'prob=1.5 of ColorAug must lie in [0, 1]'),
        (dict(gamma_range=(1.1, 0.9)), 'gamma_range=(1.1, 0.9) of ColorAug must be two positive'),
        (dict(color_range=(0, 1)), 'color_range=(0, 1) of ColorAug must be two positive'),
        (dict(brightness_range=(1,)), 'brightness_range=(1,) of ColorAug must be two positive'),
        (dict(prob=float('nan')), 'prob=nan of ColorAug must lie in [0, 1]'),
        (dict(gamma_range=(1, float('inf'))), 'gamma_range=(1, inf) of ColorAug must be two'),
        (dict(gamma_range=(float('nan'), 1)), 'gamma_range=(nan, 1) of ColorAug must be two'),
        (dict(prob='half'), "prob='half' of ColorAug must lie in [0, 1]"),
        (dict(gamma_range=1.1), 'gamma_range=1.1 of ColorAug must be two positive'),
        (dict(gamma_range='12'), "gamma_range='12' of ColorAug must be two positive"),
    ],
)
def test_impossible_colours_are_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ColorAug(**settings)


@pytest.fixture
def files(tmp_path):
    """A picture of NYUv2's size and its depth file: 5 m everywhere, in millimetres of 16 bits."""
    Image.fromarray(sample()['img']).save(tmp_path / 'a.jpg')
    Image.fromarray(np.full((480, 640), 5000, np.uint16)).save(tmp_path / 'a.png')
    return dict(
        img_path=str(tmp_path / 'a.jpg'), depth_map_path=str(tmp_path / 'a.png'), seg_fields=[]
    )


def test_the_recipe_trains_on_metres_with_0_where_rotation_uncovers_nothing(files):
    config = Config.fromfile(mmsnnet.config_path('dpt_snnetv2_s-l_nyuv2.py'))
    pipeline = config.train_dataloader.dataset.pipeline
    next(item for item in pipeline if item.type == 'RandomRotate').update(prob=1.0)
    init_default_scope('mmseg')
    with DefaultScope.overwrite_default_scope('mmseg'):
        transforms = [TRANSFORMS.build(item) for item in pipeline]
    depths = []
    for _ in range(6):
        results = {key: list(v) if isinstance(v, list) else v for key, v in files.items()}
        for transform in transforms:
            results = transform(results)
        assert results['inputs'].shape == (3, 416, 544)
        depths.append(results['data_samples'].gt_depth_map.data)
    assert all(depth.shape == (1, 416, 544) for depth in depths)
    values = set(np.unique(np.concatenate([depth.numpy() for depth in depths])).round(5).tolist())
    assert values == {0.0, 5.0}


@pytest.mark.parametrize('shape', [(8, 8), (8, 8, 1), (8, 8, 4)])
def test_colours_of_pictures_of_other_channels_are_refused(shape):
    with pytest.raises(ValueError, match=r'ColorAug tints pictures \(H, W, 3\)'):
        ColorAug(prob=1.0)(dict(img=np.zeros(shape, np.uint8), img_path='a.png'))
