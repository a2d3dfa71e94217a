"""Low-rank updates of an anchor's attention and MLP, by the library PEFT (extra ``lora``)."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from mmsnnet.stitching.value_checks import check_integer, check_number

#: PEFT's name of the one update of a layer, which is part of the names of its weights.
_ADAPTER = 'default'
#: Buffer of a ViT: what the products of its updates are multiplied by.
SCALE = 'lora_scale'


@dataclass(frozen=True)
class LoraSettings:
    """What ``anchor_lora`` says of the updates (LoRA, arXiv 2106.09685).

    Attributes:
        rank: Rank of each update.
        alpha: Updates are scaled by ``alpha / rank``; None takes the rank.
        dropout: Rate of dropout on the inputs of updates while they train.
    """

    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0

    @classmethod
    def parse(cls, given: Mapping[str, Any] | None) -> LoraSettings:
        """Settings of a dict with these attributes as keys; None gives the defaults.

        Raises:
            TypeError: If it is no dict, or a value is no number.
            ValueError: If a key is unknown, or a value not possible.
        """
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f'anchor_lora={given!r} must be a dict such as dict(rank=16).')
        allowed = [field.name for field in fields(cls)]
        unknown = sorted(set(given or {}) - set(allowed))
        if unknown:
            raise ValueError(f'anchor_lora does not know {unknown}; it takes {allowed}.')
        settings = cls(**(given or {}))
        if check_integer('rank of anchor_lora', settings.rank) < 1:
            raise ValueError(f'rank={settings.rank} of anchor_lora must be 1 or more.')
        if settings.alpha is not None and check_number('alpha of anchor_lora', settings.alpha) <= 0:
            raise ValueError(f'alpha={settings.alpha} of anchor_lora must be positive.')
        if not 0 <= check_number('dropout of anchor_lora', settings.dropout) < 1:
            raise ValueError(f'dropout={settings.dropout} of anchor_lora must be in [0, 1).')
        return settings

    @property
    def scale(self) -> float:
        """What the product of an update's two matrices is multiplied by."""
        return (self.rank if self.alpha is None else self.alpha) / self.rank


def add_lora(vit: nn.Module, settings: LoraSettings) -> None:
    """Give every linear layer in the blocks of a ViT a low-rank update, and freeze the rest.

    Updates start at zero. In state dicts the layers keep the names that timm gives them, the
    updates stand beside them as ``....lora_A.default.weight`` and ``....lora_B.default.weight``,
    and ``lora_scale`` beside the blocks: PEFT itself would rename the layers.

    Raises:
        ImportError: If PEFT is not installed.
        ValueError: If a layer of the ViT is used in a way that would pass by its update.
    """
    peft = _require_peft()
    for attention in vit.blocks.modules():
        if getattr(attention, 'q_bias', None) is not None:
            _call_projection(attention)
    names = [
        f'blocks.{name}' for name, layer in vit.blocks.named_modules() if type(layer) is nn.Linear
    ]
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.rank * settings.scale,
        lora_dropout=settings.dropout,
        target_modules=names,
    )
    peft.inject_adapter_in_model(config, vit, adapter_name=_ADAPTER)
    vit.requires_grad_(False)
    for name in names:
        layer = vit.get_submodule(name)
        layer.lora_A.requires_grad_(True)
        layer.lora_B.requires_grad_(True)
        layer._register_state_dict_hook(_name_as_timm)
        layer._register_load_state_dict_pre_hook(_name_as_peft)
    vit.register_buffer(SCALE, torch.tensor(settings.scale))


def _call_projection(attention: nn.Module) -> None:
    """Let an attention call its projection as a layer; it may take the weight out by itself.

    Raises:
        ValueError: If this version of timm has no switch for that.
    """
    if not hasattr(attention, 'qkv_bias_separate'):
        raise ValueError(
            f"training='lora' cannot reach the projection of {type(attention).__name__} in this "
            "version of timm: update timm, or choose training='stitches' or 'full'."
        )
    attention.qkv_bias_separate = True


def _require_peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError(
            "training='lora' needs the library PEFT, which is not installed: pip install "
            '"mmsnnet[lora]".'
        ) from error
    return peft


def _name_as_timm(_: nn.Module, state: MutableMapping[str, Any], prefix: str, *more: Any) -> None:
    """Take PEFT's part out of the names that a layer wrote into a state dict."""
    for kind in ('weight', 'bias'):
        value = state.pop(f'{prefix}base_layer.{kind}', None)
        if value is not None:
            state[f'{prefix}{kind}'] = value


def _name_as_peft(state: MutableMapping[str, Any], prefix: str, *more: Any) -> None:
    """Put it in again, for a state dict about to be loaded."""
    for kind in ('weight', 'bias'):
        value = state.pop(f'{prefix}{kind}', None)
        if value is not None:
            state[f'{prefix}base_layer.{kind}'] = value


def has_lora(vit: nn.Module) -> bool:
    """Whether a ViT has low-rank updates."""
    return hasattr(vit, SCALE)


def unload_lora(vit: nn.Module) -> None:
    """Add the updates of a ViT to its weights, and make it a ViT of timm again; in place."""
    if not has_lora(vit):
        return
    state = vit.state_dict()
    merge_lora(state)
    for name, layer in list(vit.named_modules()):
        if hasattr(layer, 'base_layer') and hasattr(layer, 'lora_A'):
            parent, _, child = name.rpartition('.')
            setattr(vit.get_submodule(parent), child, layer.base_layer)
        elif hasattr(layer, 'qkv_bias_separate'):
            layer.qkv_bias_separate = False
    del vit._buffers[SCALE]
    vit.load_state_dict(state)


def merge_lora(state: MutableMapping[str, Tensor], prefix: str = '') -> None:
    """Add the updates in a state dict to its weights, in place; without updates it stays.

    Args:
        state: State dict; the tensors themselves are not changed.
        prefix: What the names of the ViT begin with in it.
    """
    scale = state.pop(f'{prefix}{SCALE}', None)
    if scale is None:
        return
    ending = f'.lora_A.{_ADAPTER}.weight'
    for name in [one for one in state if one.startswith(prefix) and one.endswith(ending)]:
        layer = name[: -len(ending)]
        down, up = state.pop(name), state.pop(f'{layer}.lora_B.{_ADAPTER}.weight')
        weight = state[f'{layer}.weight'].detach()
        state[f'{layer}.weight'] = weight + scale.to(weight) * (up.detach() @ down.detach())


def fit_lora(vit: nn.Module, state: MutableMapping[str, Tensor], prefix: str = '') -> None:
    """Make a state dict have the updates that a ViT has, in place.

    Updates that the ViT has no place for are added to the weights. Where it has some and the
    state dict, of a full training, has none, they start anew at zero.

    Args:
        vit: The ViT.
        state: State dict; one without the ViT's weights is left alone.
        prefix: What the names of the ViT begin with in it.

    Raises:
        ValueError: If both have updates, but scaled differently.
    """
    if not has_lora(vit):
        merge_lora(state, prefix)
        return
    own, given = getattr(vit, SCALE), state.get(f'{prefix}{SCALE}')
    if given is None:
        if any(name.startswith(f'{prefix}blocks.') for name in state):
            state.update(_fresh_updates(vit, prefix))
    elif not own.is_meta and not torch.isclose(given.to(own), own):
        raise ValueError(
            f'The checkpoint scales the low-rank updates of its anchors by {float(given):g}, this '
            f'StitchedViT by {float(own):g}: give the anchor_lora of its training.'
        )


def _fresh_updates(vit: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Updates of a ViT as they are before training, by their names in a state dict."""
    fresh = {}
    for name, value in vit.state_dict().items():
        if name == SCALE or f'.lora_A.{_ADAPTER}' in name:
            fresh[f'{prefix}{name}'] = value
        elif f'.lora_B.{_ADAPTER}' in name:
            fresh[f'{prefix}{name}'] = torch.zeros_like(value)
    return fresh
