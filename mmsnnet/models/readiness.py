"""Says, once, that a backbone is about to run random weights."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmsnnet.stitching import Cross, Stitch, Tap

#: torch before 2.3 cannot tell; a warning within a compiled graph does no harm there.
_is_compiling = getattr(torch.compiler, 'is_compiling', lambda: False)


def warn_once(backbone: Any, subject: str, message: str) -> None:
    """Warn through MMEngine's logger, once for each backbone and subject."""
    if subject not in backbone.warned_of:
        backbone.warned_of.add(subject)
        print_log(message, logger='current', level=30)


def warn_of_train_mode(backbone: Any) -> None:
    """Say what a choice of stitch for eval means to a backbone in train mode."""
    warn_once(
        backbone,
        'mode',
        f'set_stitch chose {backbone.stitch.name} for eval mode, but this backbone is in '
        'train mode, where it samples another stitch at every forward (last_stitch tells which): '
        'call eval(), or set_training_stitch() to train one.',
    )


def refuse_frozen_random(backbone: Any) -> None:
    """Refuse to train beside frozen anchors that nothing pretrained was loaded into.

    Args:
        backbone: A StitchedViT about to train.

    Raises:
        ValueError: If its anchors are frozen, wholly or but for low-rank updates, and random.
    """
    known = backbone.was_loaded or not backbone.needs_anchor_weights
    if backbone.training_mode == 'full' or known:
        return
    anchors = backbone.anchors.items()
    random = [k for k, one in anchors if not (one.config.has_weights and backbone.is_init)]
    if random:
        raise ValueError(
            f'training={backbone.training_mode!r} keeps the anchors as they are, but nothing '
            f'pretrained was loaded into {" and ".join(random)}: name weights, '
            'anchors=[dict(model_name=..., checkpoint=FILE), ...], and call init_weights(), load '
            "a stitched checkpoint, or choose training='full'."
        )


def warn_if_random(backbone: Any, stitch: Stitch) -> None:
    """Warn of weights that were never loaded, and of stitch layers that were never fitted.

    Args:
        backbone: A StitchedViT.
        stitch: What it is about to run.
    """
    if _is_compiling():
        return
    wanted = [one.config.model_name for one in backbone.anchors.values() if one.config.has_weights]
    if wanted and not backbone.is_init and not backbone.was_loaded:
        warn_once(
            backbone,
            'weights',
            f'The anchors run at random weights: {" and ".join(wanted)} were never loaded. Call '
            'init_weights(), load a state dict, or build by StitchedViT.from_timm(...); '
            'skip_anchor_weights() says that you filled them yourself.',
        )
    if 'fit' in backbone.warned_of or not _uses_layers(backbone, stitch):
        return
    if _can_be_read(backbone.stitches_fitted) and not backbone.is_fitted:
        warn_once(
            backbone,
            'fit',
            f'{stitch.name} runs stitch layers that were never fitted: its features are noise. '
            'Call fit_stitches(images) after loading the anchors, or load the state dict of a '
            'stitched backbone.',
        )


def _uses_layers(backbone: Any, stitch: Stitch) -> bool:
    """Whether a stitch crosses between anchors or has a tap lifted."""
    return any(
        isinstance(step, Cross) or (isinstance(step, Tap) and step.lift is not None)
        for step in backbone.space.program(stitch)
    )


def _can_be_read(flag: Tensor) -> bool:
    """Whether a tensor has a value: one on the meta device, or a fake one, has not."""
    return type(flag) is Tensor and not flag.is_meta
