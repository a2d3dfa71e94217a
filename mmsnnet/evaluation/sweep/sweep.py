"""Scores the stitches of a trained model, and can be taken up again where it was killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.runner import Runner

from mmsnnet.compat import prepare_cpu_launch
from mmsnnet.models import check_loaded, find_predicting_backbone, without_augmentation
from mmsnnet.models.host.head_statistics import STATISTICS_NAME
from mmsnnet.models.host.head_weights import check_heads_loaded
from mmsnnet.results.records import RECORDS_NAME
from mmsnnet.results.results_folder import ResultsFolder, open_results
from mmsnnet.results.run_file import RUN_NAME, check_fingerprint, describe_space
from mmsnnet.stitching import CostTable, Stitch

from ..cost.model_cost import model_costs
from .batches import batch_indices, reason_against_order
from .one_pass_sweep import OnePassSweep, in_cheapest_order
from .partial_results import PartialResults, discard_partial_results
from .run_identity import run_fingerprint
from .sweep_options import SweepOptions, part
from .watch import Watch, WatchHook

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
        self.backbone = find_predicting_backbone(runner.model)
        _load_checkpoint(runner)
        check_loaded(self.backbone, runner.cfg.load_from)
        # Of one copy of an image, if the test augments it.
        model = without_augmentation(runner.model)
        self.costs: CostTable = model_costs(model, self.backbone.img_size)
        # Behind the costs, which say what to write where heads do not fit the backbone.
        check_heads_loaded(model, str(runner.cfg.load_from))
        self.directory: Path | None = None
        self.results: ResultsFolder | None = None
        self._fingerprint: dict[str, Any] = {}

    def open(
        self, directory: str, overwrite: bool = False, more: Mapping[str, Any] | None = None
    ) -> None:
        """Open the results folder; the last thing that can be refused before scoring.

        Args:
            directory: Results folder.
            overwrite: Whether to discard results that are there.
            more: Further facts that results depend on.

        Raises:
            ValueError: If the folder holds results of another run.
        """
        cfg = self.runner.cfg
        self.directory = Path(directory)
        barrier()  # until then processes may read what is to be discarded
        if is_main_process():
            dataset = self.loop.dataloader.dataset
            self._fingerprint = {**run_fingerprint(cfg, cfg.load_from, dataset), **(more or {})}
            details = {
                'checkpoint': str(cfg.load_from),
                'image_size': list(self.backbone.img_size),
                'space': describe_space(self.backbone.space),
                'test_loop': {key: cfg.test_cfg.get(key) for key in _METRIC_KEYS},
            }
            # Without its description it is unknown of what run these are.
            nameless = not any((self.directory / n).exists() for n in (RUN_NAME, RECORDS_NAME))
            if overwrite or nameless:
                discard_partial_results(self.directory)
                (self.directory / STATISTICS_NAME).unlink(missing_ok=True)
            self.results = open_results(directory, self._fingerprint, overwrite, details)
        barrier()  # from then on processes may look into the folder

    def merge(self, directories: Sequence[str]) -> None:
        """Take in the results of other folders, whole and partial; of the same run alone.

        Raises:
            FileNotFoundError: If there is no such folder of results.
            ValueError: If it holds results of another run.
        """
        if self.results is not None:
            batches = len(batch_indices(self.loop.dataloader))
            partial = PartialResults(self.directory, batches)
            for directory in map(Path, directories):
                if not (directory / RUN_NAME).is_file():
                    raise FileNotFoundError(f'{directory} holds no results of a sweep.')
                check_fingerprint(directory, self._fingerprint)
                for record in ResultsFolder(directory).records:
                    if record['name'] not in self.results:
                        self.results.append(record)
                partial.take_in(PartialResults(directory, batches))
            # Whoever was killed before may have left what is of no more use.
            partial.discard(record['name'] for record in self.results.records)
        barrier()

    def share(self, stitches: Sequence[Stitch], options: SweepOptions) -> list[Stitch]:
        """Stitches that are for this part of the work: all of them if images are dealt out."""
        if options.share_by == 'images':
            return list(stitches)
        names = set(part(in_cheapest_order(self.backbone.space, stitches), *options.share))
        return [stitch for stitch in stitches if stitch.name in names]

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
        options: SweepOptions | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Score stitches that have no record yet.

        Args:
            stitches: What to score.
            options: How.
            watch: Is told of the progress.

        Raises:
            ValueError: If a part of the work is asked for of what cannot be done in one pass.
        """
        runner, watch = self.runner, watch or Watch()
        hook = WatchHook(watch)
        runner.register_hook(hook)
        runner.call_hook('before_test')
        runner.call_hook('before_test_epoch')
        runner.model.eval()
        self._score(stitches, options or SweepOptions(), watch)
        runner.call_hook('after_test_epoch', metrics={})
        runner.call_hook('after_test')
        runner.hooks.remove(hook)

    def _score(self, stitches: Sequence[Stitch], options: SweepOptions, watch: Watch) -> None:
        reason = self.loop.reason_against_one_pass or reason_against_order(self.loop.dataloader)
        if options.one_by_one or (reason and not options.is_part):
            if reason and not options.one_by_one:
                self.runner.logger.warning(f'Stitches are scored one after the other: {reason}.')
            watch.on_start(len(stitches) * len(self.loop.dataloader))
            for stitch in stitches:
                self._finish(stitch, self.loop.run_stitch(stitch), watch)
            return
        if reason:
            raise ValueError(f'The work cannot be done in parts: {reason}.')
        sweep = OnePassSweep(self.loop, self.directory, self.backbone.space, options)
        shards = sweep.plan(stitches)
        watch.on_start(sum(shard.num_runs for shard in shards))
        sweep.run(shards)
        if self.results is not None and not options.is_part:
            sweep.finish(stitches, lambda stitch, metrics: self._finish(stitch, metrics, watch))
            sweep.partial.discard(record['name'] for record in self.results.records)

    def _finish(self, stitch: Stitch, metrics: Mapping[str, float], watch: Watch) -> None:
        if self.results is not None:
            self.results.append(self._record(stitch, metrics))
            watch.on_stitch(stitch, metrics)

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
