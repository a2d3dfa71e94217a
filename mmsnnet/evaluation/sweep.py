"""Scores the stitches of a trained model, one after the other, and can be taken up again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmsnnet.compat import prepare_cpu_launch
from mmsnnet.models import check_fitted, find_stitched_backbone
from mmsnnet.stitching import CostTable, Stitch

from .model_cost import model_costs
from .records import ResultsFolder, open_results
from .run_identity import run_fingerprint

#: What a loop of mmsnnet is told about the metric that sums a stitch up.
_METRIC_KEYS = ('metric', 'rule', 'metric_range')


def prepare_config(cfg: Config, checkpoint: str, work_dir: str) -> Config:
    """Make a config test stitches with a checkpoint.

    The loop becomes ``StitchTestLoop``; what the config says of its metric, for test or for
    validation, is kept.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the config describes no test.
    """
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f'There is no checkpoint {checkpoint}.')
    if cfg.get('test_dataloader') is None or cfg.get('test_evaluator') is None:
        raise ValueError('The config has no test_dataloader and test_evaluator to score with.')
    test_cfg = dict(cfg.get('test_cfg') or {})
    known = {**dict(cfg.get('val_cfg') or {}), **test_cfg}
    cfg.test_cfg = dict(
        type='StitchTestLoop',
        stitches='all',
        fp16=test_cfg.get('fp16', False),
        **{key: known[key] for key in _METRIC_KEYS if key in known},
    )
    cfg.load_from, cfg.resume, cfg.work_dir = checkpoint, False, work_dir
    # A line per iteration of each of a hundred passes would bury what matters.
    cfg.log_level = 'WARNING'
    prepare_cpu_launch(cfg)
    return cfg


class _Advance(Hook):
    """Calls back after every batch."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def after_test_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Call back."""
        self._callback()


def _load_checkpoint(runner: Runner) -> None:
    """Load what the config names.

    Raises:
        ValueError: If the file is of another backbone, or no checkpoint at all.
    """
    try:
        runner.call_hook('before_run')
        runner.load_or_resume()
    except (ValueError, TypeError, OSError):
        raise
    except Exception as error:  # pickle raises whatever the bytes of a file happen to mean
        reason = (str(error).strip() or 'no reason given').splitlines()[0]
        raise ValueError(
            f'Checkpoint {runner._load_from} cannot be read ({type(error).__name__}: {reason}).'
        ) from error


class StitchSweep:
    """Scores stitches and records each as soon as it is final.

    Args:
        runner: Runner of a config that :func:`prepare_config` made ready; its checkpoint is
            loaded here.

    Raises:
        ValueError: If the checkpoint is of another backbone or cannot be read, stitches were never
            fitted, or heads do not fit the backbone.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.loop = runner.test_loop
        self.backbone = find_stitched_backbone(runner.model)
        _load_checkpoint(runner)
        check_fitted(self.backbone)
        self.costs: CostTable = model_costs(runner.model, self.backbone.img_size)
        self.results: ResultsFolder | None = None

    def open(self, directory: str, overwrite: bool = False) -> None:
        """Open the results folder; the last thing that can be refused before scoring.

        Args:
            directory: Results folder.
            overwrite: Whether to discard results that are there.

        Raises:
            ValueError: If the folder holds results of another run.
        """
        cfg = self.runner.cfg
        barrier()  # until then processes may read what is to be discarded
        if is_main_process():
            fingerprint = run_fingerprint(cfg, cfg.load_from, self.loop.dataloader.dataset)
            details = {
                'checkpoint': str(cfg.load_from),
                'image_size': list(self.backbone.img_size),
                'test_loop': {key: cfg.test_cfg.get(key) for key in _METRIC_KEYS},
            }
            self.results = open_results(directory, fingerprint, overwrite, details)

    def pending(self, stitches: Sequence[Stitch]) -> list[Stitch]:
        """Stitches without a record, the same in all processes."""
        names = [None]
        if self.results is not None:
            names = [[stitch.name for stitch in stitches if stitch.name not in self.results]]
        broadcast_object_list(names)
        return [self.backbone.space[name] for name in names[0]]

    def run(
        self,
        stitches: Sequence[Stitch],
        on_batch: Callable[[], None] = lambda: None,
        on_stitch: Callable[[Stitch, Mapping[str, float]], None] = lambda stitch, metrics: None,
    ) -> None:
        """Score stitches that have no record yet.

        Args:
            stitches: What to score.
            on_batch: Called after each batch.
            on_stitch: Called in the main process with each stitch and its metrics.
        """
        runner = self.runner
        advance = _Advance(on_batch)
        runner.register_hook(advance, priority='LOWEST')
        runner.call_hook('before_test')
        runner.call_hook('before_test_epoch')
        runner.model.eval()
        for stitch in stitches:
            metrics = self.loop.run_stitch(stitch)
            if self.results is not None:
                self.results.append(self._record(stitch, metrics))
                on_stitch(stitch, metrics)
        runner.call_hook('after_test_epoch', metrics={})
        runner.call_hook('after_test')
        runner.hooks.remove(advance)

    def _record(self, stitch: Stitch, metrics: Mapping[str, float]) -> dict[str, Any]:
        cost = self.costs[stitch]
        return dict(
            id=stitch.id,
            name=stitch.name,
            family=stitch.family,
            flops=cost.flops,
            params=cost.params,
            metrics=dict(metrics),
        )
