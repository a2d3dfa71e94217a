"""The batches of a test: by their numbers, some of them alone, and with a line for what fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.dataset import DefaultSampler
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler


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


def load_batches(
    loader: DataLoader, batches: Iterable[list[int]] | None = None
) -> DataLoader:
    """A loader of some batches, otherwise like a given one, that names an image it cannot read.

    Args:
        loader: The loader to follow.
        batches: Images of each batch, asked for as they are loaded, in this process; None for
            those of the loader.
    """
    return _NamingLoader(
        _NamingDataset(loader.dataset),
        batch_sampler=loader.batch_sampler if batches is None else batches,
        num_workers=loader.num_workers,
        persistent_workers=batches is None and loader.persistent_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
    )


#: Stands in a message before the text that reaches the user.
_MARK = 'Cannot read image '


class _NamingDataset(Dataset):
    """A data set whose errors name the image, in one line."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        if name == '_dataset':  # while it is unpickled in a worker
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __getitem__(self, index: int) -> Any:
        try:
            return self._dataset[index]
        except Exception as error:  # whatever a pipeline raises at a broken file
            reason = ' '.join(str(error).split()) or 'no reason given'
            raise ValueError(
                f'{_MARK}{index} of the test data ({self._path(index)}): '
                f'{type(error).__name__}: {reason}'
            ) from None

    def _path(self, index: int) -> str:
        try:
            info = self._dataset.get_data_info(index)
            return str(info.get('img_path') or info.get('img_id'))
        except Exception:  # a data set need not tell
            return 'path unknown'


class _NamingLoader(DataLoader):
    """A loader that passes on an error of a worker as it was, without the worker's traceback."""

    def __iter__(self) -> Iterator[Any]:
        batches = super().__iter__()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except ValueError as error:
                text = str(error)
                if _MARK not in text:
                    raise
                raise ValueError(text[text.index(_MARK) :].splitlines()[0]) from None
            yield batch
