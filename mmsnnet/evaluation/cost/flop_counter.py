"""Counting the FLOPs of what is executed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

#: FLOPs of a normalised element with and without learned scale, as fvcore counts them.
_NORM_FLOPS = {True: 5, False: 4}


def _matrix_product(first: Tensor, second: Tensor, *_: Any, **__: Any) -> int:
    """Product of (..., n, k) and (..., k, m); the second may be a vector (k,)."""
    return first.numel() * (second.shape[-1] if second.dim() > 1 else 1)


def _added_product(_: Tensor, first: Tensor, second: Tensor, *__: Any, **___: Any) -> int:
    return _matrix_product(first, second)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Both products of attention: query (..., n, d), key (..., m, d), value (..., m, e)."""
    pairs = prod(query.shape[:-1]) * key.shape[-2]
    return pairs * (query.shape[-1] + value.shape[-1])


def _layer_norm(x: Tensor, shape: Any, weight: Tensor | None = None, *_: Any, **__: Any) -> int:
    return x.numel() * _NORM_FLOPS[weight is not None]


def _group_norm(x: Tensor, groups: int, weight: Tensor | None = None, *_: Any, **__: Any) -> int:
    return x.numel() * _NORM_FLOPS[weight is not None]


def _instance_norm(x: Tensor, weight: Tensor | None = None, *_: Any, **__: Any) -> int:
    return x.numel() * _NORM_FLOPS[weight is not None]


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    *_: Any,
) -> int:
    """With stored statistics one scale and one shift, as fvcore has it."""
    if training:
        return x.numel() * _NORM_FLOPS[weight is not None]
    return x.numel() * (2 if weight is not None else 1)


def _pooling(x: Tensor, *_: Any, **__: Any) -> int:
    return x.numel()


#: FLOPs of an operator from its arguments.
_BY_INPUT: dict[Any, Callable[..., int]] = {
    aten.mm: _matrix_product,
    aten.bmm: _matrix_product,
    aten.mv: _matrix_product,
    aten.addmm: _added_product,
    aten.addmv: _added_product,
    aten.baddbmm: _added_product,
    aten.scaled_dot_product_attention: _attention,
    aten.layer_norm: _layer_norm,
    aten.group_norm: _group_norm,
    aten.instance_norm: _instance_norm,
    aten.batch_norm: _batch_norm,
    aten.adaptive_avg_pool2d: _pooling,
}
if hasattr(aten, 'rms_norm'):  # torch >= 2.4; timm's own formula before
    _BY_INPUT[aten.rms_norm] = _layer_norm

#: FLOPs per element of an operator's output.
_BY_OUTPUT = {aten.upsample_nearest2d: 1, aten.upsample_bilinear2d: 4, aten.grid_sampler: 4}


def _convolution(x: Tensor, weight: Tensor, out: Tensor, transposed: bool, groups: int) -> int:
    """Each weight meets each output position, or each input position of a transposed one.

    Raises:
        ValueError: If the channels differ, which torch does not always notice on meta tensors.
    """
    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    if x.shape[1] != channels:
        raise ValueError(f'a convolution of {channels} channels met {x.shape[1]} channels')
    positions = (x if transposed else out).shape[2:]
    return x.shape[0] * weight.numel() * prod(positions)


class FlopCounter(TorchDispatchMode):
    """Counts the FLOPs of everything executed under it, by fvcore's conventions.

    A multiply-add counts as one; LayerNorm, GroupNorm and InstanceNorm 5 per element (4 without
    scale), BatchNorm in eval mode 2, bilinear upsampling 4 per output element, nearest 1,
    adaptive average pooling 1 per input element; softmax, activations and additions nothing
    (``fvcore/nn/flop_count.py`` and ``jit_handles.py``). Unlike fvcore it counts fused attention,
    in full, and RMSNorm, as LayerNorm; and it needs no data: it works on meta tensors.

    Norms, pooling and fused attention are seen as a whole under ``torch.inference_mode()`` only,
    so use it there.

    Attributes:
        by_operator: FLOPs by name of the operator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_operator: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """FLOPs of everything so far."""
        return sum(self.by_operator.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operator = func.overloadpacket
        known = operator in _BY_INPUT or operator in _BY_OUTPUT or operator is aten.convolution
        if not known:
            with self:
                out = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if out is NotImplemented else out
        out = func(*args, **kwargs)
        if operator in _BY_INPUT:
            flops = _BY_INPUT[operator](*args, **kwargs)
        elif operator in _BY_OUTPUT:
            flops = out.numel() * _BY_OUTPUT[operator]
        else:
            flops = _convolution(args[0], args[1], out, transposed=args[6], groups=args[8])
        self.by_operator[str(operator)] += flops
        return out
