"""Training images for measuring statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import DataLoader

from mmsnnet.engine.rng_state import seeded_rng


def calibration_batches(cfg: Config, num_images: int, seed: int = 0) -> Iterator[Any]:
    """Batches of the training data set of a config, as training sees them, augmented alike.

    They are as large as those of training, but of 2 images at least; images that do not fill a
    batch are left out. Which images, and their augmentation, follow from the seed; the global
    random generators are put back at the end.

    Args:
        cfg: Config with a ``train_dataloader``.
        num_images: Images at most.
        seed: Chooses the images and their augmentation.

    Raises:
        ValueError: If the config has no training data, or they are less than 2 images.
    """
    loader = cfg.get('train_dataloader')
    if loader is None:
        raise ValueError('The config has no train_dataloader to take images from.')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmseg')):
        dataset = DATASETS.build(loader['dataset'])
    num_images = min(num_images, len(dataset))
    size = max(2, min(loader.get('batch_size', 2), num_images))
    if num_images < 2:
        raise ValueError(f'Statistics need 2 or more images, got {num_images}.')
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(dataset), generator=generator)[:num_images].tolist()
    with seeded_rng(seed):
        yield from DataLoader(
            dataset, batch_size=size, sampler=order, collate_fn=pseudo_collate, drop_last=True
        )
