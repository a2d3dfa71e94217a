"""mmcv's public operators over the stand-in, against loops written out in numpy."""
from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from mmsnnet import compat
from mmsnnet.compat import mmcv_ext

compat.install()
ops = pytest.importorskip('mmcv.ops')


def iou_matrix(boxes, offset):
    """Single-precision IoU of every pair, one pair at a time."""
    one = np.float32(offset)
    area = [(b[2] - b[0] + one) * (b[3] - b[1] + one) for b in boxes]
    table = np.zeros((len(boxes), len(boxes)), np.float32)
    for i, j in itertools.product(range(len(boxes)), repeat=2):
        a, b = boxes[i], boxes[j]
        width = max(np.float32(0), min(a[2], b[2]) - max(a[0], b[0]) + one)
        height = max(np.float32(0), min(a[3], b[3]) - max(a[1], b[1]) + one)
        table[i, j] = width * height / (area[i] + area[j] - width * height)
    return table


def greedy_nms(boxes, scores, threshold, offset=0):
    """O(n^2) suppression: keep the best that no kept box overlaps by more than the threshold."""
    table, kept = iou_matrix(boxes, offset), []
    for i in np.argsort(-scores):
        if all(not table[i, k] > np.float32(threshold) for k in kept):
            kept.append(int(i))
    return kept


def random_boxes(seed, count=120):
    """Boxes on whole pixels, so that IoUs often meet a threshold exactly; distinct scores."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 30, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(4, 20, (count, 2))], 1)
    scores = rng.permutation(count).astype(np.float32) / count
    return boxes.astype(np.float32), scores


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.2, 0.3, 0.5, 0.7])
def test_nms_keeps_the_boxes_of_the_quadratic_loop(threshold, offset):
    for seed in range(3):
        boxes, scores = random_boxes(seed)
        dets, kept = ops.nms(boxes, scores, threshold, offset=offset)
        expected = greedy_nms(boxes, scores, threshold, offset)
        assert kept.tolist() == expected
        np.testing.assert_array_equal(
            dets, np.concatenate([boxes[expected], scores[expected, None]], 1))


def test_an_iou_equal_to_the_threshold_keeps_both_boxes():
    # Intersection 3, union 10: in single precision 0.3 is above the double of the same name.
    boxes = torch.tensor([[0., 0, 6.5, 1], [3.5, 0, 10, 1]])
    assert ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.3)[1].tolist() == [0, 1]
    assert ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.299)[1].tolist() == [0]


def test_the_offset_changes_what_is_suppressed():
    boxes = torch.tensor([[0., 0, 9, 9], [5, 0, 14, 9]])  # IoU 36/126 = 0.286, offset 50/150
    scores = torch.tensor([0.9, 0.8])
    assert ops.nms(boxes, scores, 0.3, offset=0)[1].tolist() == [0, 1]
    assert ops.nms(boxes, scores, 0.3, offset=1)[1].tolist() == [0]


def test_nms_obeys_the_score_threshold_and_the_maximum_number():
    boxes, scores = random_boxes(7)
    good = np.flatnonzero(scores > 0.4)
    expected = [int(good[i]) for i in greedy_nms(boxes[good], scores[good], 0.5)][:5]
    assert len(expected) == 5
    assert ops.nms(boxes, scores, 0.5, score_threshold=0.4, max_num=5)[1].tolist() == expected


def test_nms_of_no_boxes_is_empty():
    dets, kept = ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5)
    assert kept.tolist() == []


@pytest.mark.parametrize('split', [10000, 10])
def test_batched_nms_suppresses_within_each_class_only(split):
    boxes, scores = random_boxes(3)
    labels = np.random.default_rng(4).integers(0, 3, len(boxes))
    expected = []
    for label in range(3):
        of_class = np.flatnonzero(labels == label)
        expected += [of_class[i] for i in greedy_nms(boxes[of_class], scores[of_class], 0.5)]
    expected.sort(key=lambda i: -scores[i])
    config = dict(type='nms', iou_threshold=0.5, split_thr=split)
    dets, kept = ops.batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), config)
    assert kept.tolist() == expected
    np.testing.assert_array_equal(dets[:, :4].numpy(), boxes[expected])


def bilinear(plane, y, x):
    """Value of a (C, H, W) map at a point; zero more than one pixel outside, clamped at edges."""
    _, height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(len(plane))
    y, x = max(y, 0.), max(x, 0.)
    y0, x0 = min(int(y), height - 1), min(int(x), width - 1)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy, fx = (y - y0 if y1 > y0 else 0.), (x - x0 if x1 > x0 else 0.)
    top = plane[:, y0, x0] * (1 - fx) + plane[:, y0, x1] * fx
    bottom = plane[:, y1, x0] * (1 - fx) + plane[:, y1, x1] * fx
    return top * (1 - fy) + bottom * fy


def align_by_hand(maps, rois, size, scale, samples, aligned):
    """RoIAlign sample by sample."""
    out = np.zeros((len(rois), maps.shape[1], *size))
    for r, (index, *corners) in enumerate(rois):
        x1, y1, x2, y2 = np.array(corners) * scale - (0.5 if aligned else 0)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.), max(height, 1.)
        step_y, step_x = height / size[0], width / size[1]
        ny = samples if samples > 0 else int(np.ceil(step_y))
        nx = samples if samples > 0 else int(np.ceil(step_x))
        for i, j in itertools.product(range(size[0]), range(size[1])):
            values = [bilinear(maps[int(index)], y1 + step_y * (i + (a + 0.5) / ny),
                               x1 + step_x * (j + (b + 0.5) / nx))
                      for a in range(ny) for b in range(nx)]
            out[r, :, i, j] = np.sum(values, 0) / max(ny * nx, 1) if values else 0
    return out


ROIS = np.array([[0, 2.3, 1.1, 17.9, 22.4], [1, 0, 0, 31.5, 27.5], [1, 10.2, 9.7, 12.1, 11.3],
                 [0, -9, -7, 8.5, 6.5], [1, 20.5, 18, 45, 41]])
ALIGN_CASES = [(aligned, samples) for aligned in (True, False) for samples in (0, 2, 3)]


@pytest.mark.parametrize(('aligned', 'samples'), ALIGN_CASES)
def test_roi_align_equals_sampling_by_hand(aligned, samples):
    maps = np.random.default_rng(0).normal(size=(2, 3, 7, 8))
    layer = ops.RoIAlign((3, 4), 0.25, samples, aligned=aligned)
    out = layer(torch.from_numpy(maps), torch.from_numpy(ROIS))
    expected = align_by_hand(maps, ROIS, (3, 4), 0.25, samples, aligned)
    np.testing.assert_allclose(out.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(('aligned', 'samples'), ALIGN_CASES)
def test_the_gradient_of_roi_align_is_the_transpose_of_sampling_by_hand(aligned, samples):
    height, width = 5, 6
    rois = ROIS[[1, 2, 3]].copy()
    rois[:, 0] = 0
    maps = torch.zeros(1, 1, height, width, dtype=torch.float64, requires_grad=True)
    out = ops.RoIAlign((2, 3), 0.25, samples, aligned=aligned)(maps, torch.from_numpy(rois))
    weights = np.random.default_rng(1).normal(size=out.shape)
    out.backward(torch.from_numpy(weights))
    # Each pixel's unit image as one channel: the whole Jacobian in one pass by hand.
    units = np.eye(height * width).reshape(1, -1, height, width)
    jacobian = align_by_hand(units, rois, (2, 3), 0.25, samples, aligned)
    expected = (jacobian * weights).sum((0, 2, 3)).reshape(height, width)
    np.testing.assert_allclose(maps.grad[0, 0].numpy(), expected, rtol=0, atol=1e-12)


def test_gradients_of_different_images_do_not_mix():
    maps = torch.zeros(2, 1, 6, 6, requires_grad=True)
    out = ops.RoIAlign((2, 2), 1.0, 2)(maps, torch.tensor([[1., 1, 1, 4, 4]]))
    out.sum().backward()
    assert maps.grad[0].abs().sum() == 0
    # Average pooling inside the image: each of the four bins hands out a weight of one.
    assert maps.grad[1].sum().item() == pytest.approx(4)


def test_roi_align_without_boxes_gives_an_empty_output_and_a_zero_gradient():
    maps = torch.ones(1, 2, 4, 4, requires_grad=True)
    out = ops.RoIAlign((2, 2), 1.0)(maps, torch.zeros(0, 5))
    out.sum().backward()
    assert out.shape == (0, 2, 2, 2)
    assert maps.grad.abs().sum() == 0


def test_boxes_of_another_float_type_are_accepted_by_the_stand_in():
    maps, rois = torch.rand(1, 1, 6, 6), torch.tensor([[0, 1.5, 1, 4, 4.5]], dtype=torch.float64)
    out = torch.zeros(1, 1, 2, 2)
    unused = torch.zeros(0)
    mmcv_ext.roi_align_forward(maps, rois, out, unused, unused, 2, 2, 1.0, 2, 1, True)
    expected = align_by_hand(maps.double().numpy(), rois.numpy(), (2, 2), 1.0, 2, True)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-6)


def test_max_pooling_is_refused_with_the_way_to_get_it():
    unused = torch.zeros(0)
    arguments = (torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), torch.zeros(1, 1, 2, 2), unused,
                 unused, 2, 2, 1.0, 2, 0, True)
    with pytest.raises(NotImplementedError, match=r"pool_mode='max'.*mim install"):
        mmcv_ext.roi_align_forward(*arguments)


def test_every_other_op_exists_and_fails_only_when_called():
    operator = mmcv_ext.softnms
    with pytest.raises(NotImplementedError, match=r"'softnms' needs compiled ops.*mim install"):
        operator(torch.zeros(1, 4), iou_threshold=0.5)


def test_names_that_cannot_be_ops_do_not_exist():
    assert not hasattr(mmcv_ext, '__path__')
    assert not hasattr(mmcv_ext, '_private')


def test_the_environment_report_gets_words_for_the_compiler():
    assert 'stand-in' in mmcv_ext.get_compiler_version()
    assert 'stand-in' in mmcv_ext.get_compiling_cuda_version()
