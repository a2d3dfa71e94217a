"""Streaming least squares: affine maps between features from sums that do not grow with data."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

#: Eigenvalues of the standardised covariance below this share of the largest count as zero.
#: float32 features carry relative errors of 6e-8, so variances of 4e-15, which must not be fitted;
#: those of half precision carry more, see :class:`PairedMoments`.
RANK_TOLERANCE = 1e-12

#: Columns of a Gram matrix that are computed at once; blocks above the diagonal are skipped.
_GRAM_BLOCK = 256


@dataclass(frozen=True)
class AffineFit:
    """Least-squares solution of ``y = x W^T + b``.

    Attributes:
        weight: W (C_y, C_x), float64.
        bias: b (C_y,), float64.
        residual: Sum of squared errors over all samples and channels.
        total: Sum of squared deviations of y from its mean.
    """

    weight: Tensor
    bias: Tensor
    residual: float
    total: float

    @property
    def explained(self) -> float:
        """Share of the variance of y that the map explains; 1 where y does not vary."""
        return 1.0 - self.residual / self.total if self.total > 0 else 1.0


def gram(x: Tensor) -> Tensor:
    """``x^T x`` (C, C) of samples x (N, C), computed on and below the diagonal alone."""
    width = x.shape[1]
    out = x.new_empty(width, width)
    for start in range(0, width, _GRAM_BLOCK):
        rows = slice(start, min(start + _GRAM_BLOCK, width))
        block = x[:, rows].T @ x[:, : rows.stop]
        out[rows, : rows.stop] = block
        out[: rows.stop, rows] = block.T
    return out


class PairedMoments:
    """Float64 sums over samples from which maps between paired features are solved.

    A node is one set of features, such as those behind a block; all nodes see the same samples in
    the same order. Memory depends on the widths alone.

    Args:
        widths: Channels of each node.
        sources: Nodes that maps start from.
        pairs: Pairs of nodes between which maps are wanted, in one direction or both.
        device: Where the sums live.
        precision: What features were computed in. The square of its spacing at 1 is the share of
            a variance that is rounding noise, where that exceeds ``RANK_TOLERANCE``.
    """

    def __init__(
        self,
        widths: Mapping[Hashable, int],
        sources: Collection[Hashable],
        pairs: Collection[tuple[Hashable, Hashable]],
        device: torch.device | str = 'cpu',
        precision: torch.dtype = torch.float32,
    ) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self._tolerance = max(RANK_TOLERANCE, torch.finfo(precision).eps ** 2)
        self.count = zeros()
        self.sums = {node: zeros(width) for node, width in widths.items()}
        self.squares = {node: zeros() for node in widths}
        self.grams = {node: zeros(widths[node], widths[node]) for node in sources}
        self.crosses = {(a, b): zeros(widths[a], widths[b]) for a, b in pairs}

    def add_count(self, num_samples: int) -> None:
        """Count samples whose features are added by :meth:`add_node` and :meth:`add_pair`."""
        self.count += num_samples

    def add_node(self, node: Hashable, x: Tensor) -> None:
        """Add features x (N, C) of a node."""
        self.sums[node] += x.sum(dim=0)
        if node in self.grams:
            product = gram(x)
            self.grams[node] += product
            self.squares[node] += product.diagonal().sum()
        else:
            self.squares[node] += x.square().sum()

    def add_pair(self, a: Hashable, x: Tensor, b: Hashable, y: Tensor) -> None:
        """Add features x (N, C_a) and y (N, C_b) of the same samples."""
        if (a, b) in self.crosses:
            self.crosses[a, b] += x.T @ y
        else:
            self.crosses[b, a] += y.T @ x

    def tensors(self) -> Iterator[Tensor]:
        """All sums, in an order that is the same in every process: reduce them to pool data."""
        yield self.count
        for group in (self.sums, self.squares, self.grams, self.crosses):
            yield from group.values()

    def cross_covariance(self, source: Hashable, target: Hashable) -> Tensor:
        """Sum of ``(x - mean) (y - mean)^T`` (C_source, C_target)."""
        if (source, target) in self.crosses:
            cross = self.crosses[source, target]
        else:
            cross = self.crosses[target, source].T
        return cross - torch.outer(self.sums[source], self.sums[target]) / self.count

    def solve(self, source: Hashable, target: Hashable) -> AffineFit:
        """Map from one node to another of least squared error.

        Channels are centred and standardised first, which leaves the solution as it is and
        improves the conditioning; directions in which the source does not vary get no weight, so
        the solution is finite where features are rank-deficient.

        Raises:
            ValueError: If no samples were added, or features are not finite.
        """
        if self.count < 1:
            raise ValueError('No samples were added: there is nothing to fit a stitch layer to.')
        mean_x, mean_y = self.sums[source] / self.count, self.sums[target] / self.count
        covariance = self.grams[source] - self.count * torch.outer(mean_x, mean_x)
        cross = self.cross_covariance(source, target)
        if not (torch.isfinite(covariance).all() and torch.isfinite(cross).all()):
            raise ValueError(
                f'Features of {source} or {target} are not finite: check the weights of the '
                'anchors and the normalisation of the images.'
            )
        weight = _solve_standardized(
            covariance, cross, self.grams[source].diagonal(), self._tolerance
        )
        total = self.squares[target] - self.count * mean_y.square().sum()
        # Least squares: residual = total - tr(W Cxy); the quadratic form guards against a
        # truncated solution, for which the short form does not hold.
        fitted = 2 * (weight * cross.T).sum() - ((weight @ covariance) * weight).sum()
        return AffineFit(
            weight=weight,
            bias=mean_y - weight @ mean_x,
            residual=max(float(total - fitted), 0.0),
            total=max(float(total), 0.0),
        )


def _solve_standardized(
    covariance: Tensor, cross: Tensor, raw_squares: Tensor, tolerance: float
) -> Tensor:
    """Weight (C_y, C_x) from covariance (C_x, C_x) and cross covariance (C_x, C_y)."""
    variance = covariance.diagonal()
    # A channel whose variance is rounding noise of its squares is constant.
    alive = variance > raw_squares * tolerance
    scale = torch.where(alive, variance, torch.ones_like(variance)).rsqrt() * alive
    eigenvalues, vectors = torch.linalg.eigh(scale[:, None] * covariance * scale)
    keep = eigenvalues > eigenvalues[-1].clamp(min=0) * tolerance
    inverse = torch.where(keep, eigenvalues, torch.ones_like(eigenvalues)).reciprocal() * keep
    projected = vectors.T @ (scale[:, None] * cross)
    return (scale[:, None] * (vectors @ (inverse[:, None] * projected))).T
