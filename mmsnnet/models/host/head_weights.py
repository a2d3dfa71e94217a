"""Weights of neck and heads: what a checkpoint has for them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..anchors.anchor_weights import read_state_dict
from .lookup import without_augmentation

#: Parts of a model that are not its neck or heads.
_OTHERS = ('backbone', 'data_preprocessor')


def head_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights of everything of a model but its backbone, by their names in a checkpoint."""
    state = without_augmentation(model).state_dict()
    return {name: value for name, value in state.items() if name.split('.')[0] not in _OTHERS}


def compare_heads(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What a state dict lacks for a model's heads, or has in another shape; empty if nothing."""
    missing = [name for name in own if name not in given]
    if missing:
        return f'it lacks {len(missing)} of their weights, e.g. {missing[0]}'
    wrong = [name for name, value in own.items() if value.shape != given[name].shape]
    if wrong:
        name = wrong[0]
        return f'{name} is {tuple(given[name].shape)} there and {tuple(own[name].shape)} here'
    return ''


def check_heads_loaded(model: nn.Module, checkpoint: str) -> None:
    """Refuse heads at random weights, which MMEngine leaves with a line in the log.

    Auxiliary heads, which only training uses, may differ.

    Args:
        model: Model into which the checkpoint was loaded.
        checkpoint: Its file.

    Raises:
        ValueError: If the file lacks a weight of neck or head, or has it in another shape.
    """
    own = {k: v for k, v in head_weights(model).items() if not k.startswith('auxiliary_head')}
    reason = compare_heads(own, read_state_dict(checkpoint))
    if reason:
        raise ValueError(
            f'Checkpoint {checkpoint} does not fit the neck and head of this config: {reason}. '
            'Give the one of the training of this config.'
        )
