"""Sets the stitch of every training iteration."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from mmsnnet.engine.rng_state import capture_rng_state, restore_rng_state
from mmsnnet.engine.runner_compile import refuse_runner_compile
from mmsnnet.models import build_sampler, find_stitched_backbone
from mmsnnet.models.host.head_check import check_channels
from mmsnnet.registry import HOOKS

_KEY = 'stitch_rng_states'
_SEED_KEY = 'stitch_data_seed'


@HOOKS.register_module()
class StitchSamplingHook(Hook):
    """Sets the stitch that each training iteration runs, and makes training repeatable.

    The stitch follows from (seed, iteration) alone. Logged are its FLOPs and the running loss of
    its family with the scalars of training, and its name in a line of its own.

    MMEngine's checkpoints hold no states of random generators. This hook adds those of every
    process, puts them back on resuming, and keeps validation from advancing them: a run resumed
    after a kill repeats the losses of an uninterrupted one, whether or not the config sets a seed.

    Args:
        sampler: Config of a sampler of ``STITCH_SAMPLERS``; None takes the backbone's own.
        log_interval: Iterations between lines that name the stitch.
    """

    # Before LoggerHook (BELOW_NORMAL), which writes what is logged here of the same iteration, and
    # before CheckpointHook (VERY_LOW), which saves the random states gathered here.
    priority = 'NORMAL'

    def __init__(self, sampler: Mapping[str, Any] | None = None, log_interval: int = 50) -> None:
        self._sampler_config = sampler
        self._log_interval = log_interval
        self._states: list[dict[str, Any]] | None = None
        self._state_before_val: dict[str, Any] | None = None
        self._resumed: list[dict[str, Any]] | None = None
        self._resumed_seed: int | None = None
        self._data_seed: int | None = None

    # -- sampling -----------------------------------------------------------------------------

    def before_run(self, runner: Runner) -> None:
        """Refuse what does not go with sampling. Called before the Runner compiles."""
        refuse_runner_compile(runner)

    def before_train(self, runner: Runner) -> None:
        """Build the sampler, after a look at whether neck and heads fit the backbone."""
        check_channels(runner.model)
        self._backbone = find_stitched_backbone(runner.model)
        config = self._sampler_config
        self._sampler = (
            self._backbone.sampler if config is None else build_sampler(self._backbone, config)
        )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Choose the stitch of this iteration."""
        self._stitch = self._sampler.sample(runner.iter, get_rank())
        self._backbone.set_training_stitch(self._stitch)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log the stitch, and gather random states where a checkpoint is about to be saved."""
        stitch = self._stitch
        gflops = self._backbone.costs[stitch].flops / 1e9
        hub = runner.message_hub
        hub.update_info('stitch', stitch.name)
        hub.update_scalar('train/stitch_gflops', gflops)
        if isinstance(outputs, Mapping) and 'loss' in outputs:
            hub.update_scalar(f'train/loss_{stitch.family}', outputs['loss'])
        if self.every_n_train_iters(runner, self._log_interval):
            runner.logger.info(
                f'Iter(train) [{runner.iter + 1}/{runner.max_iters}]  stitch: {stitch.name} '
                f'({stitch.family}, {gflops:.4g} GFLOPs)'
            )
        if _saves_after_iter(runner):
            self._gather()

    def after_train(self, runner: Runner) -> None:
        """Give the choice back to the backbone's own sampler."""
        self._backbone.set_training_stitch(None)

    # -- random states ------------------------------------------------------------------------

    def _gather(self) -> None:
        self._states = all_gather_object(self._state_before_val or capture_rng_state())

    def after_train_epoch(self, runner: Runner) -> None:
        """Gather random states: a checkpoint may be saved by epoch."""
        self._gather()

    def before_val(self, runner: Runner) -> None:
        """Remember the random states, which loaders of validation advance."""
        self._state_before_val = capture_rng_state()

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        """Gather random states: a best checkpoint may be saved."""
        self._gather()

    def after_val(self, runner: Runner) -> None:
        """Put the random states back, so that validation leaves no trace in training."""
        if self._state_before_val is not None:
            restore_rng_state(self._state_before_val)
            self._state_before_val = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the random states of all processes, and the seed of the order of the data.

        Called in the first process alone.
        """
        checkpoint[_SEED_KEY] = self._data_seed
        states = self._states
        if get_world_size() == 1:
            states = [self._state_before_val or capture_rng_state()]
        if states is None:
            runner.logger.warning(
                'This checkpoint holds no random states of other processes, since it was saved at '
                'an unexpected moment; a run resumed from it draws other augmentations.'
            )
            return
        checkpoint[_KEY] = states
        self._states = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the random states of a checkpoint for when its data have been skipped."""
        self._resumed = checkpoint.get(_KEY) if runner._resume else None
        self._resumed_seed = checkpoint.get(_SEED_KEY) if runner._resume else None

    def before_train_epoch(self, runner: Runner) -> None:
        """On resuming, restore the random states once the loop has skipped the data seen."""
        if self._resumed_seed is not None:
            _reseed_data(runner.train_loop, self._resumed_seed)
            self._resumed_seed = None
        self._data_seed = getattr(_data_sampler(runner.train_loop), 'seed', None)
        if self._resumed is None:
            return
        states, self._resumed = self._resumed, None
        if len(states) != get_world_size():
            runner.logger.warning(
                f'The checkpoint holds random states of {len(states)} processes and there are '
                f'{get_world_size()} now: augmentations will differ from an uninterrupted run.'
            )
            return

        def restore() -> None:
            restore_rng_state(states[get_rank()])

        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            restore()
        else:
            # The loop now fetches all batches seen before, which draws random numbers again.
            loop.dataloader_iterator = _call_before(loop.dataloader_iterator, loop.iter, restore)


def _data_sampler(loop: BaseLoop) -> Any:
    return getattr(loop.dataloader.batch_sampler, 'sampler', None)


def _reseed_data(loop: BaseLoop, seed: int) -> None:
    """Let a training loop read its data in the order of a seed.

    MMEngine restores a seed that it drew by itself only after the sampler was built with another.
    """
    sampler = _data_sampler(loop)
    if getattr(sampler, 'seed', seed) == seed:
        return
    sampler.seed = seed
    if hasattr(sampler, '_indices_of_rank'):  # InfiniteSampler, begun already if there are workers
        sampler.indices = sampler._indices_of_rank()
    if hasattr(loop, 'dataloader_iterator'):
        loop.dataloader_iterator = type(loop.dataloader_iterator)(loop.dataloader)


def _call_before(iterator: Iterator, count: int, action: Callable[[], None]) -> Iterator:
    """Iterate, calling ``action`` once just before the item number ``count``."""
    yield from itertools.islice(iterator, count)
    action()
    yield from iterator


def _saves_after_iter(runner: Runner) -> bool:
    """Whether a checkpoint will be saved at the end of this iteration."""
    return any(
        not hook.by_epoch
        and (
            hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
            or (hook.save_last and hook.is_last_train_iter(runner))
        )
        for hook in runner.hooks
        if isinstance(hook, CheckpointHook)
    )
