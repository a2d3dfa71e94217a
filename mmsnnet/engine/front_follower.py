"""Follows the front in the validations of a training, from one run of the loop to the next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmsnnet.stitching import Stitch

from .front_following import FollowOptions, FrontFollowing, Validation
from .front_state import STATE_NAME, read_state, write_state
from .scoring import StitchScoring

#: What ``stitches`` of a validation says to follow the front.
FRONT = 'front'


class FrontFollower(Hook):
    """Chooses the stitches of each validation, and notes what it found.

    Where the runner does not train, nothing is read or written, and a validation begins with
    nothing known. It is a hook, which registers itself, to learn of that.

    Args:
        runner: The runner.
        scoring: Of the loop of validation.
        settings: See :class:`FollowOptions`.

    Raises:
        ValueError: If there is no metric, or the budget is too small.
    """

    def __init__(
        self, runner: Runner, scoring: StitchScoring, settings: Mapping[str, int]
    ) -> None:
        if scoring.metric is None:
            raise ValueError(
                "stitches='front' needs the metric that makes the front: give val_cfg metric=..., "
                "such as 'mIoU'."
            )
        self._runner = runner
        self._scoring = scoring
        self._space = scoring.backbone.space
        costs = {one.name: scoring.backbone.costs[one].flops for one in self._space}
        anchors = [one.name for one in self._space.anchor_stitches]
        options = FollowOptions.of(settings)
        self._following = FrontFollowing(costs, anchors, scoring.rule, options)
        self._validations: list[Validation] | None = None
        self._is_training = False
        runner.register_hook(self)

    def before_train(self, runner: Runner) -> None:
        """Note that validations from now on are those of a training."""
        self._is_training = True

    def after_train(self, runner: Runner) -> None:
        """Note that the training is over."""
        self._is_training = False

    def choose(self) -> tuple[Stitch, ...]:
        """Stitches of the next validation; to be called in all processes alike."""
        if self._validations is None:
            self._validations = self._known()
        chosen = tuple(self._space[name] for name in self._following.choose(self._validations))
        names = ', '.join(stitch.name for stitch in chosen)
        self._runner.logger.info(f'The front is looked for among {len(chosen)} stitches: {names}.')
        return chosen

    def _known(self) -> list[Validation]:
        """What is known when this process begins: that of a training that is resumed."""
        if not (self._is_training and self._runner._resume):
            return []
        found: list[Any] = [None]
        if is_main_process():
            found[0] = self._read()
        broadcast_object_list(found)
        return found[0]

    def _read(self) -> list[Validation]:
        """Validations in the file beside the checkpoint, or else in the work directory."""
        runner = self._runner
        folders = [Path(runner._load_from).parent] if runner._load_from else []
        folders = [one for one in folders if (one / STATE_NAME).is_file()]
        folder = [*folders, Path(runner.work_dir)][0]
        reason = f'{folder} has no {STATE_NAME} of earlier validations'
        try:
            found = read_state(folder, self._scoring.metric, self._space.names, runner.iter)
        except (ValueError, OSError) as error:
            found, reason = [], str(error)
        if not found:
            runner.logger.warning(f'The front is followed from its beginning: {reason}.')
        return found

    def add(self, scores: Mapping[Stitch, Mapping[str, Any]], metrics: Mapping[str, Any]) -> None:
        """Note what a validation found.

        Args:
            scores: Metrics of each stitch.
            metrics: All that the validation returns.
        """
        values = {one.name: self._scoring.quality(of_one) for one, of_one in scores.items()}
        self._validations.append(Validation(self._runner.iter, values))
        self._forget_former(metrics)
        if self._is_training and is_main_process():
            try:
                write_state(self._runner.work_dir, self._scoring.metric, self._validations)
            except OSError as error:  # of a full disk: the training is worth more
                self._runner.logger.warning(
                    f'What is known of the front cannot be written ({error}): a resumed training '
                    'will follow it from what was written before.'
                )

    def _forget_former(self, metrics: Mapping[str, Any]) -> None:
        """Take out of the log what former validations found of stitches that are not in this one.

        MMEngine would log it again as if it were of now.
        """
        known = self._runner.message_hub.log_scalars
        for key in list(known):
            mode, _, name = key.partition('/')
            owner = name.split('/')[0]
            if mode == 'val' and name not in metrics and (owner in self._space or owner == 'best'):
                del known[key]
