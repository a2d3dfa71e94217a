"""Weights of neck and heads: what a checkpoint has for them, and filling them from it."""

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


def load_head_weights(model: nn.Module, checkpoint: str) -> list[str]:
    """Fill everything of a model but its backbone from a checkpoint.

    Every stitch hands on maps in the feature space of the largest anchor, so the head of a model
    that was trained with this anchor alone is a better beginning than random weights.

    Args:
        model: Model, wrapped or not.
        checkpoint: File of a model with the same neck and heads. Heads that only the file has,
            such as auxiliary ones, are left out.

    Returns:
        Names of the parts that were filled, such as ``['neck', 'decode_head']``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file lacks a weight of the model, or one has another shape.
    """
    own, given = head_weights(model), read_state_dict(checkpoint)
    reason = differences(own, given, may_have_more=True)
    if reason:
        raise ValueError(
            f'{checkpoint} cannot fill neck and heads: {reason}. '
            'head_checkpoint needs a model with the same neck and heads.'
        )
    weights = {name: given[name] for name in own}
    without_augmentation(model).load_state_dict(weights, strict=False)
    return list(dict.fromkeys(name.split('.')[0] for name in own))
