"""Measures the running statistics of a head's batch norms anew for each stitch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from mmengine.dist import get_dist_info, is_main_process
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmsnnet.models import find_stitched_backbone, without_augmentation
from mmsnnet.models.host.head_statistics import (
    STATISTICS_NAME,
    HeadStatistics,
    attach_statistics_of,
    attached_statistics,
    hash_norms,
    head_norms,
)
from mmsnnet.models.prefix_cache import PrefixCache
from mmsnnet.stitching import Stitch

from .processes import broadcast, failing_together, gather
from .sweep_options import share_of

#: Mean, variance and number of batches of each norm.
_Sums = list[tuple[Tensor, Tensor, Tensor]]


@contextmanager
def _measuring(model: nn.Module, norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """The model in eval mode but for its norms, which average over batches; undone afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    states = [(norm, norm.momentum, _copy(norm)) for norm in norms]
    model.eval()
    try:
        with ExitStack() as stack:
            for norm in norms:
                norm.momentum = None  # torch then takes the plain mean over batches
                norm.train()
                stack.enter_context(_within_process(norm))
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for norm, momentum, state in states:
            norm.momentum = momentum
            _put(norm, state)


@contextmanager
def _within_process(norm: _BatchNorm) -> Iterator[None]:
    """A synchronised norm that averages over the images of its own process.

    In train mode it would wait for all other processes, which run other stitches or none.
    """
    if not isinstance(norm, nn.SyncBatchNorm) and 'Sync' not in type(norm).__name__:
        yield
        return
    norm.forward = MethodType(_BatchNorm.forward, norm)
    try:
        yield
    finally:
        del norm.forward


def _copy(norm: _BatchNorm) -> tuple[Tensor, Tensor, Tensor]:
    state = norm.running_mean, norm.running_var, norm.num_batches_tracked
    return tuple(tensor.clone() for tensor in state)


def _put(norm: _BatchNorm, state: tuple[Tensor, Tensor, Tensor]) -> None:
    norm.running_mean.copy_(state[0])
    norm.running_var.copy_(state[1])
    norm.num_batches_tracked.copy_(state[2])


def _run(model: nn.Module, data: dict[str, Any]) -> None:
    """One forward of backbone, neck and head, as in testing.

    Raises:
        ValueError: If a norm met a single value per channel.
    """
    samples = data['data_samples']
    try:
        if hasattr(model, 'encode_decode'):  # segmentors: without resizing to the original size
            model.encode_decode(data['inputs'], [sample.metainfo for sample in samples])
        else:
            model(data['inputs'], samples, mode='predict')
    except ValueError as error:
        if 'more than 1 value per channel' not in str(error):
            raise
        raise ValueError(
            'A norm of the head met one value per channel, whose variance is not known: give '
            'batches of 2 or more images.'
        ) from None


def recalibrate(
    model: nn.Module,
    batches: Iterable[Any],
    stitches: Iterable[str | int | Stitch] | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> HeadStatistics:
    """Statistics of the batch norms of neck and head under each stitch.

    They are the means over the batches of the batches' means and (unbiased) variances, with the
    norms in train mode and everything else in eval mode, as in the calibration of slimmable
    networks (Yu and Huang, "Universally Slimmable Networks", ICCV 2019, section 3.3). The model
    is left as it was, and no random number is drawn. Common beginnings of stitches run once.

    Args:
        model: Segmentor, depth estimator or detector; of a test that augments, what it runs.
        batches: Batches as of a training loader, before the data preprocessor.
        stitches: Names or ids; None for all.
        on_batch: Called after each batch.

    Raises:
        ValueError: If neck and head have no batch norm, there are no batches, or the model has
            statistics already.
    """
    model = without_augmentation(model)
    backbone, norms = find_stitched_backbone(model), head_norms(model)
    if not norms:
        raise ValueError('Neck and head have no batch norm, so there is nothing to recalibrate.')
    if attached_statistics(model) is not None:
        raise ValueError('The model has head statistics already; detach those first.')
    chosen = [backbone.space[one] for one in (backbone.space if stitches is None else stitches)]
    fresh = [tuple(torch.zeros_like(t) for t in _copy(norm)) for norm in norms.values()]
    sums: dict[str, _Sums] = {stitch.name: list(fresh) for stitch in chosen}
    weights, num_images = hash_norms(norms), 0
    for batch in batches:
        num_images += _measure(model, batch, list(norms.values()), chosen, sums)
        on_batch()
    if not num_images:
        raise ValueError('There are no images to recalibrate with.')
    return HeadStatistics(tuple(sums), _tables(norms, sums), weights, num_images)


def _measure(
    model: nn.Module,
    batch: Any,
    norms: Sequence[_BatchNorm],
    stitches: Sequence[Stitch],
    sums: dict[str, _Sums],
) -> int:
    """Take one batch into the sums of every stitch; returns the number of its images."""
    data = model.data_preprocessor(batch, True)
    cache = PrefixCache(find_stitched_backbone(model), stitches)
    with torch.no_grad(), _measuring(model, norms), cache.activate():
        for stitch in cache.routes():
            for norm, state in zip(norms, sums[stitch.name]):
                _put(norm, state)
            _run(model, data)
            sums[stitch.name] = [_copy(norm) for norm in norms]
    return len(data['inputs'])


def _tables(norms: Iterable[str], sums: dict[str, _Sums]) -> dict[str, tuple[Tensor, Tensor]]:
    """Means and variances (stitches, channels) by name of the norm."""
    return {
        name: tuple(
            torch.stack([states[number][row] for states in sums.values()]).cpu()
            for row in (0, 1)
        )
        for number, name in enumerate(norms)
    }


def attach_recalibrated(
    model: nn.Module,
    stitches: Iterable[Stitch],
    directory: str | os.PathLike[str],
    batches: Callable[[], Iterable[Any]],
) -> None:
    """Let a model run with the head statistics in a results folder, measured there as far needed.

    Processes share the stitches that the folder has none of, and each measures its own on all
    batches: the statistics are those that one process would find.

    Args:
        model: See :func:`recalibrate`.
        stitches: What will be run.
        directory: Results folder, which all processes see.
        batches: Makes the batches; the same each time and in all processes.

    Raises:
        ValueError: As :func:`recalibrate`, or if the folder's statistics are of other weights; in
            all processes alike.
    """
    path = Path(directory, STATISTICS_NAME)
    known = None
    with failing_together():
        if is_main_process() and path.is_file():
            known = HeadStatistics.load(path)
    missing = broadcast(
        [one.name for one in stitches if known is None or one.name not in known.names]
    )
    if missing:
        measured = _measure_by_processes(model, missing, batches)
        with failing_together():
            if is_main_process():
                (measured if known is None else known.joined(measured)).save(path)
    gather(None)  # until then the file may be a former one
    attach_statistics_of(directory, model)


def _measure_by_processes(
    model: nn.Module, names: Sequence[str], batches: Callable[[], Iterable[Any]]
) -> HeadStatistics:
    """Statistics of stitches, each process measuring consecutive ones of them."""
    mine = share_of(names, *get_dist_info())
    measured = None
    with failing_together():
        if mine:
            measured = recalibrate(model, batches(), mine)
    first, *others = [one for one in gather(measured) if one is not None]
    for other in others:
        first = first.joined(other)
    return first
