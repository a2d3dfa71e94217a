"""Training images for fitting stitch layers and measuring statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmsnnet.engine.rng_state import seeded_rng

#: Settings of a loader whose images are read in the process itself.
_NO_WORKERS = dict(num_workers=0, persistent_workers=False, prefetch_factor=None)


def training_batches(
    loader: DataLoader,
    num_images: int,
    seed: int = 0,
    batch_size: int | None = None,
    process: tuple[int, int] = (0, 1),
    drop_last: bool = False,
) -> Iterator[Any]:
    """Batches of some training images, augmented and put together as training does it.

    They come from another loader than the given one, whose order stays as it is. Which images, and
    their augmentation, follow from the seed; the global random generators are put back at the end.

    Args:
        loader: Loader of training, whose data set, ``collate_fn`` and batch size are taken.
        num_images: Images at most, over all processes together.
        seed: Chooses the images and their augmentation.
        batch_size: Images of a batch; None takes that of training, which is known to fit: whole
            images of different sizes, for one, make batches of one image alone.
        process: Index of this process and number of processes that share the images.
        drop_last: Whether images that do not fill a batch are left out.
    """
    index, count = process
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(loader.dataset), generator=generator)[:num_images]
    own = order[index::count].tolist()
    size = batch_size or _batch_size(loader)
    with seeded_rng(seed + index):
        yield from DataLoader(
            loader.dataset,
            batch_size=min(size, max(len(own), 1)),
            sampler=own,
            collate_fn=loader.collate_fn,
            drop_last=drop_last,
        )


def _batch_size(loader: DataLoader) -> int:
    """Images of a batch, also where a batch sampler of its own makes them."""
    return loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None) or 1


def calibration_batches(cfg: Config, num_images: int, seed: int = 0) -> Iterator[Any]:
    """Batches of the training data set of a config, see :func:`training_batches`.

    Images that do not fill a batch are left out.

    Args:
        cfg: Config with a ``train_dataloader``.
        num_images: Images at most.
        seed: Chooses the images and their augmentation.

    Raises:
        ValueError: If the config has no training data, or they are less than 2 images.
    """
    loader_cfg = cfg.get('train_dataloader')
    if loader_cfg is None:
        raise ValueError('The config has no train_dataloader to take images from.')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmseg')):
        loader = Runner.build_dataloader({**loader_cfg, **_NO_WORKERS}, seed)
    if min(num_images, len(loader.dataset)) < 2:
        found = min(num_images, len(loader.dataset))
        raise ValueError(f'Statistics need 2 or more images, got {found}.')
    yield from training_batches(loader, num_images, seed, drop_last=True)
