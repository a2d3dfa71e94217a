"""The affine map that carries features from one anchor to another."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmsnnet.stitching.value_checks import check_integer, check_number


class StitchLayer(nn.Module):
    """Affine map between two widths, learned as a low-rank update of fitted weights.

    It computes ``x W^T + b + alpha / rank * (x A^T) B^T`` with W (out, in) frozen after its
    least-squares fit and b, A (rank, in) and B (out, rank) trainable (SN-Netv2, arXiv 2307.00154,
    section 3.3; LoRA, arXiv 2106.09685). B starts at zero, so the update does. Nothing is ever
    merged into W: train() and eval() compute the same, and a checkpoint means the same whenever
    it was saved.

    Args:
        in_features: Width of the source anchor.
        out_features: Width of the target anchor.
        rank: Rank of the update; 0 makes W itself trainable instead.
        alpha: The update is scaled by ``alpha / rank``.

    Raises:
        TypeError: If ``rank`` is not an integer, or ``alpha`` not a number.
        ValueError: If ``rank`` is negative, or ``alpha`` not positive and finite.
    """

    def __init__(
        self, in_features: int, out_features: int, rank: int = 16, alpha: float = 1.0
    ) -> None:
        super().__init__()
        if check_integer('lora_rank', rank) < 0:
            raise ValueError(f'lora_rank must be 0 (no LoRA) or more, got {rank}.')
        if check_number('lora_alpha', alpha) <= 0:  # with 0 the update could not learn
            raise ValueError(f'lora_alpha must be positive, got {alpha}.')
        self.in_features = in_features
        self.out_features = out_features
        self.rank = rank
        self.scale = alpha / rank if rank else 0.0
        self.weight = nn.Parameter(torch.empty(out_features, in_features), requires_grad=rank == 0)
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.normal_(self.weight, std=1.0 / math.sqrt(in_features))
        if rank:
            self.lora_a = nn.Parameter(torch.empty(rank, in_features))
            self.lora_b = nn.Parameter(torch.zeros(out_features, rank))
            nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (..., in_features) to (..., out_features) of the same type.

        Autocast lowers the precision of the products alone: what follows is the residual stream
        of the next anchor, which timm's blocks keep in float32.
        """
        mapped = functional.linear(tokens, self.weight, self.bias)
        if self.rank:
            low_rank = functional.linear(tokens, self.lora_a)
            mapped = mapped + functional.linear(low_rank, self.lora_b) * self.scale
        return mapped.to(tokens.dtype)

    def merged_weight(self) -> Tensor:
        """Weight (out_features, in_features) of the one linear map that this layer amounts to."""
        weight = self.weight.detach()
        if not self.rank:
            return weight.clone()
        return weight + self.scale * (self.lora_b.detach() @ self.lora_a.detach())

    @torch.no_grad()
    def set_affine(self, weight: Tensor, bias: Tensor) -> None:
        """Set W (out, in) and b (out,), and start the low-rank update anew from zero."""
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        if self.rank:
            self.lora_b.zero_()

    def extra_repr(self) -> str:
        """Widths and rank."""
        return f'in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}'
