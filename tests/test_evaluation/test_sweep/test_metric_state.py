"""Results of metrics as plain arrays and back."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData

from mmsnnet.evaluation.sweep.metric_state import pack, unpack


def through_a_file(value):
    """Out of a compressed file, with pickling forbidden."""
    content = io.BytesIO()
    np.savez_compressed(content, **pack(value))
    content.seek(0)
    with np.load(content, allow_pickle=False) as file:
        return unpack({name: file[name] for name in file.files})


def same(one, other):
    """Whether two trees are of the same types and equal to the bit."""
    assert type(one) is type(other), (one, other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        return all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and one.shape == other.shape
        return one.numpy(force=True).tobytes() == other.numpy(force=True).tobytes() if (
            one.dtype != torch.bfloat16
        ) else torch.equal(one, other)
    if isinstance(one, (np.ndarray, np.generic)):
        assert one.dtype == other.dtype and one.shape == other.shape
        return one.tobytes() == other.tobytes()
    return one == other or (one != one and other != other)


VALUES = [
    [],
    [[[], ()], {}],
    [None, True, False, 0, -(2**70), 0.1, float('inf'), float('nan')],
    ['name', 'ü"\n', '', b'\x00\xffrle', b''],
    {1: 'one', (2, 3): [4.5], 'five': {'six': 6}},
    (torch.zeros(0, 4), torch.tensor(3.5), torch.arange(6).view(2, 3).t()),
    [torch.tensor([True, False]), torch.tensor([0.1, float('nan')], dtype=torch.float64)],
    [torch.randn(3).to(torch.bfloat16), torch.randn(3).half(), torch.tensor([255]).byte()],
    (np.arange(6.0).reshape(2, 3)[:, ::2], np.float32(0.1), np.int64(7), np.zeros((2, 0, 3))),
    [np.array(5), np.array([True]), np.array([1 + 2j])],
]  # fmt: skip


@pytest.mark.parametrize('value', VALUES, ids=range(len(VALUES)))
def test_everything_comes_back_of_its_type_and_equal_to_the_bit(value):
    assert same(through_a_file(value), value)


def test_many_values_of_one_dtype_come_back_to_their_places():
    value = [[torch.full((n % 4,), float(n)), {'n': n, 'a': np.full(2, n)}] for n in range(50)]
    assert same(through_a_file(value), value)


def test_an_array_that_came_back_may_be_written_to():
    found = through_a_file([torch.zeros(2), np.zeros(2)])
    found[0] += 1
    found[1] += 1
    assert found[0].tolist() == found[1].tolist() == [1, 1]


def test_results_of_many_images_take_a_fraction_of_their_memory():
    """As IoUMetric notes them: of 150 classes an image holds a few."""
    generator = torch.Generator().manual_seed(0)
    images = []
    for _ in range(40):
        area = torch.zeros(150)
        area[torch.randint(0, 150, (10,), generator=generator)] = 1234.0
        images.append((area, area + 1, area * 2, area))
    content = io.BytesIO()
    np.savez_compressed(content, **pack(images))
    assert len(content.getvalue()) < 40 * 4 * 150 * 4 / 5
    assert len(content.getvalue()) < len(pickle.dumps(images)) / 10


@pytest.mark.parametrize('value', [PixelData(), object(), {1, 2}, np.array(['text'])])
def test_what_cannot_be_stored_safely_is_refused_with_the_way_out(value):
    with pytest.raises(TypeError, match='cannot be stored safely; score with --one-by-one'):
        pack([[value]])
