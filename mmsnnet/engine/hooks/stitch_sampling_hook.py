"""Sets the stitch of every training iteration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.dist import get_rank
from mmengine.runner import Runner

from mmsnnet.compat.torch_versions import synchronise_every_backward
from mmsnnet.engine.training_checks import check_monitors, refuse_runner_compile
from mmsnnet.models import build_sampler, find_stitched_backbone
from mmsnnet.models.host.head_check import check_channels
from mmsnnet.registry import HOOKS

from .exact_resume_hook import ExactResumeHook


@HOOKS.register_module()
class StitchSamplingHook(ExactResumeHook):
    """Sets the stitch that each training iteration runs, and makes training repeatable.

    The stitch follows from (seed, iteration) alone. Logged are the FLOPs of the backbone under it
    and the running loss of its family with the scalars of training, and its name in a line of its
    own.

    A run resumed after a kill repeats the losses of an uninterrupted one, whether or not the config
    sets a seed, and wherever amidst ``accumulative_counts`` iterations it was saved: see
    :class:`~.exact_resume_hook.ExactResumeHook`. Such a checkpoint is larger by the gradients of
    every process; an ``interval`` that is a multiple of ``accumulative_counts`` avoids them.

    Args:
        sampler: Config of a sampler of ``STITCH_SAMPLERS``; None takes the backbone's own.
        log_interval: Iterations between lines that name the stitch.
    """

    # Before LoggerHook (BELOW_NORMAL), which writes what is logged here of the same iteration.
    priority = 'NORMAL'

    def __init__(self, sampler: Mapping[str, Any] | None = None, log_interval: int = 50) -> None:
        super().__init__()
        self._sampler_config = sampler
        self._log_interval = log_interval

    def before_run(self, runner: Runner) -> None:
        """Refuse what does not go with sampling. Called before the Runner compiles."""
        refuse_runner_compile(runner)
        check_monitors(runner, runner._val_loop)

    def before_train(self, runner: Runner) -> None:
        """Build the sampler, after a look at whether neck and heads fit the backbone."""
        check_channels(runner.model)
        synchronise_every_backward(runner.model)
        self._backbone = find_stitched_backbone(runner.model)
        config = self._sampler_config
        self._sampler = (
            self._backbone.sampler if config is None else build_sampler(self._backbone, config)
        )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Choose the stitch of this iteration."""
        super().before_train_iter(runner, batch_idx, data_batch)
        self._stitch = self._sampler.sample(runner.iter, get_rank())
        self._backbone.set_training_stitch(self._stitch)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log the stitch, and gather what a checkpoint about to be saved needs."""
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        stitch = self._stitch
        gflops = self._backbone.costs[stitch].flops / 1e9
        hub = runner.message_hub
        hub.update_info('stitch', stitch.name)
        hub.update_scalar('train/backbone_gflops', gflops)
        if isinstance(outputs, Mapping) and 'loss' in outputs:
            hub.update_scalar(f'train/loss_{stitch.family}', outputs['loss'])
        if self.every_n_train_iters(runner, self._log_interval):
            runner.logger.info(
                f'Iter(train) [{runner.iter + 1}/{runner.max_iters}]  stitch: {stitch.name} '
                f'({stitch.family}, {gflops:.4g} backbone GFLOPs)'
            )

    def after_train(self, runner: Runner) -> None:
        """Give the choice back to the backbone's own sampler."""
        self._backbone.set_training_stitch(None)
