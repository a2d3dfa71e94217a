"""Takes images out of what data loaders yield."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from mmsnnet.stitching.value_checks import check_integer

#: Names that images have in batches that are dicts, in the order of search.
IMAGE_KEYS = ('images', 'image', 'pixel_values', 'inputs', 'input', 'img', 'x')


def image_batches(
    source: Tensor | Iterable[Any], num_images: int | None = None
) -> Iterator[Tensor]:
    """Batches (B, C, H, W) of a tensor, an iterable or a data loader.

    Args:
        source: One batch, or an iterable of batches. A batch is a tensor, a sequence that begins
            with one, such as (images, labels), or a dict with one under a name of ``IMAGE_KEYS``.
        num_images: Stop after so many images; None takes all.

    Raises:
        TypeError: If a batch holds no images where they are looked for.
        ValueError: If ``num_images`` is not positive.
    """
    if num_images is not None and check_integer('num_images', num_images) < 1:
        raise ValueError(f'num_images must be positive, got {num_images}.')
    if isinstance(source, (str, Mapping)) or not isinstance(source, Iterable):
        raise TypeError(
            'Images are a tensor (B, C, H, W), or an iterable of batches such as a DataLoader, '
            f'got {type(source).__name__}.'
        )
    left = num_images
    for batch in (source,) if isinstance(source, Tensor) else source:
        images = _images_of(batch)
        if left is not None:
            images = images[:left]
            left -= len(images)
        yield images
        if left == 0:
            return


def _images_of(batch: Any) -> Tensor:
    """Images of one batch."""
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, Mapping):
        found = [batch[key] for key in IMAGE_KEYS if isinstance(batch.get(key), Tensor)]
        if found:
            return found[0]
        raise TypeError(
            f'A batch is a dict of {", ".join(map(repr, batch)) or "nothing"}, without images '
            f'under one of {", ".join(map(repr, IMAGE_KEYS))}: yield the images alone.'
        )
    if isinstance(batch, Sequence) and len(batch) and isinstance(batch[0], Tensor):
        return batch[0]
    raise TypeError(
        'A batch must be images (B, C, H, W), a sequence that begins with them or a dict, got '
        f'{type(batch).__name__}.'
    )
