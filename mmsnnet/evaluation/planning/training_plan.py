"""Plan of a training: memory of its steps and bytes that its processes exchange."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine import Config
from torch import nn

from mmsnnet.models import StitchedViT, build_sampler
from mmsnnet.models.route_parameters import parameters_of_route
from mmsnnet.stitching import Stitch

from .fake_training import FakeTraining, StepMemory

#: Iterations over which the share of gradients that are zero is averaged.
_DRAWS = 1000


@dataclass(frozen=True)
class PlannedStitch:
    """What a training step of one stitch takes.

    Attributes:
        name: Name of the stitch.
        flops: FLOPs of the backbone for one image of ``img_size``, forward.
        memory: Bytes of a step on one device.
        per_image: Bytes by which the peak grows with each further image.
        idle_share: Share of all gradients that are zero in this step.
    """

    name: str
    flops: int
    memory: StepMemory
    per_image: float
    idle_share: float


@dataclass(frozen=True)
class TrainingPlan:
    """What a training will take.

    Attributes:
        batch_size: Images of a process in an iteration.
        image_size: Their (height, width) in pixels.
        gpus: Number of processes.
        stitches: Some stitches, from cheap to costly.
        gradient_bytes: Gradients of everything that learns.
        bucket_bytes: Copies of gradients that DistributedDataParallel keeps; 0 with one process.
        averaged_bytes: Copy of the weights that an EMAHook keeps; 0 without.
        idle_share: Share of all gradients that are zero in a step, on average over the sampler.
        variants: The costliest of ``stitches`` under other settings, by their name.
    """

    batch_size: int
    image_size: tuple[int, int]
    gpus: int
    stitches: tuple[PlannedStitch, ...]
    gradient_bytes: int
    bucket_bytes: int
    averaged_bytes: int
    idle_share: float
    variants: Mapping[str, PlannedStitch] = field(default_factory=dict)

    def device_bytes(self, stitch: PlannedStitch) -> int:
        """Peak of a device over a step of a stitch."""
        return stitch.memory.peak + self.bucket_bytes + self.averaged_bytes

    @property
    def sent_bytes(self) -> float:
        """Bytes that every process sends in a step of DistributedDataParallel.

        A ring all-reduce of n processes sends 2 (n - 1) / n times the gradients (Patarasuk and
        Yuan, 2009), those of blocks that did not run among them.
        """
        return 2 * (self.gpus - 1) / self.gpus * self.gradient_bytes

    def largest_batch(self, stitch: PlannedStitch, memory: float) -> int:
        """Most images of a process whose steps of a stitch fit.

        Args:
            stitch: One of ``stitches``.
            memory: Bytes of a device; what other things than this training take is not in them.
        """
        spare = memory - self.device_bytes(stitch)
        return max(0, self.batch_size + int(spare // max(stitch.per_image, 1.0)))


def batch_size_of(cfg: Config) -> int:
    """Images of a process in an iteration.

    Raises:
        ValueError: If the config does not say.
    """
    size = (cfg.get('train_dataloader') or {}).get('batch_size')
    if size is None:
        raise ValueError('The config has no train_dataloader.batch_size: give --batch-size.')
    return size


def uses_low_precision(cfg: Config) -> bool:
    """Whether a config trains with automatic mixed precision."""
    return str(cfg.optim_wrapper.get('type')).endswith('AmpOptimWrapper')


def plan_training(
    model: nn.Module,
    cfg: Config,
    stitches: Sequence[str] | None = None,
    batch_size: int | None = None,
    image_size: tuple[int, int] | None = None,
    gpus: int = 1,
    amp: bool | None = None,
    variants: bool = False,
) -> TrainingPlan:
    """Plan the training of a model, which can run nothing real afterwards.

    Args:
        model: The model, as built from ``cfg.model``.
        cfg: Config of the training.
        stitches: Names; None takes the cheapest, the one in the middle and the costliest.
        batch_size: Images of a process; the config's by default.
        image_size: Their (height, width) in pixels; the config's by default.
        gpus: Number of processes.
        amp: Whether autocast is on; as the config says by default.
        variants: Whether to plan recomputed blocks and the other precision, too.

    Raises:
        KeyError: If there is no such stitch.
        ValueError: If a number is not possible, or the config describes no stitched training.
    """
    batch_size = batch_size_of(cfg) if batch_size is None else batch_size
    _check(cfg, batch_size, gpus)
    training = FakeTraining(model, cfg, _precision(cfg, amp), gpus)
    backbone, learning = training.backbone, training.learning_bytes
    size = tuple(image_size or training.image_size)
    named = [backbone.space[name] for name in stitches or _spread(backbone)]
    named.sort(key=lambda stitch: backbone.costs[stitch].flops)
    planned = tuple(_planned(training, stitch, batch_size, size) for stitch in named)
    return TrainingPlan(
        *(batch_size, size, gpus, planned, learning, learning if gpus > 1 else 0),
        averaged_bytes=planned[0].memory.weights if _averages_weights(cfg) else 0,
        idle_share=_mean_idle_share(training, cfg),
        variants=_variants(training, named[-1], batch_size, size) if variants else {},
    )


def _precision(cfg: Config, amp: bool | None) -> torch.dtype | None:
    low = uses_low_precision(cfg) if amp is None else amp
    return torch.bfloat16 if low else None  # as wide as float16, and every CPU has it


def _check(cfg: Config, batch_size: int, gpus: int) -> None:
    """Refuse what cannot be planned."""
    if cfg.get('optim_wrapper') is None:
        raise ValueError('The config has no optim_wrapper, so it describes no training.')
    if gpus < 1:
        raise ValueError(f'The number of GPUs must be 1 or more, got {gpus}.')
    if batch_size < 1:
        raise ValueError(f'The batch size must be 1 or more, got {batch_size}.')


def _variants(
    training: FakeTraining, stitch: Stitch, batch_size: int, size: tuple[int, int]
) -> dict[str, PlannedStitch]:
    """A stitch with blocks recomputed or not, in the other precision, and with both."""
    backbone, low = training.backbone, training.low_precision
    recomputes = backbone.with_cp
    cp, precision = f'with_cp={not recomputes}', f'{"without" if low else "with"} mixed precision'
    found = {}
    for name, changes_cp, changes_precision in (
        (cp, True, False), (precision, False, True), ('both', True, True)
    ):  # fmt: skip
        backbone.with_cp = recomputes != changes_cp
        if changes_precision:
            training.low_precision = None if low else torch.bfloat16
        found[name] = _planned(training, stitch, batch_size, size)
        backbone.with_cp, training.low_precision = recomputes, low
    return found


def _spread(backbone: StitchedViT) -> list[str]:
    """Cheapest stitch, the one in the middle, and the costliest."""
    flops = backbone.costs.flops
    names = sorted(flops, key=flops.__getitem__)
    return list(dict.fromkeys((names[0], names[(len(names) - 1) // 2], names[-1])))


def _planned(
    training: FakeTraining, stitch: Stitch, batch_size: int, size: tuple[int, int]
) -> PlannedStitch:
    memory = training.step(stitch, batch_size, size)
    twice = training.step(stitch, 2 * batch_size, size)
    return PlannedStitch(
        stitch.name,
        training.backbone.costs[stitch].flops,
        memory,
        per_image=(twice.peak - memory.peak) / batch_size,
        idle_share=idle_share(training, stitch),
    )


def idle_share(training: FakeTraining, stitch: Stitch) -> float:
    """Share of a training's gradients that are zero where a stitch runs."""
    own = set(training.backbone.parameters())
    run = set(parameters_of_route(training.backbone, stitch))
    idle = [p for p in own - run if p.requires_grad]
    return sum(p.numel() * p.element_size() for p in idle) / training.learning_bytes


def _mean_idle_share(training: FakeTraining, cfg: Config) -> float:
    """Its mean over what the config's sampler draws."""
    sampler = build_sampler(training.backbone, _sampler_of(cfg))
    drawn = [sampler.sample(step, 0) for step in range(_DRAWS)]
    shares = {stitch.name: idle_share(training, stitch) for stitch in drawn}
    return sum(shares[stitch.name] for stitch in drawn) / len(drawn)


def _sampler_of(cfg: Config) -> Mapping[str, Any] | None:
    """Config of the sampler that a training uses."""
    for hook in _hooks(cfg):
        if _type_of(hook) == 'StitchSamplingHook' and hook.get('sampler') is not None:
            return copy.deepcopy(hook['sampler'])
    return cfg.model.backbone.get('sampler') if cfg.model.get('backbone') else None


def _averages_weights(cfg: Config) -> bool:
    return any(_type_of(hook) == 'EMAHook' for hook in _hooks(cfg))


def _hooks(cfg: Config) -> Iterable[Mapping[str, Any]]:
    return [hook for hook in cfg.get('custom_hooks') or () if isinstance(hook, Mapping)]


def _type_of(config: Mapping[str, Any]) -> str:
    """Name of a type, given as text with or without scope or as a class."""
    kind = config.get('type')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]
