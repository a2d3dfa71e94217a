"""Trains several stitches in one step, with what their routes have in common run once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Union

from mmengine.model import BaseModel
from torch import Tensor

from mmsnnet.models import StitchedViT
from mmsnnet.models.prefix_cache import PrefixCache
from mmsnnet.stitching import Stitch

#: What models of MMEngine return in train mode: losses and what is logged beside them.
Losses = Mapping[str, Union[Tensor, Sequence[Tensor]]]


class SharedRoutes:
    """Lets the training forward of a model run several stitches on each batch.

    The model's own forward runs once for each of them, so hosts and heads are as they are. The
    backbone runs each common beginning once, as the sweep does, here with gradients: one backward
    pass through the mean of the losses goes once through what is shared.

    Args:
        model: Model of MMEngine, not wrapped.
        backbone: Its stitched backbone.

    Attributes:
        losses: Loss of each stitch that the last training forward ran.
    """

    def __init__(self, model: BaseModel, backbone: StitchedViT) -> None:
        self._model, self._backbone = model, backbone
        self._model_forward = model.forward
        self._was_replaced = 'forward' in vars(model)
        self._cache: PrefixCache | None = None
        self._stitches: tuple[Stitch, ...] = ()
        self.losses: dict[Stitch, Tensor] = {}

    def set_stitches(self, stitches: Sequence[Stitch]) -> None:
        """Choose what training forwards run from now on."""
        self._stitches = tuple(stitches)
        self._cache = PrefixCache(self._backbone, stitches, learns=True)

    @property
    def flops(self) -> int:
        """FLOPs of the backbone for one image, what is shared counted once."""
        space, costs = self._backbone.space, self._backbone.costs
        return sum(
            costs.step_flops(step)
            for visit in self._cache.tree.visits
            for step in space.program(visit.name)[visit.start :]
        )

    def install(self) -> None:
        """Take the place of the model's forward."""
        self._model.forward = self._forward

    def remove(self) -> None:
        """Give the model its own forward back."""
        if self._was_replaced:
            self._model.forward = self._model_forward
        else:
            del self._model.forward

    def _forward(self, *inputs: Any, **keywords: Any) -> Any:
        """The model's forward, or, where it is asked for losses, their means over the stitches."""
        forward = self._model_forward
        if keywords.get('mode') != 'loss' or not self._model.training:
            return forward(*inputs, **keywords)
        found, self.losses = [], {}
        with self._cache.activate():
            for stitch in self._cache.routes():
                found.append(forward(*inputs, **keywords))
                self.losses[stitch] = self._model.parse_losses(found[-1])[0].detach()
        self._backbone.last_stitches = self._stitches
        return mean_losses(found)


def mean_losses(found: Sequence[Losses]) -> dict[str, Tensor | list[Tensor]]:
    """Means of losses, by name; one that not all have counts as zero where it is absent.

    Args:
        found: Losses of several forwards of one model.
    """
    means: dict[str, Any] = {}
    for losses in found:
        for name, value in losses.items():
            parts = [value] if isinstance(value, Tensor) else list(value)
            shares = [part / len(found) for part in parts]
            if name in means:
                former = means[name] if isinstance(means[name], list) else [means[name]]
                shares = [one + other for one, other in zip(former, shares)]
            means[name] = shares[0] if isinstance(value, Tensor) else shares
    return means
