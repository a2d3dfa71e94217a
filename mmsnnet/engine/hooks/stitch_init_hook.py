"""Fits the stitch layers before training."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import count
from typing import Any

from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader, Runner, find_latest_checkpoint
from torch import Tensor, nn

from mmsnnet.engine.calibration_data import training_batches
from mmsnnet.engine.training_checks import (
    check_monitors,
    refuse_runner_compile,
    refuse_shards,
)
from mmsnnet.models import (
    StitchedViT,
    StitchFit,
    check_fitted,
    find_predicting_backbone,
    find_stitched_backbone,
)
from mmsnnet.models.anchor_files import names_anchor_files
from mmsnnet.models.feature_matching import (
    MatchSettings,
    check_can_match,
    match_features,
)
from mmsnnet.models.host.classifier_check import check_class_count
from mmsnnet.models.host.classifier_weights import check_filled, fill_classifiers
from mmsnnet.models.host.head_check import check_channels
from mmsnnet.models.host.head_weights import load_head_weights
from mmsnnet.models.readiness import refuse_frozen_random
from mmsnnet.registry import HOOKS


@HOOKS.register_module()
class StitchInitHook(Hook):
    """Fits every stitch layer to the anchors' features by least squares, once, before training.

    Images come from the training data set through a loader of the hook's own, with its own seed,
    and the global random generators are put back, so training sees the same data whether or not
    the fit ran. Batches are put together as training does it. Each process reads its share of the
    images; the sums are pooled, one process solves, and all get the same weights. The fit is
    skipped where a resumed or loaded checkpoint holds fitted stitches; the anchors' own weights are
    then neither needed nor read.

    A StitchedClsHead starts from the classifiers in the anchors' weights; no loaded checkpoint is
    overwritten.

    It also refuses heads whose channels do not fit the backbone, names a data preprocessor whose
    normalisation does not, and refuses to evaluate stitches that were never fitted.

    Args:
        num_images: Images to fit to, over all processes together; fewer if the data set has
            fewer. The published recipes take 50 (10 for depth).
        batch_size: Images per forward of a process; None takes that of ``train_dataloader``.
        seed: Chooses the images and their augmentation.
        head_checkpoint: File of a model trained with the largest anchor alone, to start neck and
            heads from: all stitches deliver maps in its feature space. Read where a fit is made.
        classifiers: What becomes of a StitchedClsHead whose anchors' weights have no classifier
            for it, such as one of another number of classes: with 'auto' it starts at random, with
            a warning; 'pretrained' refuses it.
        match_iters: Steps behind the fit that bring the taps of stitches nearer to those of the
            largest anchor (:mod:`mmsnnet.models.feature_matching`), on further training images and
            without their labels. Every process steps alike.
        match_lr: Their learning rate at first.

    Raises:
        ValueError: If ``num_images`` or ``batch_size`` is less than 1, or ``classifiers`` is none
            of these.
    """

    # Before the hooks of training, and before checkpoints are loaded.
    priority = 'VERY_HIGH'

    def __init__(
        self,
        num_images: int = 50,
        batch_size: int | None = None,
        seed: int = 0,
        head_checkpoint: str | None = None,
        classifiers: str = 'auto',
        match_iters: int = 0,
        match_lr: float = 1e-3,
    ) -> None:
        for name, value in (('num_images', num_images), ('batch_size', batch_size)):
            if value is not None and value < 1:
                raise ValueError(f'{name} of StitchInitHook must be 1 or more, got {value}.')
        if classifiers not in ('auto', 'pretrained'):
            raise ValueError(
                f"classifiers={classifiers!r} of StitchInitHook is unknown: choose 'auto' or "
                "'pretrained'."
            )
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.head_checkpoint = head_checkpoint
        self.classifiers = classifiers
        self.match = MatchSettings.parse(dict(iters=match_iters, lr=match_lr, seed=seed))

    def before_run(self, runner: Runner) -> None:
        """Spare the anchors' weights where a checkpoint will fill them. Called before it loads."""
        refuse_runner_compile(runner)
        refuse_shards(runner)
        check_monitors(runner, runner._val_loop)
        backbone = find_stitched_backbone(runner.model)
        if _checkpoint_to_come_fills_anchors(runner):
            backbone.skip_anchor_weights()

    def before_train(self, runner: Runner) -> None:
        """Check head and preprocessor, then fit unless a checkpoint brought fitted stitches."""
        backbone = find_stitched_backbone(runner.model)
        check_channels(runner.model)
        refuse_frozen_random(backbone)
        if self.match.iters:
            check_can_match(backbone)
        check_class_count(runner.model, runner.train_dataloader.dataset)
        _check_normalization(runner, backbone)
        if not getattr(runner, '_has_loaded', False):  # else its own classifiers would be lost
            self._fill_classifiers(runner)
        if backbone.is_fitted:
            runner.logger.info('Stitch layers are fitted already; StitchInitHook leaves them.')
            return
        if self.head_checkpoint is not None:
            filled = load_head_weights(runner.model, self.head_checkpoint)
            runner.logger.info(f'{", ".join(filled)} start from {self.head_checkpoint}.')
        start = time.perf_counter()
        num_images = min(self.num_images, len(runner.train_dataloader.dataset))
        runner.logger.info(
            f'Fitting {len(backbone.space.layers)} stitch layers on {num_images} images ...'
        )
        fit = StitchFit(backbone)
        for images in self._images(runner, num_images):
            fit.add(images)
        explained = fit.solve_together()
        self._match_features(runner, backbone)
        _hand_to_teachers(runner.model, backbone)
        runner.logger.info(
            f'Fitted stitch layers on {fit.num_samples} tokens in '
            f'{time.perf_counter() - start:.1f} s; they explain {min(explained.values()):.1%} to '
            f'{max(explained.values()):.1%} of the variance of their targets.'
        )

    def _match_features(self, runner: Runner, backbone: StitchedViT) -> None:
        """Match features on batches of training images, and say how far it got."""
        if not self.match.iters:
            return
        start = time.perf_counter()
        with closing(self._endless_images(runner)) as images:  # puts random generators back
            errors = match_features(backbone, images, self.match, together=True)
        share = max(len(errors) // 10, 1)
        first, last = (sum(part) / share for part in (errors[:share], errors[-share:]))
        runner.logger.info(
            f'Matched features of stitches to those of the largest anchor in {len(errors)} steps '
            f'and {time.perf_counter() - start:.1f} s: their error fell from {first:.3g} to '
            f'{last:.3g} of the variance, over the first and the last {share} steps.'
        )

    def _endless_images(self, runner: Runner) -> Iterator[Tensor]:
        """Batches of this process, the data set in another order each time."""
        images = len(runner.train_dataloader.dataset)
        if images < get_world_size():
            raise ValueError(
                f'Matching features in {get_world_size()} processes needs an image for each, the '
                f'training data set has {images}: leave match_iters out, or use fewer processes.'
            )
        for number in count(1):
            yield from self._images(runner, images, self.seed + number)

    def _fill_classifiers(self, runner: Runner) -> None:
        """Start classifiers from the anchors' weights, and say of each what it starts from."""
        starts = fill_classifiers(runner.model)
        if self.classifiers == 'pretrained':
            check_filled(runner.model, starts)
        for start in starts:
            runner.logger.log(logging.WARNING if start.problem else logging.INFO, str(start))

    def before_val(self, runner: Runner) -> None:
        """Refuse to evaluate unfitted stitches."""
        check_fitted(find_predicting_backbone(runner.model))

    def before_test(self, runner: Runner) -> None:
        """Refuse to evaluate unfitted stitches."""
        check_fitted(find_predicting_backbone(runner.model))

    def _images(
        self, runner: Runner, num_images: int, seed: int | None = None
    ) -> Iterator[Tensor]:
        """Batches (B, 3, H, W) of this process' share of the images, preprocessed."""
        seed = self.seed if seed is None else seed
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        process = get_rank(), get_world_size()
        for batch in training_batches(
            runner.train_dataloader, num_images, seed, self.batch_size, process
        ):
            inputs = model.data_preprocessor(batch, training=True)['inputs']
            # Semi-supervised training has a batch for each branch.
            yield from inputs.values() if isinstance(inputs, Mapping) else (inputs,)


def _hand_to_teachers(model: nn.Module, student: StitchedViT) -> None:
    """Give fitted stitch layers to frozen copies of a backbone, whose moving average starts there.

    MMDetection's ``MeanTeacherHook`` averages parameters alone, so a teacher would not learn of
    its layers that they are fitted.
    """
    layers = student.stitch_layers.state_dict()
    for other in model.modules():
        if isinstance(other, StitchedViT) and other is not student:
            own = other.stitch_layers.state_dict()
            if {name: own[name].shape for name in own} == {
                name: layers[name].shape for name in layers
            }:
                other.stitch_layers.load_state_dict(layers)
                other.mark_fitted()


def _checkpoint_to_come_fills_anchors(runner: Runner) -> bool:
    """Whether the checkpoint that the runner is about to load or resume brings the anchors."""
    source = runner._load_from
    if source is None and runner._resume:
        source = find_latest_checkpoint(runner.work_dir)
    if source is None:
        return False
    content: Any = CheckpointLoader.load_checkpoint(source, map_location='cpu')
    names = content.get('state_dict', content)
    whole = any('anchors.' in name and '.vit.' in name for name in names)
    return whole or names_anchor_files(names)


def _check_normalization(runner: Runner, backbone: StitchedViT) -> None:
    """Warn if images come with another normalisation than pretrained anchors expect."""
    if not any(anchor.config.has_weights for anchor in backbone.anchors.values()):
        return
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    preprocessor = model.data_preprocessor
    # That of semi-supervised training wraps the one of its branches.
    preprocessor = getattr(preprocessor, 'data_preprocessor', preprocessor)
    wrong, wanted = [], []
    for name, expected in zip(('mean', 'std'), backbone.normalization):
        fitting = [round(255 * value, 3) for value in expected]
        given = getattr(preprocessor, name, None)
        given = None if given is None else [round(value, 3) for value in given.flatten().tolist()]
        if given != fitting:
            wrong.append(f'{name}={given}')
            wanted.append(f'{name}={fitting}')
    if wrong:
        runner.logger.warning(
            f'data_preprocessor {type(preprocessor).__name__} has {", ".join(wrong)}, but the '
            f'anchors were pretrained with {", ".join(wanted)}: set it in the config, or give each '
            'anchor the mean and std that its weights expect (in units of 1/255).'
        )
