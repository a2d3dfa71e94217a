"""Starts the classifiers of a stitched model from those that its anchors were pretrained with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from ..checkpoint_checks import differences
from .lookup import find_stitched_backbone, reads_anchor_tokens


def fill_classifiers(model: nn.Module) -> list[str]:
    """Fill the classifier of each anchor with the one that came with the anchor's weights.

    To be called behind ``init_weights()``. Each anchor alone then returns the logits of timm. What
    the weights had is let go of, so a second call does nothing.

    Args:
        model: Classifier, wrapped or not. Of models with other heads nothing is filled.

    Returns:
        For each anchor whose weights were loaded, a line that says what became of its classifier.
    """
    model = model.module if is_model_wrapper(model) else model
    if not reads_anchor_tokens(model):
        return []
    lines = []
    for label, anchor in find_stitched_backbone(model).anchors.items():
        if anchor.classifier is None:
            continue
        source, state = anchor.classifier
        anchor.classifier = None
        reason = _reason_to_leave(model.head.anchor_weights(label), state)
        if reason:
            lines.append(f'Classifier of anchor {label} starts at random: {source} {reason}.')
            continue
        with torch.no_grad():
            for name, weight in model.head.anchor_weights(label).items():
                weight.copy_(state[name])
        lines.append(f'Classifier of anchor {label} starts from {source}.')
    return lines


def _reason_to_leave(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Why a classifier cannot be filled, to stand behind the name of a file; empty if it can."""
    if 'head.weight' not in given:
        return 'holds no classifier'
    if 'head_dist.weight' in given:
        return 'holds two classifiers, of class and distillation token'
    classes, wanted = len(given['head.weight']), len(own['head.weight'])
    if classes != wanted:
        return f'has {classes} classes and the head {wanted}'
    has_norm = any(name.startswith('fc_norm.') for name in given)
    if has_norm != any(name.startswith('fc_norm.') for name in own):
        return f'{"normalises" if has_norm else "does not normalise"} what it pools: put ' + (
            f'head.fc_norm={has_norm}'
        )
    problems = differences(own, given)
    return f'does not fit: {problems}' if problems else ''
