"""Weights of neck and heads from another training of the same parts."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from mmsnnet.models.anchor_weights import read_state_dict

#: Parts of a model that are not its neck or heads.
_OTHERS = ('backbone', 'data_preprocessor')


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
    model = model.module if is_model_wrapper(model) else model
    given = read_state_dict(checkpoint)
    own = {name: value for name, value in model.state_dict().items() if _is_ours(name)}
    missing = sorted(set(own) - set(given))
    if missing:
        raise ValueError(
            f'{checkpoint} cannot fill neck and heads: it lacks {len(missing)} of their weights, '
            f'e.g. {missing[0]}. head_checkpoint needs a model with the same neck and heads.'
        )
    wrong = [name for name, value in own.items() if value.shape != given[name].shape]
    if wrong:
        raise ValueError(
            f'{checkpoint} cannot fill neck and heads: {wrong[0]} is '
            f'{tuple(given[wrong[0]].shape)} there and {tuple(own[wrong[0]].shape)} here. '
            'head_checkpoint needs a model with the same neck and heads.'
        )
    weights: dict[str, Tensor] = {name: given[name] for name in own}
    model.load_state_dict(weights, strict=False)
    return list(dict.fromkeys(name.split('.')[0] for name in own))


def _is_ours(name: str) -> bool:
    return name.split('.')[0] not in _OTHERS
