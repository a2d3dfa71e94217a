"""Compiling the blocks of anchors, once for all blocks and routes of an anchor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import FunctionType
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from mmsnnet.compat.torch_versions import check_compiles_blocks

from .anchor_vit import AnchorViT
from .windowed import WindowedAnchor


class TensorDropPath(nn.Module):
    """Stochastic depth that keeps its rate in a tensor.

    torch.compile takes a number for a constant and would compile each block of a network anew, as
    each has a rate of its own; a tensor is an input. What it draws differs from timm's DropPath.

    Args:
        drop_prob: Probability to drop the path of a sample; the others are scaled up.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob
        self.register_buffer('keep_prob', torch.tensor(1.0 - drop_prob), persistent=False)

    def init_non_persistent_buffers(self) -> None:
        """Set the rate anew, as timm's modules do, where a model was built without memory."""
        self.keep_prob.fill_(1.0 - self.drop_prob)

    def forward(self, x: Tensor) -> Tensor:
        """Paths (B, N, C), in train mode some samples zero and the others scaled up."""
        if not self.training:
            return x
        kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) < self.keep_prob
        return x * (kept / self.keep_prob.clamp(min=1e-6)).to(x.dtype)


def compile_blocks(anchors: Iterable[AnchorViT], options: bool | Mapping[str, Any]) -> None:
    """Have torch.compile work on the blocks of anchors.

    The blocks of an anchor share one compiled function, to which weights are inputs. So what is
    compiled depends neither on the number of blocks nor on that of routes: one graph for each of
    train and eval mode, and one more for images of varying size. State dicts keep their keys.
    Blocks with windowed attention are cut into attention and MLP, which are compiled.

    Args:
        anchors: Anchors with their blocks in place.
        options: False leaves them alone; True or a dict of arguments of ``torch.compile``, such
            as ``dict(mode='max-autotune-no-cudagraphs')``, compiles.

    Forward hooks of a compiled module run as ever, outside of what is compiled.

    Raises:
        TypeError: If ``options`` is neither a boolean nor a dict.
        ValueError: If they ask for CUDA graphs, or torch is older than 2.5.
    """
    if not isinstance(options, (bool, Mapping)):
        raise TypeError(
            f'compile_blocks={options!r} must be True, False or a dict of arguments of '
            "torch.compile, such as dict(mode='max-autotune-no-cudagraphs')."
        )
    if options is False:
        return
    check_compiles_blocks()
    arguments = {} if options is True else dict(options)
    _check_no_cuda_graphs(arguments)
    for number, anchor in enumerate(anchors):
        _share_drop_path(anchor.vit.blocks)
        for kind, modules in _parts(anchor).items():
            call = torch.compile(_own_function(f'{kind}_of_anchor_{number}'), **arguments)
            for module in modules:
                # What nn.Module.compile sets; it is left out of copies and pickles.
                module._compiled_call_impl = partial(_call_with_hooks, call, module)


def _check_no_cuda_graphs(arguments: Mapping[str, Any]) -> None:
    """Refuse CUDA graphs: each replay writes its output where the last one lies.

    All blocks of an anchor share one function, so a block would overwrite the tap of another.
    """
    mode, options = arguments.get('mode'), arguments.get('options') or {}
    asked = [
        text
        for text, is_asked in (
            (f'mode={mode!r}', mode in ('reduce-overhead', 'max-autotune')),
            ("options={'triton.cudagraphs': True}", options.get('triton.cudagraphs')),
            ("backend='cudagraphs'", arguments.get('backend') == 'cudagraphs'),
        )
        if is_asked
    ]
    if asked:
        raise ValueError(
            f'compile_blocks cannot take {asked[0]}: its CUDA graphs would overwrite the features '
            "of blocks that share what is compiled; take mode='max-autotune-no-cudagraphs' or none."
        )


def _call_with_hooks(
    compiled: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any
) -> Any:
    """What calling a module gives, hooks included, with its forward compiled."""
    if not _has_hooks(module):
        return compiled(module, *args, **kwargs)
    # nn.Module runs all kinds of hooks around self.forward.
    module.__dict__['forward'] = partial(compiled, module)
    try:
        return module._call_impl(*args, **kwargs)
    finally:
        module.__dict__.pop('forward', None)


def _has_hooks(module: nn.Module) -> bool:
    """Whether a module has hooks of its own or of all modules (torch 2.1 has no call for these)."""
    kinds = ('forward_hooks', 'forward_pre_hooks', 'backward_hooks', 'backward_pre_hooks')
    everywhere = nn.modules.module
    return any(
        getattr(module, f'_{kind}') or getattr(everywhere, f'_global_{kind}') for kind in kinds
    )


def _parts(anchor: AnchorViT) -> dict[str, list[nn.Module]]:
    """Modules of an anchor that are called as a whole, by the function that they share."""
    blocks = list(anchor.vit.blocks)
    if isinstance(anchor, WindowedAnchor):
        return dict(attn=[block.attn for block in blocks], mlp=[block.mlp for block in blocks])
    return dict(block=blocks)


def _own_function(name: str) -> Callable[..., Any]:
    """A function that calls a module, with code of its own.

    torch.compile keeps and counts what it compiled by the code of the function: the anchors must
    not use up each other's share.
    """

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return type(module).forward(module, *args, **kwargs)

    return FunctionType(call.__code__.replace(co_name=name), call.__globals__, name)


def _share_drop_path(blocks: nn.Module) -> None:
    """Replace stochastic depth, its absence too, by modules that differ in tensors alone."""
    found = [
        (parent, name, child)
        for parent in blocks.modules()
        for name, child in parent.named_children()
        if name.startswith('drop_path')
    ]
    if any(isinstance(child, DropPath) for _, _, child in found):
        for parent, name, child in found:
            module = TensorDropPath(getattr(child, 'drop_prob', 0.0))
            setattr(parent, name, module.train(child.training))
