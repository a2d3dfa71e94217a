"""Running modules on shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def _on_meta(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Eval mode and meta tensors for all submodules; each has its own back afterwards.

    ``torch.func.functional_call`` would not do: a submodule registered under two names would
    keep the meta tensors. Attributes are put back too, for modules that keep what they computed.
    """
    children = {id(child): child for module in modules for child in module.modules()}.values()
    stores = [store for child in children for store in (child._parameters, child._buffers)]
    tensors = [dict(store) for store in stores]
    attributes = [dict(vars(child)) for child in children]
    try:
        for child in children:
            child.training = False
        for store in stores:
            for name, tensor in store.items():
                if tensor is not None:
                    store[name] = torch.empty_like(tensor, device='meta')
        yield
    finally:
        states = stores + [vars(child) for child in children]
        for state, former in zip(states, tensors + attributes):
            state.clear()
            state.update(former)


def meta_features(
    channels: int, grid: tuple[int, int], num_maps: int, with_cls_token: bool = False
) -> tuple[Any, ...]:
    """What a stitched backbone hands on, as tensors without data.

    Args:
        channels: Channels of each map.
        grid: (rows, columns) of each map.
        num_maps: Number of maps.
        with_cls_token: Pair each map with its class token.

    Returns:
        Maps (1, channels, rows, columns), or pairs of such a map and a token (1, channels).
    """
    maps = [torch.empty(1, channels, *grid, device='meta') for _ in range(num_maps)]
    if with_cls_token:
        return tuple((item, torch.empty(1, channels, device='meta')) for item in maps)
    return tuple(maps)


def meta_call(modules: Iterable[nn.Module], run: Callable[..., Any], *inputs: Any) -> Any:
    """``run(*inputs)`` with all tensors of ``modules`` replaced by meta tensors meanwhile.

    Nothing is computed and no memory is taken, wherever the modules live. They are in eval mode
    during the call; their modes, parameters and buffers are the same again afterwards.

    Args:
        modules: Modules that ``run`` calls.
        run: What is to be executed.
        inputs: Meta tensors, or nests of them.
    """
    with torch.inference_mode(), _on_meta(modules):
        return run(*inputs)
