"""The backbone: several plain ViTs stitched into one, with a choice of sub-networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import cycle
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.logging import print_log
from torch import Tensor

from mmsnnet.registry import MODELS, STITCH_SAMPLERS
from mmsnnet.results.initial_stitch import resolve_stitch
from mmsnnet.stitching import CostTable, Stitch, StitchSpace, check_image_size
from mmsnnet.stitching.sampler import (
    CostBinStitchSampler,
    FixedStitchSampler,
    SandwichStitchSampler,
    StitchSampler,
    UniformStitchSampler,
)

from .anchor_files import restore_anchors
from .anchors.anchor_config import DEFAULT_ANCHORS, AnchorConfig
from .anchors.anchor_weights import load_for_images
from .anchors.build import build_anchors
from .argument_checks import (
    as_taps,
    check_frozen_stages,
    check_inherited_arguments,
    check_size_of_patch,
    check_types,
)
from .budget import BudgetMixin
from .checkpoint_checks import CheckedLoading, check_initialized
from .feature_matching import MatchSettings, check_can_match, match_features
from .hub import HubMixin
from .image_batches import image_batches
from .readiness import refuse_frozen_random, warn_if_random, warn_of_train_mode
from .recomputation import TrainingForwards, is_recomputation
from .stitch_fit import StitchFit
from .stitch_network import Features, StitchNetwork
from .timm_interface import TimmInterface
from .training_mode import TrainingMode

for _sampler in (
    UniformStitchSampler,
    CostBinStitchSampler,
    SandwichStitchSampler,
    FixedStitchSampler,
):
    STITCH_SAMPLERS.register_module(module=_sampler)

#: What a backbone samples by when nothing else is said: the paper's sampling, with bins relative
#: to the range of the space so that they suit anchors of any size (10 GFLOPs of DeiT3-S + L at
#: 512 px are 0.03 of theirs).
DEFAULT_SAMPLER: Mapping[str, Any] = dict(type='CostBinStitchSampler', relative_bin_width=0.03)


@MODELS.register_module(name=['StitchedViT', 'StitchedViTBackbone'])
class StitchedViT(CheckedLoading, StitchNetwork, TimmInterface, BudgetMixin, HubMixin):
    """Plain ViTs joined by stitch layers into one backbone.

    In eval mode it runs the stitch that :meth:`set_stitch` chose. In train mode every forward
    runs another one, from ``StitchSamplingHook`` or its own sampler, and leaves the choice for
    eval alone; without gradients, as a teacher makes its pseudo-labels, it runs the chosen one.
    Every stitch returns the same shapes, unless ``lift_taps=False``.

    Args:
        anchors: timm names, or dicts with the attributes of :class:`AnchorConfig` as keys, in any
            order. One anchor alone makes a plain ViT backbone.
        img_size: Side, or (height, width), in pixels that position embeddings are laid out for
            and costs are counted at. Other sizes work; partial patches are padded.
        out_indices: Blocks of the largest anchor whose outputs are returned, increasing.
        scheme: 'two_way', 'one_way' or fields of :class:`mmsnnet.stitching.Scheme`.
        lora_rank: Rank of the stitch layers' low-rank update; 0 trains their weights themselves.
        lora_alpha: The update is scaled by ``lora_alpha / lora_rank``.
        stitch: What eval runs at first: name, id, or a question to the results of a sweep such as
            ``dict(results='DIR', gflops=120)`` (``resolve_stitch``); None is the costliest anchor.
        drop_path_rate: Stochastic depth rate of each anchor's last block.
        final_norm: Whether taps pass the final norm of their anchor.
        lift_taps: Whether taps of smaller anchors are mapped to the largest width. False, for
            classification, hands on the tokens of the last block, as they are, of the anchor in
            which a route ends.
        frozen_stages: -1 freezes nothing, 0 the embeddings, n also the first n blocks of the
            largest anchor and those of the others that lie wholly beside them.
        with_cp: Whether to recompute blocks in the backward pass to save memory.
        output_cls_token: Whether to return pairs (map, class token), as mmseg's DPTHead reads.
        window_size: Side in patches of the windows that attention is restricted to, as in ViTDet;
            class and register tokens are then left out. None: all attention is global.
        global_blocks: Blocks of the largest anchor that stay global; None spreads four evenly.
        compile_blocks: Whether to compile the blocks, or a dict of arguments of torch.compile.
        sampler: Config of the sampler that serves training without ``StitchSamplingHook``.
        init_cfg: MMEngine's; ``dict(type='Pretrained', checkpoint=..., prefix='backbone.')``
            loads a whole stitched backbone in place of the anchors' weights.
        training: What learns (:class:`~mmsnnet.models.training_mode.TrainingMode`): 'full',
            'lora' (needs the extra ``lora``) or 'stitches', which leaves the anchors as they are.
        anchor_lora: ``dict(rank=16, alpha=None, dropout=0.0)`` of the anchors' updates in 'lora'.

    Attributes:
        configured_stitch: What ``stitch`` asked for, None if it was left out.
        last_stitch: What the last train-mode forward ran; None before the first. Eval-mode
            forwards run :attr:`stitch` and leave it alone.
        last_stitches: The same; several where a training step runs them together.
        warned_of: Subjects that the backbone has warned of, each once.

    Raises:
        TypeError: If an argument is unknown, which is how a missing ``_delete_=True`` shows.
        ValueError: If anchors cannot be stitched, or a value is not possible.
    """

    def __init__(
        self,
        anchors: Sequence[str | Mapping[str, Any] | AnchorConfig] = DEFAULT_ANCHORS,
        img_size: int | tuple[int, int] = 512,
        out_indices: int | Sequence[int] = (9, 14, 19, 23),
        scheme: str | Mapping[str, Any] = 'two_way',
        lora_rank: int = 16,
        lora_alpha: float = 1.0,
        stitch: str | int | Mapping[str, Any] | None = None,
        drop_path_rate: float = 0.1,
        final_norm: bool = False,
        frozen_stages: int = -1,
        with_cp: bool = False,
        output_cls_token: bool = False,
        window_size: int | None = None,
        global_blocks: Sequence[int] | None = None,
        compile_blocks: bool | Mapping[str, Any] = False,
        sampler: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
        lift_taps: bool = True,
        training: str = 'full',
        anchor_lora: Mapping[str, Any] | None = None,
        **inherited: Any,
    ) -> None:
        check_inherited_arguments(inherited)
        flags = dict(final_norm=final_norm, with_cp=with_cp, output_cls_token=output_cls_token)
        check_types(drop_path_rate, sampler, lift_taps=lift_taps, **flags)
        size = check_image_size(img_size)
        built, specs = build_anchors(
            anchors, size, drop_path_rate, final_norm, window_size, global_blocks, compile_blocks
        )
        space = StitchSpace(specs, as_taps(out_indices), scheme, final_norm, lift_taps)
        check_size_of_patch(size, space.anchors[-1].patch_size)
        super().__init__(built, space, lora_rank, lora_alpha, with_cp, output_cls_token, init_cfg)
        self.img_size = size
        self.frozen_stages = check_frozen_stages(frozen_stages, space.anchors[-1].depth)
        self._mode = TrainingMode(training, self.frozen_stages, anchor_lora)
        self._stitch = resolve_stitch(self.space, size, stitch)
        self.configured_stitch = None if stitch is None else self._stitch
        self._prepare_training(sampler)

    def _prepare_training(self, sampler: Mapping[str, Any] | None) -> None:
        """Lay out what training needs: weights to load and to train, what forwards ran and run."""
        self._mode.apply(self)
        self._needs_anchor_weights = True
        for anchor in self.anchors.values():
            anchor.keeps_classifier = not self.space.lift_taps
        self._sampler_config = sampler
        self._training_stitch = self._fit = self._fitted = None
        self.last_stitch: Stitch | None = None
        self.last_stitches: tuple[Stitch, ...] = ()
        self.warned_of: set[str] = set()
        self._forwards = TrainingForwards()
        self.register_forward_pre_hook(_choose_stitch)
        # Training forwards so far: the step of the own sampler, kept so that resuming goes on.
        self.register_buffer('training_steps', torch.zeros((), dtype=torch.long))
        self.register_buffer('stitches_fitted', torch.tensor(not self.space.layers))

    @property
    def stitch(self) -> Stitch:
        """Stitch that eval-mode forward runs."""
        return self._stitch

    def set_stitch(self, stitch: str | int | Stitch) -> None:
        """Choose what eval-mode forward runs, by name or id; train mode goes on sampling.

        Raises:
            ValueError: If the space has no such stitch.
        """
        self._stitch = self.space[stitch]
        if self.training and self._training_stitch is None:
            warn_of_train_mode(self)

    @contextmanager
    def use_stitch(self, stitch: str | int | Stitch) -> Iterator[Stitch]:
        """Choose a stitch for the length of a ``with`` block, then restore the former one."""
        former, self._stitch = self._stitch, self.space[stitch]
        try:
            yield self._stitch
        finally:
            self._stitch = former

    def set_training_stitch(self, stitch: str | int | Stitch | None) -> None:
        """Choose what train-mode forwards run from now on; None goes back to the own sampler."""
        self._training_stitch = None if stitch is None else self.space[stitch]

    @cached_property
    def costs(self) -> CostTable:
        """Cost of every stitch of the backbone at ``img_size``; ``costs.at(size)`` at another."""
        return CostTable(self.space, self.img_size)

    @cached_property
    def sampler(self) -> StitchSampler:
        """Sampler that serves training when no stitch was set by :meth:`set_training_stitch`."""
        return build_sampler(self, self._sampler_config)

    def forward(self, images: Tensor, stitch: str | int | Stitch | None = None) -> Features:
        """Features of the active stitch (eval mode) or of a sampled one (train mode).

        Args:
            images: Normalised images (B, 3, H, W) of any size.
            stitch: Name or id of the stitch to run in place of these.

        Returns:
            For each of ``out_indices`` a map (B, C_largest, H/patch, W/patch), or a pair of it
            and the class token (B, C_largest) with ``output_cls_token``. With ``lift_taps=False``
            one :class:`~mmsnnet.models.stitch_network.AnchorTokens`: tokens (B, N, C) and the
            label of the anchor in which the stitch ends.
        """
        return self.run(images, self.stitch_to_run(images, stitch))

    def stitch_to_run(self, images: Tensor, stitch: str | int | Stitch | None = None) -> Stitch:
        """Stitch that a forward of images runs: the given one, the active or a sampled one."""
        if stitch is None:
            stitch = self._next_training_stitch(images) if self.training else self._stitch
        stitch = self.space[stitch]
        if self.training:
            self.last_stitch, self.last_stitches = stitch, (stitch,)
        warn_if_random(self, stitch)
        return stitch

    def _next_training_stitch(self, images: Tensor) -> Stitch:
        """Stitch of this forward in train mode, with the stitch layers fitted if it is to learn.

        A forward learns if it records gradients, or if its images ask for some: reentrant
        checkpointing runs it without recording.
        """
        self._fit = None  # its sums are of no more use
        if is_recomputation():
            return self._forwards.recall(images, self._training_stitch)
        learns = torch.is_grad_enabled() or images.requires_grad
        if not learns and self._training_stitch is None:
            return self._stitch
        refuse_frozen_random(self)
        if not self.is_fitted:
            print_log(
                f'Stitch layers are not fitted: fitting them on the first training batch of '
                f"{len(images)} images. custom_hooks=[dict(type='StitchInitHook')] fits them on "
                'more images before training starts.',
                logger='current',
                level=30,
            )
            fit = StitchFit(self)
            fit.add(images)
            fit.solve_together()
        step = self.training_steps.clone()  # a number only where needed: reading waits for a GPU
        self.training_steps += 1
        stitch = self._training_stitch or self.sampler.sample(int(step), get_rank())
        self._forwards.add(images, stitch)
        return stitch

    def train(self, mode: bool = True) -> StitchedViT:
        """Set the mode; frozen parts stay in eval mode, so that they drop no paths."""
        super().train(mode)
        if mode:
            for module in self._mode.frozen_modules(self):
                module.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter on the scale of the largest anchor, and the number of depths.

        For a largest anchor of D blocks there are D + 2 depths: embeddings have 0, block i of the
        largest anchor has i + 1, and all that follows the last block, such as heads, D + 1 (as in
        BEiT's layer-wise decay, arXiv 2106.08254). The anchors share this scale:

        - Block j of a smaller anchor takes the place of the blocks [p(j), p(j + 1)) of the
          largest, p being the alignment of its boundaries, and has the depth p(j + 1) of the last
          of these. So ``frozen_stages=n`` freezes the depths 0 to n.
        - A stitch layer has the depth of the block it leads into. A lift has that of the block of
          the largest anchor behind the tap; behind the last block it belongs to the heads.

        Args:
            param_name: Name of the parameter, ``backbone.anchors.S.vit.blocks.3.ls1.gamma``.
            prefix: What names of this backbone begin with, ``backbone.``; others follow it.

        Raises:
            ValueError: If the rest of a name with the prefix is of no part of the backbone.
        """
        last = self.space.anchors[-1].depth + 1
        if not param_name.startswith(prefix):
            return last, last + 1
        name = param_name[len(prefix) :]
        part, owner, *inner = [*name.split('.'), '']
        layers = {key.name(self.space.labels): key for key in self.space.layers}
        if part == 'anchors' and owner in self.space.labels:
            return self._anchor_depth(self.space.labels.index(owner), inner), last + 1
        if part == 'stitch_layers' and owner in layers:
            target, boundary = layers[owner].target, layers[owner].target_boundary
            if boundary == self.space.anchors[target].depth:
                return last, last + 1
            return self.space.alignment.position(target, boundary + 1), last + 1
        raise ValueError(
            f'{name!r} is no parameter of this backbone; names begin with anchors.LABEL (LABEL of '
            f'{", ".join(self.space.labels)}) or stitch_layers.NAME.'
        )

    def _anchor_depth(self, anchor: int, name: Sequence[str]) -> int:
        """Depth of a parameter of an anchor by the parts of its name within it."""
        if name[:2] == ['vit', 'blocks']:
            return self.space.alignment.position(anchor, int(name[2]) + 1)
        if name[:2] == ['vit', 'norm']:  # the final one
            return self.space.anchors[-1].depth + 1
        return 0

    @property
    def is_fitted(self) -> bool:
        """Whether the stitch layers hold fitted (or loaded) weights."""
        if not self._fitted:
            self._fitted = bool(self.stitches_fitted)
        return self._fitted

    def mark_fitted(self) -> None:
        """Note, also in the state dict, that the stitch layers hold fitted weights."""
        self.stitches_fitted.fill_(True)
        self._fitted = True

    def fit_stitches(
        self,
        images: Tensor | Iterable[Any],
        num_images: int | None = None,
        match: int | Mapping[str, Any] = 0,
    ) -> dict[str, float]:
        """Fit every stitch layer to the anchors' features by least squares.

        Calls add up: each fits to its images and those of all calls since the last training
        forward, through sums whose memory does not depend on the number of images.

        Args:
            images: Normalised images (B, 3, H, W), or an iterable of such batches, a DataLoader
                for instance; of (images, labels) and dicts the images are taken
                (:func:`~mmsnnet.models.image_batches.image_batches`).
            num_images: Stop after so many; None takes all. 50 to 100 are enough.
            match: Steps of training behind it that bring the taps of stitches nearer to those of
                the largest anchor, without labels, or ``dict(iters=, lr=, seed=)``. They go round
                the batches, one a step, of which as many as steps are held in memory.

        Returns:
            Share of the target's variance that each stitch layer explains, by its name.

        Raises:
            TypeError: If a batch holds no images.
            ValueError: If there are no images, features are not finite, or cannot be matched.
        """
        settings = MatchSettings.parse(match)
        if settings.iters:
            check_can_match(self)
        if self._fit is None:
            self._fit = StitchFit(self)
        held: list[Tensor] = []
        for batch in image_batches(images, num_images):
            self._fit.add(batch)
            held += [batch] if len(held) < settings.iters else []
        explained = self._fit.solve()
        if settings.iters:
            match_features(self, cycle(held), settings, together=False)
        return explained

    @property
    def training_mode(self) -> str:
        """What learns: 'full', 'lora' or 'stitches'."""
        return self._mode.name

    @property
    def needs_anchor_weights(self) -> bool:
        """Whether :meth:`init_weights` is to load what the anchors' configs name."""
        return self._needs_anchor_weights

    def skip_anchor_weights(self) -> None:
        """Make :meth:`init_weights` leave the anchors alone: a checkpoint will fill them."""
        self._needs_anchor_weights = False
        self.warned_of.add('weights')

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel, in [0, 1], that images must come with."""
        return self.anchor(len(self.anchors) - 1).normalization

    def init_weights(self) -> None:
        """Load the anchors' pretrained weights.

        It does not descend into the timm models, whose own ``init_weights`` draws random ones.
        Anchors that expect another normalisation than the costliest absorb the difference.

        Raises:
            FileNotFoundError: If weights are missing or cannot be fetched.
            ValueError: If weights do not fit.
        """
        if self.init_cfg:
            super().init_weights()
            check_initialized(self, self.init_cfg)
        elif self._needs_anchor_weights:
            for anchor in self.anchors.values():
                load_for_images(anchor, self.normalization)
        self.is_init = True

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        restore_anchors(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._fit = self._fitted = None


def _choose_stitch(backbone: StitchedViT, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Choose the stitch of a training forward before ``forward`` itself, and hand it in.

    MMEngine's ``activation_checkpointing`` replaces ``forward`` by one that runs again in the
    backward pass, with the arguments of the first time: so the stitch is the same in both. With
    torch's reentrant checkpointing, which it uses, the backbone gets gradients only if an argument
    asks for some, which images by themselves do not.
    """
    if not backbone.training or len(inputs) != 1:
        return None
    images = inputs[0]
    stitch = backbone._next_training_stitch(images)
    if 'forward' in vars(backbone) and torch.is_grad_enabled() and not images.requires_grad:
        images = images.detach().requires_grad_()
    return images, stitch


def build_sampler(backbone: StitchedViT, sampler: Mapping[str, Any] | None = None) -> StitchSampler:
    """Sampler over the stitches of a backbone, with their FLOPs at its image size.

    Args:
        backbone: Backbone whose stitches are sampled.
        sampler: Config with ``type`` and arguments; None takes ``DEFAULT_SAMPLER``.

    Raises:
        KeyError: If the type is not registered.
        ValueError: If the sampler refuses its arguments.
    """
    return STITCH_SAMPLERS.build(
        dict(DEFAULT_SAMPLER if sampler is None else sampler),
        default_args=dict(space=backbone.space, flops=backbone.costs.flops),
    )
