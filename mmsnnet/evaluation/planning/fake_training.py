"""Training steps of a config under fake tensors, and the memory that they take."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine import Config
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmsnnet.models import find_stitched_backbone
from mmsnnet.stitching import Stitch

from .fake_execution import FakeExecution
from .memory_meter import MemoryMeter
from .training_batch import image_size_of, training_batch


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a training step of one stitch takes on one device.

    Attributes:
        weights: Parameters and buffers of the whole model.
        optimizer: State of the optimizer for all that learns, whichever stitch runs.
        gradients: Gradients that live when the optimizer steps.
        activations: What lives between forward and backward on top of these: the batch, and what
            the backward pass needs.
        peak: The most that lives at once, in forward, backward or step.
    """

    weights: int
    optimizer: int
    gradients: int
    activations: int
    peak: int


class FakeTraining:
    """A model and its optimizer as a config describes them, with fake tensors for weights.

    Args:
        model: The model; it can run nothing real any more.
        cfg: Its config, for the optimizer.
        low_precision: Type of autocast; None runs without.
        processes: Number of processes, over which synchronised norms reach.

    Attributes:
        backbone: Its stitched backbone, whose ``with_cp`` may be changed between steps.
        image_size: (height, width) in pixels of its training images.
        low_precision: As the argument; it may be changed between steps.
    """

    def __init__(
        self,
        model: nn.Module,
        cfg: Config,
        low_precision: torch.dtype | None = None,
        processes: int = 1,
    ) -> None:
        synchronised = any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
        self._model = revert_sync_batchnorm(model).train()
        self.backbone = find_stitched_backbone(model)
        self.backbone.skip_anchor_weights()
        self.backbone.mark_fitted()
        self.image_size = image_size_of(model)
        self.low_precision = low_precision
        self._scope = cfg.get('default_scope', 'mmseg')
        self._execution = FakeExecution(joint_norms=synchronised and processes > 1)
        self._execution.adopt(self._model)
        self._meter = MemoryMeter()
        self._learning = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = self._built_optimizer(cfg)
        self._weights, self._state = self._bytes_before()
        self._keeps_gradients = cfg.optim_wrapper.get('accumulative_counts', 1) > 1

    def _built_optimizer(self, cfg: Config) -> torch.optim.Optimizer:
        """The config's, all parameters of a group stepped at once as torch does on a GPU."""
        wanted = copy.deepcopy(cfg.optim_wrapper)
        wanted.type = 'OptimWrapper'  # that of AMP asks for a GPU
        for key in ('loss_scale', 'dtype', 'use_fp64'):
            wanted.pop(key, None)
        with DefaultScope.overwrite_default_scope(self._scope):
            optimizer = build_optim_wrapper(self._model, wanted).optimizer
        for group in optimizer.param_groups:
            if 'foreach' in group:
                group['foreach'] = True
        return optimizer

    def _bytes_before(self) -> tuple[int, int]:
        """Bytes of the weights, and of the optimizer's state for all that learns."""
        with self._running():
            self._meter.count((*self._model.parameters(), *self._model.buffers()))
            weights = self._meter.live
            self._make_gradients()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            return weights, self._meter.live - weights

    def _make_gradients(self) -> None:
        """Give all that learns a gradient, as other stitches have left it."""
        for parameter in self._learning:
            parameter.grad = torch.zeros_like(parameter)

    @contextmanager
    def _running(self) -> Iterator[None]:
        scope = DefaultScope.overwrite_default_scope(self._scope)
        with scope, self._execution.running(self._meter):
            yield

    @property
    def learning_bytes(self) -> int:
        """Bytes of all gradients that the training can have."""
        return _bytes_of(self._learning)

    def step(self, stitch: str | Stitch, batch_size: int, size: tuple[int, int]) -> StepMemory:
        """Make one training step.

        Args:
            stitch: What runs.
            batch_size: Images of this device.
            size: Their (height, width) in pixels.

        Raises:
            ValueError: If a norm over the batch gets one value per channel, as it would later.
        """
        self.backbone.set_training_stitch(stitch)
        meter = self._meter
        with self._running():
            if self._keeps_gradients:
                self._make_gradients()
            meter.reset_peak()
            before = meter.live
            loss = self._loss(batch_size, size)
            activations = meter.live - before
            loss.backward()
            del loss
            trained = [p for p in self._learning if p.grad is not None]
            self._optimizer.step()
            peak = meter.peak
            self._optimizer.zero_grad(set_to_none=True)
        gradients = _bytes_of(trained)
        return StepMemory(self._weights, self._state, gradients, activations, peak)

    def _loss(self, batch_size: int, size: tuple[int, int]) -> Tensor:
        images, samples = training_batch(self._model, batch_size, size)
        enabled = self.low_precision is not None
        with torch.autocast('cpu', dtype=self.low_precision or torch.bfloat16, enabled=enabled):
            losses = self._losses(images, samples)
        return self._model.parse_losses(losses)[0]

    def _losses(self, images: Tensor, samples: list[Any]) -> dict[str, Tensor]:
        try:
            return self._model.loss(images, samples)
        except ValueError as error:
            if 'more than 1 value per channel' not in str(error):
                raise
            raise ValueError(
                f'A process with a batch size of {len(images)} cannot train this model: a norm '
                'over the batch gets one value per channel. Take 2 or more, or SyncBN in several '
                'processes.'
            ) from error


def _bytes_of(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
