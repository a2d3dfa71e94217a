"""Leaves frozen anchors out of checkpoints."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmsnnet.models import find_stitched_backbone
from mmsnnet.models.anchor_files import AnchorFile, anchor_files, omit_anchors
from mmsnnet.registry import HOOKS


@HOOKS.register_module()
class StitchAnchorFilesHook(Hook):
    """Lets checkpoints name the files of frozen anchors, with their SHA-256, in place of weights.

    For ``training='stitches'`` with a local file for each anchor. Averaged weights of ``EMAHook``
    leave the anchors out too. Whatever loads such a checkpoint, for resuming, validation or
    inference, reads the files again and refuses one that has changed.

    Raises:
        ValueError: Before training, if anchors learn, or are not what their files give.
    """

    # Behind all hooks that put weights into a checkpoint or swap them, as EMAHook does.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._files: dict[str, AnchorFile] = {}

    def before_train(self, runner: Runner) -> None:
        """Hash the files, and make sure that the anchors are those in them."""
        self._files = anchor_files(find_stitched_backbone(runner.model))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take the anchors out."""
        for key in ('state_dict', 'ema_state_dict'):
            if key in checkpoint:
                omit_anchors(checkpoint[key], find_stitched_backbone(runner.model), self._files)
