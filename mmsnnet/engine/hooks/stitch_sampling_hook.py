"""Sets the stitch of every training iteration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.dist import get_rank
from mmengine.runner import Runner

from mmsnnet.compat.torch_versions import synchronise_every_backward
from mmsnnet.engine.shared_routes import SharedRoutes
from mmsnnet.engine.training_checks import (
    check_monitors,
    refuse_runner_compile,
    refuse_shards,
)
from mmsnnet.models import build_sampler, find_stitched_backbone, without_augmentation
from mmsnnet.models.host.head_check import check_channels
from mmsnnet.registry import HOOKS
from mmsnnet.stitching import Stitch
from mmsnnet.stitching.route_groups import RouteGroups
from mmsnnet.stitching.value_checks import check_integer

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
        routes_per_step: Stitches that an iteration runs on its batch, chosen so that they share
            most of their beginnings, which run once. Losses are averaged over them; heads run for
            each, and norms over the batch see each apart.

    Raises:
        TypeError, ValueError: If ``routes_per_step`` is not possible, at the latest before
            training starts.
    """

    # Before LoggerHook (BELOW_NORMAL), which writes what is logged here of the same iteration.
    priority = 'NORMAL'

    def __init__(
        self,
        sampler: Mapping[str, Any] | None = None,
        log_interval: int = 50,
        routes_per_step: int = 1,
    ) -> None:
        super().__init__()
        if check_integer('routes_per_step', routes_per_step) < 1:
            raise ValueError(f'routes_per_step must be 1 or more, got {routes_per_step}.')
        self._sampler_config = sampler
        self._log_interval = log_interval
        self._routes_per_step = routes_per_step
        self._shared: SharedRoutes | None = None

    def before_run(self, runner: Runner) -> None:
        """Refuse what does not go with sampling. Called before the Runner compiles."""
        refuse_runner_compile(runner)
        refuse_shards(runner)
        if self._routes_per_step > 1 and runner.cfg.get('activation_checkpointing'):
            raise ValueError(
                f'routes_per_step={self._routes_per_step} does not go with '
                'activation_checkpointing of the config, which cannot tell the stitches of one '
                'batch apart: leave it out and set model.backbone.with_cp=True.'
            )
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
        if self._routes_per_step > 1:
            self._groups = RouteGroups(self._sampler, self._backbone.costs, self._routes_per_step)
            self._shared = SharedRoutes(without_augmentation(runner.model), self._backbone)
            self._shared.install()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Choose the stitch of this iteration, or its stitches."""
        super().before_train_iter(runner, batch_idx, data_batch)
        self._stitch = self._sampler.sample(runner.iter, get_rank())
        self._backbone.set_training_stitch(self._stitch)
        if self._shared is not None:
            self._shared.set_stitches(self._groups.sample(runner.iter, get_rank()))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log the stitch, and gather what a checkpoint about to be saved needs."""
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        losses = {}
        if self._shared is not None:
            losses = self._shared.losses
        elif isinstance(outputs, Mapping) and 'loss' in outputs:
            losses = {self._stitch: outputs['loss']}
        stitches = tuple(losses) or (self._stitch,)
        self._log(runner, stitches)
        for stitch, loss in losses.items():
            runner.message_hub.update_scalar(f'train/loss_{stitch.family}', loss)

    def _log(self, runner: Runner, stitches: tuple[Stitch, ...]) -> None:
        """Name what ran, and its FLOPs."""
        if self._shared is None:
            flops = self._backbone.costs[self._stitch].flops
        else:
            flops = self._shared.flops
        name = ' + '.join(stitch.name for stitch in stitches)
        families = ', '.join(dict.fromkeys(stitch.family for stitch in stitches))
        runner.message_hub.update_info('stitch', name)
        runner.message_hub.update_scalar('train/backbone_gflops', flops / 1e9)
        if self.every_n_train_iters(runner, self._log_interval):
            runner.logger.info(
                f'Iter(train) [{runner.iter + 1}/{runner.max_iters}]  stitch: {name} '
                f'({families}, {flops / 1e9:.4g} backbone GFLOPs)'
            )

    def after_train(self, runner: Runner) -> None:
        """Give the choice back to the backbone's own sampler."""
        self._backbone.set_training_stitch(None)
        if self._shared is not None:
            self._shared.remove()
            self._shared = None
