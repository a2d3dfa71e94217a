"""Neck and heads that start from another training of the same parts."""

from __future__ import annotations

from torch import nn

from mmsnnet.models.anchors.anchor_weights import read_state_dict
from mmsnnet.models.checkpoint_checks import differences
from mmsnnet.models.host.head_weights import head_weights
from mmsnnet.models.host.lookup import without_augmentation


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
