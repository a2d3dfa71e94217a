"""Weights of neck and heads: what a checkpoint has for them."""

from __future__ import annotations

from torch import Tensor, nn

from ..anchors.anchor_weights import read_state_dict
from ..checkpoint_checks import differences
from .lookup import without_augmentation

#: Parts of a model that are not its neck or heads.
_OTHERS = ('backbone', 'data_preprocessor')


def head_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights of everything of a model but its backbone, by their names in a checkpoint."""
    state = without_augmentation(model).state_dict()
    return {name: value for name, value in state.items() if name.split('.')[0] not in _OTHERS}


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
    reason = differences(own, read_state_dict(checkpoint), may_have_more=True)
    if reason:
        raise ValueError(
            f'Checkpoint {checkpoint} does not fit the neck and head of this config: {reason}. '
            'Give the one of the training of this config.'
        )
