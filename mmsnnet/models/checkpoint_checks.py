"""Checks of what a checkpoint hands to the backbone."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn


def prepare_checkpoint(
    network: nn.Module, state_dict: MutableMapping[str, Tensor], prefix: str
) -> None:
    """Check a state dict against a network, and lay out its position embeddings for it.

    MMEngine loads with ``strict=False``, which would leave what does not fit as it is, at random
    values. A state dict without any anchor under ``prefix`` is left to the caller.

    Raises:
        ValueError: If weights are missing, are too many, or differ in shape.
    """
    given = {key[len(prefix) :] for key in state_dict if key.startswith(prefix)}
    if not any(key.startswith('anchors.') for key in given):
        return
    own = network.state_dict()
    grid_key = f'{prefix}position_grid'
    stored = state_dict.get(grid_key)  # files without it count as square
    old_grid = None if stored is None else tuple(stored.tolist())
    for label, anchor in network.anchors.items():
        place = f'{prefix}anchors.{label}.vit.'
        anchor.fit_positions(state_dict, place, old_grid)
    given.add('position_grid')
    state_dict[grid_key] = own['position_grid']
    problems = differences(own, {key: state_dict[prefix + key] for key in given})
    if problems:
        anchors = ', '.join(f'{a.label}: {a.depth} x {a.width}' for a in network.space.anchors)
        raise ValueError(
            f'The checkpoint is of another backbone than this StitchedViT ({anchors}): '
            f'{problems}. Use the anchors, scheme, out_indices and lora_rank of its '
            'training, and its img_size unless that is square.'
        )
    network.was_loaded = True
    fitted = state_dict.get(f'{prefix}stitches_fitted')
    if fitted is not None and not bool(fitted):
        print_log(
            'The stitch layers of this checkpoint were never fitted: stitches other than single '
            'anchors give noise until a training fits them.',
            logger='current',
            level=30,
        )


def check_initialized(
    network: nn.Module, init_cfg: Mapping[str, Any] | Sequence[Mapping[str, Any]]
) -> None:
    """Refuse an ``init_cfg`` that named a file without anchors, which leaves them random.

    Raises:
        ValueError: If a checkpoint was to be loaded and held no anchor.
    """
    parts = [init_cfg] if isinstance(init_cfg, Mapping) else init_cfg
    files = [part.get('checkpoint') for part in parts if part.get('type') == 'Pretrained']
    if files and not network.was_loaded:
        raise ValueError(
            f'init_cfg of StitchedViT names {files[0]!r}, which holds no stitched backbone: give '
            'the prefix of the backbone there, or name the file of an anchor by '
            'anchors=[dict(model_name=..., checkpoint=FILE), ...].'
        )


def differences(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], may_have_more: bool = False
) -> str:
    """What a state dict lacks, has too much of, or has in another shape, each with an example.

    Args:
        own: State dict of a model.
        given: State dict that is to be loaded into it.
        may_have_more: Whether names that the model does not have are no difference.

    Returns:
        Words to stand within a sentence; empty if the state dict fits.
    """
    missing, extra = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    wrong = [key for key in own if key in given and given[key].shape != own[key].shape]
    problems = []
    if wrong:
        problems.append(
            f'{len(wrong)} shapes differ, e.g. {wrong[0]} is {tuple(given[wrong[0]].shape)} there '
            f'and {tuple(own[wrong[0]].shape)} here'
        )
    if missing:
        problems.append(f'{len(missing)} weights are missing, e.g. {missing[0]}')
    if extra and not may_have_more:
        problems.append(f'{len(extra)} weights have no place here, e.g. {extra[0]}')
    return '; '.join(problems)
