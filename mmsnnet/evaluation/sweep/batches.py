"""The batches of a test by their numbers, so that some of them can be loaded alone."""

from __future__ import annotations

from collections.abc import Iterable

from mmengine.dataset import DefaultSampler
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler


def reason_against_order(loader: DataLoader) -> str | None:
    """Why batches cannot be told by their numbers, None if they can."""
    sampler = loader.sampler
    in_order = isinstance(sampler, SequentialSampler) or (
        isinstance(sampler, DefaultSampler) and not sampler.shuffle
    )
    if in_order and type(loader.batch_sampler) is BatchSampler:
        return None
    return (
        "test_dataloader gives images in an order of its own; sampler=dict(type='DefaultSampler', "
        'shuffle=False) without batch_sampler gives them as they come'
    )


def batch_indices(loader: DataLoader) -> list[list[int]]:
    """Images of every batch of one process over the whole data set, in order.

    They do not depend on how many processes there are: each of them may take any of the batches.

    Args:
        loader: Loader of a test, with nothing against its order.
    """
    size, step = len(loader.dataset), loader.batch_size
    starts = range(0, size - size % step if loader.drop_last else size, step)
    return [list(range(start, min(start + step, size))) for start in starts]


def load_batches(loader: DataLoader, batches: Iterable[list[int]]) -> DataLoader:
    """A loader of some batches, otherwise like a given one.

    Args:
        loader: The loader to follow.
        batches: Images of each batch.
    """
    return DataLoader(
        loader.dataset,
        batch_sampler=list(batches),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
    )
