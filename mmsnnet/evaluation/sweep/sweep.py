"""Scores the stitches of a trained model, and can be taken up again where it was killed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.runner import Runner
from torch import nn

from mmsnnet.models import check_loaded, find_predicting_backbone, without_augmentation
from mmsnnet.models.host.head_statistics import STATISTICS_NAME
from mmsnnet.models.host.head_weights import check_heads_loaded
from mmsnnet.results.folder_lock import FolderLock
from mmsnnet.results.records import RECORDS_NAME, stitch_fields
from mmsnnet.results.results_folder import ResultsFolder, open_results
from mmsnnet.results.run_file import RUN_NAME, check_fingerprint, describe_space
from mmsnnet.stitching import CostTable, Stitch

from ..cost.model_cost import model_costs
from ..front.guide import GuideOptions
from ..front.guide_file import GUIDE_NAME, GuideFile
from ..front.guided_sweep import GuidedSweep
from ..front.race import RaceOptions
from ..front.race_file import RACE_NAME, RaceFile
from ..front.race_sweep import Race, check_can_race, first_metric
from ..front.statistics_folder import StatisticsFolder, discard_statistics
from .batches import batch_indices, load_batches, reason_against_order
from .one_pass_sweep import OnePassSweep, in_cheapest_order
from .processes import broadcast, failing_together, gather
from .progress import Progress, ProgressHook
from .run_identity import run_fingerprint
from .shards import ShardFolder, discard_shards
from .sweep_config import METRIC_KEYS
from .sweep_options import SweepOptions, share_of


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


def _check_finite(model: nn.Module, checkpoint: str) -> None:
    """Refuse weights that are no numbers: metrics score what they predict all the same.

    Raises:
        ValueError: If a parameter or a buffer holds NaN.
    """
    broken = [
        name
        for name, value in model.state_dict().items()
        if value.is_floating_point() and bool(value.isnan().any())
    ]
    if broken:
        raise ValueError(
            f'Checkpoint {checkpoint} holds NaN in {len(broken)} weights, such as {broken[0]}: its '
            'training diverged; give an earlier one.'
        )


class StitchSweep:
    """Scores stitches and records each as soon as it is final.

    Args:
        runner: Runner of a config that :func:`prepare_config` made ready; its checkpoint is
            loaded here.
        seed: Of what a new results folder draws at random: resamples of images, and the order of
            images of a race.

    Raises:
        ValueError: If the checkpoint is of another backbone, cannot be read or holds NaN, stitches
            were never fitted, or heads do not fit the backbone.
    """

    def __init__(self, runner: Runner, seed: int = 0) -> None:
        self.runner = runner
        self.seed = seed
        self.loop = runner.test_loop
        self.backbone = find_predicting_backbone(runner.model)
        _load_checkpoint(runner)
        check_loaded(self.backbone, runner.cfg.load_from)
        # Of one copy of an image, if the test augments it.
        model = without_augmentation(runner.model)
        self.costs: CostTable = model_costs(model, self.backbone.img_size)
        # Behind the costs, which say what to write where heads do not fit the backbone.
        check_heads_loaded(model, str(runner.cfg.load_from))
        _check_finite(model, runner.cfg.load_from)
        self.directory: Path | None = None
        self.results: ResultsFolder | None = None
        self._fingerprint: dict[str, Any] = {}
        self._race: RaceOptions | None = None
        self._race_file: RaceFile | None = None
        self._guide: GuideOptions | None = None
        self._guide_file: GuideFile | None = None
        self._order_seed: int | None = None
        self._lock: FolderLock | None = None

    def open(
        self,
        directory: str,
        overwrite: bool = False,
        more: Mapping[str, Any] | None = None,
        merging: Sequence[str] = (),
        race: RaceOptions | None = None,
        alone: bool = True,
        guide: GuideOptions | None = None,
    ) -> None:
        """Open the results folder; the last thing that can be refused before scoring.

        Args:
            directory: Results folder.
            overwrite: Whether to discard results that are there.
            more: Further facts that results depend on.
            merging: Folders to :meth:`merge` later, to be refused before anything is written.
            race: Let stitches race; None to score all of them on all images. A race that was begun
                in the folder is then continued as that, with the stitches that it dropped.
            alone: Whether no other run may write to the folder meanwhile; False for a share of
                the work.
            guide: Score a few stitches, chosen by what is known of others; None to score all.

        Raises:
            FileNotFoundError: If there is no such folder of results to merge.
            ValueError: If this folder or one of those holds results of another run, of another
                race or guided search, or the images of a full sweep that are to be continued as a
                race, or another process writes to it.
        """
        self.directory = Path(directory)
        if race is not None:
            check_can_race(self.loop.evaluator, len(self.loop.dataloader.dataset))
            race = replace(race, metric=race.metric or first_metric(self.loop.evaluator))
        self._race, self._guide = race, guide
        gather(None)  # until then processes may read what is to be discarded
        with failing_together():
            if is_main_process():
                self._open(overwrite, more or {}, merging, alone)
        race_file = self._race_file
        self._order_seed = broadcast(None if race_file is None else race_file.settings.get('seed'))

    def _open(
        self, overwrite: bool, more: Mapping[str, Any], merging: Sequence[str], alone: bool
    ) -> None:
        cfg, dataset = self.runner.cfg, self.loop.dataloader.dataset
        self._fingerprint = {**run_fingerprint(cfg, cfg.load_from, dataset), **more}
        for folder in merging:
            self._check_merging(Path(folder))
        if alone and not self.directory.is_file():
            self._lock = FolderLock(self.directory)
        try:
            self._open_results(overwrite)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other runs write to the results folder; the end of the process does so too."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _open_results(self, overwrite: bool) -> None:
        cfg = self.runner.cfg
        details = {
            'checkpoint': str(cfg.load_from),
            'image_size': list(self.backbone.img_size),
            'space': describe_space(self.backbone.space),
            'test_loop': {key: cfg.test_cfg.get(key) for key in METRIC_KEYS},
            'seed': self.seed,
        }
        # Without its description it is unknown of what run these are.
        nameless = not any((self.directory / n).exists() for n in (RUN_NAME, RECORDS_NAME))
        if overwrite or nameless:
            for name in (RACE_NAME, GUIDE_NAME):
                (self.directory / name).unlink(missing_ok=True)
            discard_shards(self.directory)
            discard_statistics(self.directory)
            (self.directory / STATISTICS_NAME).unlink(missing_ok=True)
        race_file = self._checked_race()
        guide_file = GuideFile(self.directory, asdict(self._guide) if self._guide else None)
        self.results = open_results(self.directory, self._fingerprint, overwrite, details)
        for file, options in ((race_file, self._race), (guide_file, self._guide)):
            if options is not None:
                file.save()
        self._race_file, self._guide_file = race_file, guide_file

    def _checked_race(self) -> RaceFile:
        """The race of the folder, which must be the one that is wanted, if any is.

        Raises:
            ValueError: If it is another, or a full sweep is not finished.
        """
        begun = (self.directory / RACE_NAME).is_file()
        settings = {} if self._race is None else asdict(self._race)
        race_file = RaceFile(self.directory, settings)
        if begun and settings:
            race_file.check(settings)
        if settings and not begun and not ShardFolder(self.directory, self._num_batches).is_empty:
            raise ValueError(
                f'{self.directory} holds images of a full sweep that is not finished: finish it '
                'without --front, or race in another folder.'
            )
        if begun and not settings and race_file.dropped and self._guide is None:
            self.runner.logger.warning(
                f'{len(race_file.dropped)} stitches that the race in {self.directory} dropped are '
                'wanted in full: they go on where they were dropped.'
            )
        return race_file

    @property
    def _num_batches(self) -> int:
        return len(batch_indices(self.loop.dataloader))

    @property
    def dropped(self) -> dict[str, dict[str, Any]]:
        """What the race in the folder dropped, by name; in the main process alone."""
        return {} if self._race_file is None else dict(self._race_file.dropped)

    @property
    def not_looked_at(self) -> GuideFile | None:
        """The guided search of the folder if it has ended, else None; in the main process alone."""
        has_ended = self._guide_file is not None and self._guide_file.reason is not None
        return self._guide_file if has_ended else None

    def merge(self, directories: Sequence[str]) -> None:
        """Take in the results of other folders, whole and partial; of the same run alone.

        Raises:
            FileNotFoundError: If there is no such folder of results.
            ValueError: If it holds results of another run.
        """
        with failing_together():
            if self.results is not None:
                self._merge(directories)

    def _merge(self, directories: Sequence[str]) -> None:
        batches = self._num_batches
        shards = ShardFolder(self.directory, batches, discard_damaged=True)
        for directory in map(Path, directories):
            self._check_merging(directory)
            for record in ResultsFolder(directory).records:
                if record['name'] not in self.results:
                    StatisticsFolder(self.directory).take_in(directory, record['name'])
                    self.results.append(record)
            shards.take_in(ShardFolder(directory, batches))
        # Whoever was killed before may have left what is of no more use.
        shards.discard(record['name'] for record in self.results.records)

    def _check_merging(self, directory: Path) -> None:
        if not (directory / RUN_NAME).is_file():
            raise FileNotFoundError(f'{directory} holds no results of a sweep.')
        check_fingerprint(directory, self._fingerprint)
        if (directory / RACE_NAME).is_file() or (self.directory / RACE_NAME).is_file():
            raise ValueError(
                f'{directory} cannot be merged into {self.directory}: images of a race come in '
                'an order of their own.'
            )

    def share(self, stitches: Sequence[Stitch], options: SweepOptions) -> list[Stitch]:
        """Stitches of this share of the work: all of them if images are dealt out."""
        if options.share_by == 'images':
            return list(stitches)
        names = set(share_of(in_cheapest_order(self.backbone.space, stitches), *options.share))
        return [stitch for stitch in stitches if stitch.name in names]

    def pending(self, stitches: Sequence[Stitch]) -> list[Stitch]:
        """Stitches without a record that no race dropped, the same in all processes.

        None after the end of a guided search, if the sweep is guided.
        """
        names = None
        if self.results is not None:
            done = {record['name'] for record in self.results.records}
            done |= set() if self._race is None else self.dropped.keys()
            if self._guide is not None and self.not_looked_at is not None:
                done |= {stitch.name for stitch in stitches}
            names = [stitch.name for stitch in stitches if stitch.name not in done]
        return [self.backbone.space[name] for name in broadcast(names)]

    def run(
        self,
        stitches: Sequence[Stitch],
        options: SweepOptions | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Score stitches that have no record yet.

        Args:
            stitches: What to score.
            options: How.
            progress: Called while it goes on.

        Raises:
            ValueError: If a share of the work is wanted of what cannot be done in one pass, or an
                image cannot be read; it is named.
        """
        runner, progress = self.runner, progress or Progress()
        hook = ProgressHook(progress)
        runner.register_hook(hook)
        invalid: set[str] = set()
        # A stitch that predicts NaN is recorded so; the others are scored.
        self.loop.on_nan = lambda stitch, _: invalid.add(stitch.name)
        runner.call_hook('before_test')
        runner.call_hook('before_test_epoch')
        runner.model.eval()
        options = options or SweepOptions()
        apart = self._runs_apart(options)
        for chosen in self._sets(stitches, apart):
            self._score(chosen, options, apart, progress.after(hook.num_batches), invalid)
        runner.call_hook('after_test_epoch', metrics={})
        runner.call_hook('after_test')
        del self.loop.on_nan
        runner.hooks.remove(hook)

    def _runs_apart(self, options: SweepOptions) -> bool:
        """Whether stitches run one by one, as they are wanted to or have to.

        Raises:
            ValueError: If they have to although they race, or are to do a share of the work.
        """
        if self._guide is not None and options.is_share:
            raise ValueError('A guided search chooses by all results so far, not those of a share.')
        reason = self.loop.reason_against_one_pass or reason_against_order(self.loop.dataloader)
        if reason and options.is_share and not options.one_by_one:
            raise ValueError(f'The work cannot be done in shares: {reason}.')
        if reason and not options.one_by_one:
            self.runner.logger.warning(f'Stitches are scored one after the other: {reason}.')
        apart = options.one_by_one or bool(reason)
        if apart and self._race is not None:
            raise ValueError(f'Stitches cannot race: {reason or "they run one by one"}.')
        return apart

    def _sets(self, stitches: Sequence[Stitch], apart: bool) -> Iterable[Sequence[Stitch]]:
        """What to score, one set after the other; a single one without a guided search."""
        if self._guide is not None:
            guided = GuidedSweep(
                self.backbone.space, self.costs.flops, self._guide, self.results,
                self._guide_file, self._race_file, not apart,
            )  # fmt: skip
            return guided.sets(stitches)
        with failing_together():
            if self._race is not None and self._guide_file and self._guide_file.sets:
                # The looks of the race were those of the last set alone.
                self._race_file.begin_looks()
                self._guide_file.discard()
        return [stitches]

    def _score(
        self,
        stitches: Sequence[Stitch],
        options: SweepOptions,
        apart: bool,
        progress: Progress,
        invalid: set[str],
    ) -> None:
        if apart:
            progress.on_start(len(stitches) * len(self.loop.dataloader))
            self._score_one_by_one(stitches, progress, invalid)
            return
        sweep = OnePassSweep(
            self.loop, self.directory, self.backbone.space, options, self._order_seed
        )
        before = 0
        if self._race is not None:
            race = Race(sweep, self._race, self.costs, self._race_file)
            before, stitches = race.run(stitches, self._scored(), invalid, progress)
        sweep.run(
            sweep.plan(stitches), invalid, lambda runs: progress.on_start(before + runs)
        )
        if options.is_share:
            return
        sweep.finish(stitches, partial(self._finish, progress))
        with failing_together():
            if self.results is not None:
                names = [record['name'] for record in self.results.records]
                self._race_file.take_out(names)
                sweep.shards.discard(names)

    def _scored(self) -> list[Stitch]:
        """Stitches that have a record; the same in all processes."""
        names = None
        if self.results is not None:
            names = [record['name'] for record in self.results.records]
        return [self.backbone.space[name] for name in broadcast(names)]

    def _score_one_by_one(
        self, stitches: Sequence[Stitch], progress: Progress, invalid: set[str]
    ) -> None:
        loader = self.loop.dataloader
        self.loop.dataloader = load_batches(loader)
        try:
            for stitch in stitches:
                metrics = self.loop.run_stitch(stitch)
                names = set().union(*gather(set(invalid)))
                invalid.clear()
                self._finish(progress, stitch, metrics, stitch.name in names)
        finally:
            self.loop.dataloader = loader

    def _finish(
        self, progress: Progress, stitch: Stitch, metrics: Mapping[str, float], invalid: bool
    ) -> None:
        """Record a stitch; one that predicted NaN has no metrics, whatever was computed."""
        if self.results is not None:
            if invalid:
                metrics = dict.fromkeys(metrics, float('nan'))
                self.runner.logger.warning(
                    f'{stitch.name} predicts NaN for some images and is recorded without metrics: '
                    'look at its weights and at fp16.'
                )
            fields = stitch_fields(stitch, self.costs[stitch])
            record = self.results.append({**fields, 'metrics': dict(metrics)})
            self._guide_file.take_out([stitch.name])
            progress.on_stitch(stitch, record['metrics'])
