"""Images of a data set, to check exported files on and to score them by its metric."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor, nn
from torch.nn import functional

from mmsnnet.models import find_stitched_backbone
from mmsnnet.models.host.lookup import without_augmentation
from mmsnnet.runtime.metadata import ModelMetadata

from .variants import quiet_logs
from .verification import inference_of, runner_of

#: Points of mIoU that a file in int8 may lose.
MOST_LOST_MIOU = 0.3
#: The same of the accuracy of a classifier; one image may always be lost.
MOST_LOST_TOP1 = 1.0
#: Share by which the root mean square error of depth may grow.
MOST_GROWN_RMSE = 0.02
#: Pairs of runs that a ratio of times is taken from, at least.
PAIRS = 20
Run = Callable[[np.ndarray], Sequence[np.ndarray]]


class DataCheck:
    """The first images of the test data set of a config, as an exported file takes them.

    They come from the pipeline and the data preprocessor of the config. A file of one size gets
    them resized to it (bilinear), and its outputs are resized back: the model in torch, which it is
    compared with, gets the very same arrays. Windows and flips of the test are left out.

    Args:
        cfg: Config of the stitched model.
        model: The model.
        metadata: What is to be exported.
        count: Number of images.

    Raises:
        FileNotFoundError: If the data set is not there.
        ValueError: If the config has no test data set, or the number is not possible.

    Attributes:
        images: Batches of one image.
    """

    def __init__(
        self, cfg: Config, model: nn.Module, metadata: ModelMetadata, count: int
    ) -> None:
        if count < 1:
            raise ValueError(f'--check-data {count}: give the number of images, 1 or more.')
        if cfg.get('test_dataloader') is None:
            raise ValueError('The config has no test_dataloader, so no images to check on.')
        self._model, self._metadata = without_augmentation(model), metadata
        self._scope = cfg.get('default_scope') or 'mmseg'
        with DefaultScope.overwrite_default_scope(self._scope):
            dataset = DATASETS.build(copy.deepcopy(cfg.test_dataloader.dataset))
            given = cfg.get('test_evaluator') if metadata.task != 'features' else None
            self._evaluator = None if given is None else Evaluator(copy.deepcopy(given))
        if not len(dataset):
            raise ValueError('The test data set of the config holds no images.')
        if self._evaluator is not None:
            self._evaluator.dataset_meta = dataset.metainfo
        self._data = [pseudo_collate([dataset[one]]) for one in range(min(count, len(dataset)))]
        self._sizes: list[tuple[int, int]] = []
        self.images = [self._as_input(data) for data in self._data]

    def _as_input(self, data: dict[str, Any]) -> np.ndarray:
        """An image as the file takes it; its size before that is noted."""
        if self._metadata.preprocessing:
            picture = data['inputs'][0].permute(1, 2, 0).numpy()
            picture = picture[..., ::-1] if self._metadata.channel_order == 'rgb' else picture
            self._sizes.append(picture.shape[:2])
            return np.ascontiguousarray(picture[None])
        processed = self._model.data_preprocessor(data, False)
        data.update(processed)
        inputs = processed['inputs'].float()
        self._sizes.append(tuple(inputs.shape[-2:]))
        return _resize(inputs, self._input_size(self._sizes[-1])).numpy()

    def _input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        if not self._metadata.dynamic_size:
            return tuple(self._metadata.image_size)
        patch = find_stitched_backbone(self._model).patch_size
        return tuple(max(2, round(side / patch)) * patch for side in size)

    def score(self, place: Path, base: Path, report: Callable[[str], None]) -> dict[str, Any]:
        """Score and time a file, under its cheapest and its costliest stitch.

        Args:
            place: The file.
            base: The file in float32 that it was made from, timed in turn with it.
            report: Called with a line for each stitch.

        Returns:
            Entries of the checks by name of the stitch: ``metrics`` of the file,
            ``metrics_in_torch``, and with one thread ``ms`` (median for one image), ``ms_of_fp32``
            and ``time_of_fp32``, the median of what pairs of runs took one over the other.

        Raises:
            ValueError: If a file in int8 loses more mIoU or accuracy than it may.
        """
        entries = sorted(self._metadata.stitches, key=lambda entry: entry.flops)
        names = [entry.name for entry in self._metadata.stitches]
        run, run_base, found = runner_of(place, 1), runner_of(base, 1), {}
        for entry in {one.name: one for one in (entries[0], entries[-1])}.values():
            number = names.index(entry.name)
            with one_thread():
                times = times_in_turn(
                    lambda images, number=number: run(images, number),
                    lambda images, number=number: run_base(images, number),
                    self.images,
                )
            found[entry.name] = dict(times, images=len(self.images))
            line = '{}: {ms:.3g} ms with one thread, {time_of_fp32:.2f} of fp32'.format(
                f'{place.name} under {entry.name}', **times
            )
            if self._evaluator is not None:
                line += self._compare_metrics(
                    lambda images, number=number: run(images, number), entry.name, found
                )
            report(line)
            _check_loss(place, found[entry.name])
        return dict(data=found)

    def _compare_metrics(self, run: Run, stitch: str, found: dict[str, Any]) -> str:
        """Note the metrics of a file and of the model in torch; returns them as words."""
        module = inference_of(self._model, self._metadata, stitch)

        def in_torch(images: np.ndarray) -> list[np.ndarray]:
            with torch.no_grad():
                return [module(torch.from_numpy(images)).numpy()]

        mine, theirs = self._metrics(run), self._metrics(in_torch)
        found[stitch] |= dict(metrics=mine, metrics_in_torch=theirs)
        key = next((one for one in ('mIoU', 'accuracy/top1') if one in mine), None)
        key = key or next(iter(mine), None)
        return f'; {key} {mine[key]:.4g}, in torch {theirs[key]:.4g}' if key else ''

    def _metrics(self, run: Run) -> dict[str, float]:
        """Metrics of the config's evaluator over the images."""
        for data, images, size in zip(self._data, self.images, self._sizes):
            maps, samples = torch.from_numpy(np.asarray(run(images)[0])), data['data_samples']
            if self._metadata.task == 'classification':
                samples = self._model.head._get_predictions(maps, copy.deepcopy(samples))
                self._evaluator.process(data_samples=samples, data_batch=data)
                continue
            if not maps.is_floating_point():  # labels, as the logits that would give them
                classes = max(len(self._metadata.classes), int(maps.max()) + 1, 2)
                maps = functional.one_hot(maps.long(), classes).permute(0, 3, 1, 2).float()
            samples = self._model.postprocess_result(_resize(maps, size), copy.deepcopy(samples))
            self._evaluator.process(data_samples=samples, data_batch=data)
        with DefaultScope.overwrite_default_scope(self._scope), quiet_logs():
            metrics = self._evaluator.evaluate(len(self._data))
        return {key: float(value) for key, value in metrics.items() if np.isfinite(value)}


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread for the length of a ``with`` block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def times_in_turn(
    run: Run,
    run_base: Run,
    batches: Sequence[np.ndarray],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Times of two files on the same images, such that load of the machine meets both alike.

    They run right behind each other, every other time the second one first; their ratio is that
    of the pairs, not of the medians, which may come from different minutes.

    Args:
        run: Outputs of a file.
        run_base: Outputs of the other.
        batches: Images, taken in turn.
        clock: Seconds.

    Returns:
        Medians ``ms``, ``ms_of_fp32`` of the other, and ``time_of_fp32``, the ratio.
    """
    for call in (run, run_base):
        call(batches[0])
    pairs: list[tuple[float, float]] = []
    for number in range(max(PAIRS, len(batches))):
        images, took = batches[number % len(batches)], {}
        for call in (run, run_base) if number % 2 else (run_base, run):
            start = clock()
            call(images)
            took[call] = 1000 * (clock() - start)
        pairs.append((took[run], took[run_base]))
    return dict(
        ms=statistics.median(mine for mine, _ in pairs),
        ms_of_fp32=statistics.median(base for _, base in pairs),
        time_of_fp32=statistics.median(mine / base for mine, base in pairs),
    )


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return functional.interpolate(maps, size, mode='bilinear', align_corners=False)


def _check_loss(place: Path, found: dict[str, Any]) -> None:
    """Refuse a file that lost too much of its metric.

    Raises:
        ValueError: If it did.
    """
    mine, theirs = found.get('metrics', {}), found.get('metrics_in_torch', {})
    one_image = 100 / found['images'] + 1e-4  # metrics are rounded in single precision
    bars = {'mIoU': MOST_LOST_MIOU, 'accuracy/top1': max(MOST_LOST_TOP1, one_image)}
    for name, most in bars.items():
        if name not in mine or name not in theirs:
            continue
        lost = theirs[name] - mine[name]
        if lost > most:
            raise ValueError(
                f'{place.name} loses {lost:.2f} {name} on the data ({mine[name]:.2f} of '
                f'{theirs[name]:.2f}); {most:.3g} is the most.'
            )
    if {'rmse'} <= set(mine) & set(theirs) and theirs['rmse'] > 0:
        grown = mine['rmse'] / theirs['rmse'] - 1
        if grown > MOST_GROWN_RMSE:
            raise ValueError(
                f'{place.name} has {100 * grown:.1f} % more rmse on the data ({mine["rmse"]:.4g}, '
                f'in torch {theirs["rmse"]:.4g}); {100 * MOST_GROWN_RMSE:g} % is the most.'
            )
