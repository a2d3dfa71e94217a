"""Running statistics of a head's batch norms, for each stitch its own.

One neck and head serve all stitches, whose features are distributed differently; the running mean
and variance of a batch norm are then those of the mixture that training drew. Statistics of its
own make each stitch's norms see what they normalise by, without any change of weights.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

from ..stitched_vit import StitchedViT
from .lookup import find_stitched_backbone, without_augmentation

#: Name of the file of head statistics in a results folder.
STATISTICS_NAME = 'head_statistics.pth'


def head_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Batch norms with running statistics of neck and heads by name, without auxiliary heads."""
    model = without_augmentation(model)
    inside = {id(module) for module in find_stitched_backbone(model).modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        and module.running_mean is not None
        and id(module) not in inside
        and not name.startswith('auxiliary_head')
    }


class _Active:
    """Tells the row of the active stitch in tables of statistics."""

    def __init__(self, backbone: StitchedViT, rows: Mapping[str, int]) -> None:
        self._backbone = backbone
        self._rows = rows

    def row(self) -> int | None:
        return self._rows.get(self._backbone.stitch.name)


class _StitchNorm:
    """Mix-in for batch norms: in eval mode they take the statistics of the active stitch."""

    def forward(self, x: Tensor) -> Tensor:
        row = None if self.training else self._active.row()
        if row is None:
            return super().forward(x)
        mean, var = self.stitch_means[row], self.stitch_vars[row]
        return batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)


@cache
def _stitched_class(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    return type(f'Stitch{kind.__name__}', (_StitchNorm, kind), {'__module__': kind.__module__})


class HeadStatistics:
    """Means and variances of a model's head norms for some stitches.

    Args:
        names: Names of the stitches, one a row of the tables.
        tables: Means and variances (rows, channels) by name of the norm.
        weights: Hash of the norms that they were measured with, of :func:`hash_norms`.
        num_images: Images that they were measured on.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        tables: Mapping[str, tuple[Tensor, Tensor]],
        weights: str,
        num_images: int,
    ) -> None:
        self.names = tuple(names)
        self.tables = dict(tables)
        self.weights = weights
        self.num_images = num_images

    @property
    def digest(self) -> str:
        """Hash of all values."""
        return _hash(t for name in sorted(self.tables) for t in self.tables[name])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that torch's safe loading reads."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(f'{path}.{os.getpid()}.tmp')
        torch.save({**vars(self), 'names': list(self.names)}, temporary)
        os.replace(temporary, path)

    def joined(self, other: HeadStatistics) -> HeadStatistics:
        """Statistics of these stitches and those of another one.

        Raises:
            ValueError: If they are of other weights or of another number of images.
        """
        if (self.weights, self.num_images) != (other.weights, other.num_images):
            raise ValueError('These head statistics are of other weights or images.')
        tables = {
            name: tuple(map(torch.cat, zip(mine, other.tables[name])))
            for name, mine in self.tables.items()
        }
        return HeadStatistics(self.names + other.names, tables, self.weights, self.num_images)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> HeadStatistics:
        """Read a file of :meth:`save`.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is something else.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f'There is no file {path} of head statistics.')
        try:
            return cls(**torch.load(path, map_location='cpu', weights_only=True))
        except Exception as error:  # pickle raises whatever the bytes happen to mean
            raise ValueError(
                f'{path} holds no head statistics; test_all_stitches.py --recalibrate-bn N makes '
                f'them ({type(error).__name__}).'
            ) from None

    def attach(self, model: nn.Module) -> None:
        """Let a model's head norms take, in eval mode, the statistics of the active stitch.

        Stitches without statistics run with the common ones. The state dict stays as it is.

        Raises:
            ValueError: If the model has statistics already, or these are of another one.
        """
        norms = head_norms(model)
        if attached_statistics(model) is not None:
            raise ValueError('The model has head statistics already; detach those first.')
        if set(norms) != set(self.tables) or self.weights != hash_norms(norms):
            raise ValueError('The head statistics are of other weights than the model has.')
        rows = {name: row for row, name in enumerate(self.names)}
        active = _Active(find_stitched_backbone(model), rows)
        for name, norm in norms.items():
            means, variances = (table.to(norm.running_mean) for table in self.tables[name])
            norm.register_buffer('stitch_means', means, persistent=False)
            norm.register_buffer('stitch_vars', variances, persistent=False)
            norm._active, norm._statistics = active, self
            norm.__class__ = _stitched_class(type(norm))

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Attach for the length of a ``with`` block."""
        self.attach(model)
        try:
            yield
        finally:
            detach_statistics(model)

    def bake(self, model: nn.Module, stitch: str) -> None:
        """Make the statistics of one stitch the common ones of a model, as for export.

        Raises:
            ValueError: If the stitch has none.
        """
        if stitch not in self.names:
            raise ValueError(f'There are no head statistics of the stitch {stitch!r}.')
        detach_statistics(model)
        row = self.names.index(stitch)
        for name, norm in head_norms(model).items():
            means, variances = self.tables[name]
            norm.running_mean.copy_(means[row])
            norm.running_var.copy_(variances[row])


def attach_statistics_of(results: str | os.PathLike[str], model: nn.Module) -> None:
    """Attach the head statistics that a results folder was scored with, if there are any.

    Raises:
        ValueError: If they are of other weights.
    """
    path = Path(results, STATISTICS_NAME)
    if path.is_file():
        HeadStatistics.load(path).attach(model)


def attached_statistics(model: nn.Module) -> HeadStatistics | None:
    """Statistics that a model's head norms take, if any."""
    found = [norm._statistics for norm in model.modules() if isinstance(norm, _StitchNorm)]
    return found[0] if found else None


def detach_statistics(model: nn.Module) -> None:
    """Give a model's head norms back their common statistics."""
    for norm in [module for module in model.modules() if isinstance(module, _StitchNorm)]:
        norm.__class__ = type(norm).__bases__[1]
        del norm.stitch_means, norm.stitch_vars, norm._active, norm._statistics


def hash_norms(norms: Mapping[str, _BatchNorm]) -> str:
    """Hash of the weights and common statistics of norms."""
    return _hash(t for name in sorted(norms) for t in norms[name].state_dict().values())


def _hash(tensors: Any) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
