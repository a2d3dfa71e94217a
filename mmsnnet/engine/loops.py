"""Validation and test loops that score several stitches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine.dist import all_gather_object, get_world_size
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner, TestLoop, ValLoop
from torch.utils.data import DataLoader

from mmsnnet.models import StitchedViT, check_fitted, find_predicting_backbone
from mmsnnet.registry import LOOPS
from mmsnnet.stitching import Stitch, select_stitches

from .front_follower import FRONT, FrontFollower
from .iteration_timers import bound_timers
from .nan_predictions import NanPredictions
from .one_pass import BatchResults, OnePass, evaluate, evaluate_alone, reason_against
from .rng_state import preserved_rng
from .scoring import Stitches, StitchScoring
from .spilled_results import MAX_BYTES, SpilledResults
from .stitch_outputs import drawn_by_stitch, written_by_stitch
from .training_checks import check_monitors

#: How numpy's error begins that MMEngine's data sets meet when they are laid out in memory.
_EMPTY = 'need at least one array'


class StitchLoop:
    """Mix-in for loops of MMEngine that scores several stitches.

    One pass over the data serves all stitches, which share what they have in common; the results
    are those of one pass each. What metrics take down of images goes to a nameless file in the work
    directory where it takes more than ``max_results`` bytes. The hooks of the whole evaluation fire
    once, those of iterations once for each stitch and batch. The active stitch and the states of
    the global random generators are restored.

    Where several stitches are scored, what metrics and hooks write of them is kept apart: files of
    metrics (``output_dir``, ``outfile_prefix``, ``out_file_path``) and drawn pictures with a file
    of their own lie in a folder of the stitch's name, pictures for a backend of the visualizer
    begin with it. Metrics that only write files (``format_only``) give files and no summary.

    Args:
        runner: The runner.
        dataloader: Data loader, or the config of one.
        evaluator: Evaluator, or the config of its metrics.
        fp16: Whether to run under autocast.
        stitches: See :class:`StitchScoring`; None takes the default of the loop.
        metric: See :class:`StitchScoring`.
        rule: See :class:`StitchScoring`.
        metric_range: See :class:`StitchScoring`.
        one_pass: Whether stitches are scored together; else one after the other.
        max_memory: Most bytes of features kept for other stitches in one pass; None for no bound.

    Raises:
        ValueError: If the data set is empty, or :class:`StitchScoring` refuses its arguments.
    """

    mode: str
    default_stitches: Stitches
    max_results = MAX_BYTES

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        fp16: bool = False,
        stitches: Stitches | None = None,
        metric: str | None = None,
        rule: str = 'greater',
        metric_range: tuple[float, float] = (0.0, 100.0),
        one_pass: bool = True,
        max_memory: float | None = None,
    ) -> None:
        with _naming_empty_data(f'{self.mode}_dataloader'):
            super().__init__(runner, dataloader, evaluator, fp16)
            if len(self.dataloader.dataset) == 0:
                raise ValueError(_EMPTY)
        self.one_pass = one_pass
        self.max_memory = max_memory
        backbone = find_predicting_backbone(runner.model)
        wanted = self.stitches_to_score(backbone, stitches)
        self.scoring = StitchScoring(runner, backbone, wanted, metric, rule, metric_range)
        self.scoring.check_metric(self.evaluator)
        self._nan = NanPredictions(runner.model)
        self._nan_stitches: set[str] = set()

    def stitches_to_score(self, backbone: StitchedViT, stitches: Stitches | None) -> Stitches:
        """What to score where ``stitches`` may be None."""
        return self.default_stitches if stitches is None else stitches

    def run(self) -> dict[str, Any]:
        """Score the stitches and return their metrics, those of the summary first.

        Raises:
            ValueError: If stitches were never fitted, or no stitch has the metric of the summary.
        """
        self.runner.call_hook(f'before_{self.mode}')
        self.runner.call_hook(f'before_{self.mode}_epoch')
        self.runner.model.eval()
        check_fitted(self.scoring.backbone)
        bound_timers(self.runner, self.mode)
        self._nan_stitches.clear()
        with preserved_rng():
            scores = {}
            for stitch, values in self.run_stitches(self.scoring.stitches):
                self.scoring.log(stitch, values)
                scores[stitch] = values
        metrics = self.summarise(self._without_nan(scores))
        self.runner.call_hook(f'after_{self.mode}_epoch', metrics=metrics)
        self.runner.call_hook(f'after_{self.mode}')
        return metrics

    def summarise(self, scores: dict[Stitch, dict[str, Any]]) -> dict[str, Any]:
        """Metrics of the summary and of every stitch; see :class:`StitchScoring`."""
        return self.scoring.summarise(scores, self.evaluator)

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Run the active stitch on a batch and hand its outputs to the evaluator."""
        with self._written_apart(), self._nan.watching():
            super().run_iter(idx, data_batch)
        if self._nan.found():
            self.on_nan(self.scoring.backbone.stitch, idx)

    def on_nan(self, stitch: Stitch, idx: int) -> None:
        """Called where features or predictions of a stitch for a batch hold NaN.

        Raises:
            ValueError: Always; a loop may do otherwise.
        """
        raise ValueError(
            f'Stitch {stitch.name}: its features or predictions of batch {idx} hold NaN; check the '
            'weights of the checkpoint, or leave the stitch out.'
        )

    def _without_nan(
        self, scores: dict[Stitch, dict[str, Any]]
    ) -> dict[Stitch, dict[str, Any]]:
        """Scores of stitches, NaN for those that predicted NaN in any process."""
        names = set().union(*all_gather_object(self._nan_stitches))
        if names:
            self.runner.logger.warning(
                f'Features or predictions of {len(names)} of {len(scores)} stitches hold NaN '
                f'({", ".join(sorted(names))}), which their metrics are set to.'
            )
        return {
            stitch: dict.fromkeys(values, math.nan) if stitch.name in names else values
            for stitch, values in scores.items()
        }

    @contextmanager
    def _written_apart(self) -> Iterator[None]:
        """Keep what is written of the active stitch apart from that of others."""
        if len(self.scoring.stitches) == 1:
            yield
            return
        backbone = self.scoring.backbone
        with written_by_stitch(self.evaluator, backbone.stitch.name), drawn_by_stitch(
            self.runner.visualizer, backbone
        ):
            yield

    @property
    def reason_against_one_pass(self) -> str | None:
        """Why stitches can only be scored one after the other, None if it is not so."""
        return reason_against(self.evaluator)

    def run_stitches(
        self, stitches: Sequence[Stitch]
    ) -> Iterator[tuple[Stitch, dict[str, float]]]:
        """Each stitch with its metrics over the whole data set."""
        reason = self.reason_against_one_pass
        if self.one_pass and reason is None and len(stitches) > 1:
            yield from self._run_together(stitches)
            return
        if self.one_pass and reason is not None:
            self.runner.logger.warning(f'Stitches are scored one after the other: {reason}.')
        for stitch in stitches:
            yield stitch, self.run_stitch(stitch)

    def _run_together(
        self, stitches: Sequence[Stitch]
    ) -> Iterator[tuple[Stitch, dict[str, float]]]:
        names = [stitch.name for stitch in stitches]
        with SpilledResults(names, self.runner.work_dir, self.max_results) as results:
            with self.together(stitches, self.max_memory) as one_pass:
                for index, batch in enumerate(self.dataloader):
                    results.add(one_pass.run_batch(index, batch))
            for stitch in stitches:
                yield stitch, self.evaluate(stitch, results.of(stitch.name))

    @contextmanager
    def together(
        self, stitches: Sequence[Stitch], max_memory: float | None = None
    ) -> Iterator[OnePass]:
        """What runs stitches together on batches, for the length of a ``with`` block."""
        with OnePass(self, stitches, max_memory).activate() as one_pass:
            yield one_pass

    def evaluate(self, stitch: Stitch, results: Iterable[BatchResults]) -> dict[str, float]:
        """Metrics of a stitch from the results that the evaluator's metrics took down of batches.

        In several processes each gives its own batches, and all get the metrics.
        """
        with self.scoring.backbone.use_stitch(stitch), self._written_apart():
            return evaluate(self.evaluator, results, len(self.dataloader.dataset))

    def evaluate_alone(self, stitch: Stitch, results: Iterable[BatchResults]) -> dict[str, float]:
        """Metrics of a stitch where one process has the results of all batches."""
        if get_world_size() == 1:
            return self.evaluate(stitch, results)
        with self.scoring.backbone.use_stitch(stitch), self._written_apart():
            return evaluate_alone(self.evaluator, results)

    def run_stitch(self, stitch: Stitch) -> dict[str, float]:
        """Metrics of one stitch over the whole data set, in a pass of its own."""
        with self.scoring.backbone.use_stitch(stitch):
            for index, batch in enumerate(self.dataloader):
                self.run_iter(index, batch)
            with self._written_apart():
                return self.evaluator.evaluate(len(self.dataloader.dataset))


@contextmanager
def _naming_empty_data(loader: str) -> Iterator[None]:
    """Say it in one line where MMEngine fails to lay out an empty data set in memory."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(_EMPTY):
            raise
        raise ValueError(f'The data set of {loader} is empty: check its paths.') from None


@LOOPS.register_module()
class StitchValLoop(StitchLoop, ValLoop):
    """Validation of a few stitches, by default of the anchors, which bound what lies between.

    ``stitches='front'`` follows the front instead: at every validation the anchors, the front by
    what is known so far, and a few explorers (see :class:`FrontFollowing`), within a fixed number
    of forwards. What is known lies in the work directory, for a resumed training to choose as an
    uninterrupted one (see :mod:`~mmsnnet.engine.front_state`).

    ``default_hooks.checkpoint`` with ``save_best='pareto/hypervolume', rule='greater'`` keeps the
    checkpoint of the best front (MMEngine needs the rule for metrics it does not know). Hooks and
    schedulers that wait for a metric which there will not be are refused before training.
    A stitch that predicts NaN gets NaN for its metrics, and training goes on.
    See :class:`StitchLoop` for the other arguments.

    Args:
        front: How a front is followed: ``max_forwards``, ``explorers``, ``seed`` (see
            :class:`FollowOptions`); for ``stitches='front'`` alone.

    Raises:
        ValueError: If the front is to be followed without a metric, or cannot be.
    """

    mode = 'val'
    default_stitches = 'anchors'

    def __init__(
        self, runner: Runner, *args: Any, front: Mapping[str, int] | None = None, **kwargs: Any
    ) -> None:
        follows = kwargs.get('stitches') == FRONT
        if follows:
            kwargs['stitches'] = 'anchors'
        elif front is not None:
            raise ValueError("front=dict(...) of val_cfg goes with stitches='front' alone.")
        super().__init__(runner, *args, **kwargs)
        check_monitors(runner, self)
        self._follower = FrontFollower(runner, self.scoring, front or {}) if follows else None

    def run(self) -> dict[str, Any]:
        """Score the stitches and return their metrics, those of the summary first."""
        if self._follower is not None:
            self.scoring.stitches = self._follower.choose()
        return super().run()

    def summarise(self, scores: dict[Stitch, dict[str, Any]]) -> dict[str, Any]:
        """Metrics of the summary and of every stitch; what they say of the front is noted."""
        metrics = super().summarise(scores)
        if self._follower is not None:
            self._follower.add(scores, metrics)
        return metrics

    def on_nan(self, stitch: Stitch, idx: int) -> None:
        """Note the stitch, to be named at the end."""
        self._nan_stitches.add(stitch.name)


@LOOPS.register_module()
class StitchTestLoop(StitchLoop, TestLoop):
    """Test of many stitches.

    Scored are ``stitches``; where these are None, the one that the config sets for the backbone
    (``model.backbone.stitch``); where there is none, ``default_stitches``. See :class:`StitchLoop`
    for the other arguments.

    Args:
        default_stitches: As ``stitches``, for a recipe to leave the choice open.

    Raises:
        ValueError: If the backbone's stitch is set and not among ``stitches``.
    """

    mode = 'test'

    def __init__(
        self, *args: Any, default_stitches: Stitches = 'all', **kwargs: Any
    ) -> None:
        self.default_stitches = default_stitches
        super().__init__(*args, **kwargs)

    def stitches_to_score(self, backbone: StitchedViT, stitches: Stitches | None) -> Stitches:
        """What to score where ``stitches`` may be None, or contradict the backbone's own."""
        configured = backbone.configured_stitch
        if configured is None:
            return super().stitches_to_score(backbone, stitches)
        if stitches is None:
            return configured.name
        if configured not in select_stitches(backbone.space, backbone.costs.flops, stitches):
            raise ValueError(
                f'model.backbone.stitch asks for {configured.name}, which is not among '
                f'test_cfg.stitches={stitches!r}: leave out one of them, by '
                'test_cfg.stitches=None to score the stitch of the backbone alone.'
            )
        return stitches
