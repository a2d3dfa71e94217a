"""Lets a resumed training repeat an uninterrupted one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from mmsnnet.engine.accumulated_gradients import (
    gather_gradients,
    is_accumulating,
    restore_gradients,
)
from mmsnnet.engine.rng_state import capture_rng_state, restore_rng_state

_RNG_KEY = 'stitch_rng_states'
_GRADIENTS_KEY = 'stitch_accumulated_gradients'
_SEED_KEY = 'stitch_data_seed'


class ExactResumeHook(Hook):
    """Stores with checkpoints what MMEngine leaves out, and takes it up on resuming.

    That is, of every process: the states of the random generators and, where a checkpoint is saved
    amidst the iterations of ``accumulative_counts``, the gradients accumulated so far. Further the
    seed of the order of the data. Validation is kept from advancing the random generators.
    """

    # Before CheckpointHook (VERY_LOW), which saves what is gathered here.
    priority = 'NORMAL'

    def __init__(self) -> None:
        # Of the end of an iteration or epoch: MMEngine may save several checkpoints of one.
        self._gathered: dict[str, Any] = {}
        self._state_before_val: dict[str, Any] | None = None
        self._resumed: Mapping[str, Any] = {}
        self._data_seed: int | None = None

    # -- saving -------------------------------------------------------------------------------

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Drop what was gathered of an earlier moment."""
        self._gathered = {}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Gather the state of all processes where a checkpoint is about to be saved."""
        if _saves_after_iter(runner):
            self._gather(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Gather the state of all processes: a checkpoint may be saved by epoch."""
        self._gather(runner)

    def before_val(self, runner: Runner) -> None:
        """Remember the random states, which loaders of validation advance."""
        self._state_before_val = capture_rng_state()

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        """Gather the state of all processes: a best checkpoint may be saved."""
        self._gather(runner)

    def after_val(self, runner: Runner) -> None:
        """Put the random states back, so that validation leaves no trace in training."""
        if self._state_before_val is not None:
            restore_rng_state(self._state_before_val)
            self._state_before_val = None

    def _gather(self, runner: Runner) -> None:
        """Collect what a checkpoint of this moment needs; to be called in all processes."""
        state = self._state_before_val or capture_rng_state()
        self._gathered[_RNG_KEY] = all_gather_object(state)
        if _GRADIENTS_KEY not in self._gathered and is_accumulating(runner):
            self._gathered[_GRADIENTS_KEY] = gather_gradients(runner.model)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the state of all processes, and the seed of the order of the data.

        Called in the first process alone.
        """
        checkpoint[_SEED_KEY] = self._data_seed
        if get_world_size() == 1:
            self._gather(runner)
        if not self._gathered:
            runner.logger.warning(
                'This checkpoint holds no random states of other processes, since it was saved at '
                'an unexpected moment; a run resumed from it draws other augmentations.'
            )
            return
        checkpoint[_RNG_KEY] = self._gathered[_RNG_KEY]
        # Without the optimizer, as in a best checkpoint, no run goes on exactly.
        if 'optimizer' in checkpoint and _GRADIENTS_KEY in self._gathered:
            checkpoint[_GRADIENTS_KEY] = self._gathered[_GRADIENTS_KEY]

    # -- resuming -----------------------------------------------------------------------------

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what a checkpoint holds for when the model and the data are ready for it."""
        keys = (_RNG_KEY, _SEED_KEY, _GRADIENTS_KEY)
        found = {key: checkpoint[key] for key in keys if checkpoint.get(key) is not None}
        self._resumed = found if runner._resume else {}

    def before_train_epoch(self, runner: Runner) -> None:
        """On resuming, restore the gradients, and random states once seen data are skipped."""
        resumed, self._resumed = self._resumed, {}
        loop = runner.train_loop
        if _SEED_KEY in resumed:
            _reseed_data(loop, resumed[_SEED_KEY])
        self._data_seed = getattr(_data_sampler(loop), 'seed', None)
        states, gradients = (_of_this_process(runner, resumed, key) for key in
                             (_RNG_KEY, _GRADIENTS_KEY))  # fmt: skip
        if gradients is not None:
            restore_gradients(runner.model, gradients)
            runner.logger.info('The accumulated gradients are those of the checkpoint.')
        if states is None:
            return
        if isinstance(loop, EpochBasedTrainLoop):
            restore_rng_state(states)
        else:
            # The loop now fetches all batches seen before, which draws random numbers again.
            loop.dataloader_iterator = CallBefore(
                loop.dataloader_iterator, loop.iter, lambda: restore_rng_state(states)
            )


class CallBefore:
    """Iterates over another iterator, and calls a function once, just before one of its items.

    Args:
        iterator: Iterator; its further attributes are those of this one too.
        count: Items before the call.
        action: Function to call.
    """

    def __init__(self, iterator: Iterator, count: int, action: Callable[[], None]) -> None:
        self._wrapped = iterator
        self._count = count
        self._action: Callable[[], None] | None = action

    def __iter__(self) -> CallBefore:
        return self

    def __next__(self) -> Any:
        if self._action is not None:
            if self._count == 0:
                # onedl-mmengine makes the loader's iterator at its first item only, which draws a
                # seed that an uninterrupted run drew before.
                getattr(self._wrapped, '_ensure_iterator', lambda: None)()
                action, self._action = self._action, None
                action()
            self._count -= 1
        return next(self._wrapped)

    def __getattr__(self, name: str) -> Any:
        if name == '_wrapped':  # not there yet, as while unpickling
            raise AttributeError(name)
        value = getattr(self._wrapped, name)
        return self._skipping(value) if name == 'skip_iter' else value

    def _skipping(self, skip_iter: Callable[[int], None]) -> Callable[[int], None]:
        """onedl-mmengine's loop skips items by a method rather than by ``next``."""

        def skip(num_iters: int) -> None:
            self._count -= num_iters
            skip_iter(num_iters)

        return skip


def _of_this_process(runner: Runner, resumed: Mapping[str, Any], key: str) -> Any:
    """What a checkpoint holds of this process under a key, None if there is nothing."""
    states = resumed.get(key)
    if states is None or len(states) == get_world_size():
        return None if states is None else states[get_rank()]
    kind = 'random states' if key == _RNG_KEY else 'accumulated gradients'
    runner.logger.warning(
        f'The checkpoint holds {kind} of {len(states)} processes and there are '
        f'{get_world_size()} now: training will differ from an uninterrupted run.'
    )
    return None


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
