"""Images out of what data loaders yield."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from mmsnnet.models.image_batches import image_batches
from tests.builders import random_images, tiny_backbone


def sizes(source, num_images=None) -> list[int]:
    return [len(images) for images in image_batches(source, num_images)]


def test_one_tensor_is_one_batch():
    assert sizes(random_images(3)) == [3]


@pytest.mark.parametrize('wrap', [
    lambda images: images,
    lambda images: (images, torch.zeros(len(images))),
    lambda images: [images, torch.zeros(len(images))],
    lambda images: dict(labels=torch.zeros(len(images)), pixel_values=images),
    lambda images: dict(image=images, mask=images),
])  # fmt: skip
def test_batches_of_any_form_give_their_images(wrap):
    images = random_images(2)
    found = list(image_batches([wrap(images), wrap(images)]))
    assert len(found) == 2 and all(torch.equal(one, images) for one in found)


def test_no_more_batches_are_read_than_are_needed():
    def endless():
        while True:
            yield random_images(4)

    assert sizes(endless(), 10) == [4, 4, 2]
    assert sizes(endless(), 4) == [4]
    assert sizes([random_images(4)], 10) == [4]


@pytest.mark.parametrize(('source', 'message'), [
    ([dict(label=1)], "dict of 'label', without images under one of 'images'"),
    ([[1, 2]], 'a sequence that begins with them or a dict, got list'),
    (['a.jpg'], 'got str'),
    ('a.jpg', 'an iterable of batches such as a DataLoader, got str'),
    (3, 'an iterable of batches such as a DataLoader, got int'),
])  # fmt: skip
def test_what_holds_no_images_is_told(source, message):
    with pytest.raises(TypeError, match=message):
        sizes(source)


def test_a_number_of_images_must_be_positive():
    with pytest.raises(ValueError, match='num_images must be positive, got 0'):
        sizes(random_images(1), 0)


def test_a_fit_on_a_loader_is_the_fit_on_its_images():
    images = random_images(8)
    loader = DataLoader(TensorDataset(images, torch.arange(8)), batch_size=3)
    one, other = (tiny_backbone(((2, 32), (2, 48)), out_indices=(1,)) for _ in range(2))
    one.fit_stitches(loader, num_images=6)
    other.fit_stitches(images[:6])
    for name, value in one.state_dict().items():
        assert torch.allclose(value, other.state_dict()[name], atol=1e-5), name
