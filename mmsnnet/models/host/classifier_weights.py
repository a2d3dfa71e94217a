"""Starts the classifiers of a stitched model from those that its anchors were pretrained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..checkpoint_checks import differences
from .lookup import find_stitched_backbone, reads_anchor_tokens, without_augmentation


@dataclass(frozen=True)
class ClassifierStart:
    """What the classifier of an anchor starts from.

    Attributes:
        label: Label of the anchor.
        source: Where the anchor's weights came from.
        problem: Why their classifier was not taken, as what could follow ``source``; empty if it
            was.
    """

    label: str
    source: str
    problem: str = ''

    def __str__(self) -> str:
        if not self.problem:
            return f'Classifier of anchor {self.label} starts from {self.source}.'
        return f'Classifier of anchor {self.label} starts at random: {self.source} {self.problem}.'


def fill_classifiers(model: nn.Module) -> list[ClassifierStart]:
    """Fill the classifier of each anchor with the one that came with the anchor's weights.

    To be called behind ``init_weights()``. Each anchor alone then returns the logits of timm. What
    the weights had is let go of, so a second call does nothing.

    Args:
        model: Classifier, wrapped or not. Of models with other heads nothing is filled.

    Returns:
        For each anchor whose weights were loaded, what became of its classifier.
    """
    model = without_augmentation(model)
    if not reads_anchor_tokens(model):
        return []
    starts = []
    for label, anchor in find_stitched_backbone(model).anchors.items():
        if anchor.classifier is None:
            continue
        source, state = anchor.classifier
        anchor.classifier = None
        own = model.head.anchor_weights(label)
        problem = _problem_of(own, state)
        if not problem:
            with torch.no_grad():
                for name, weight in own.items():
                    weight.copy_(state[name])
        starts.append(ClassifierStart(label, source, problem))
    return starts


def check_filled(model: nn.Module, starts: list[ClassifierStart]) -> None:
    """Refuse a head of which a classifier is not the pretrained one of its anchor.

    Args:
        model: Classifier, wrapped or not.
        starts: Result of :func:`fill_classifiers`.

    Raises:
        ValueError: If one is not; the line says why, and what to put.
    """
    model = without_augmentation(model)
    if not reads_anchor_tokens(model):
        raise ValueError(
            f"StitchInitHook(classifiers='pretrained') fills a StitchedClsHead, and the model has "
            f'{type(getattr(model, "head", model)).__name__}: leave the argument out.'
        )
    problems = [f'{one.source} {one.problem}' for one in starts if one.problem]
    given = {one.label for one in starts}
    problems += [
        f'anchor {label} loads no weights' for label in model.head.classifiers if label not in given
    ]
    if problems:
        raise ValueError(
            f"StitchInitHook(classifiers='pretrained') cannot start them: {'; '.join(problems)}. "
            "To train on other classes put classifiers='auto', which starts such ones at random."
        )


def _problem_of(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Why a classifier cannot be filled, to stand behind the name of a file; empty if it can."""
    if 'head.weight' not in given:
        return 'holds no classifier'
    if 'head_dist.weight' in given:
        return 'holds two classifiers, of class and distillation token'
    classes, wanted = len(given['head.weight']), len(own['head.weight'])
    if classes != wanted:
        return f'has {classes} classes and head.num_classes={wanted}'
    has_norm = any(name.startswith('fc_norm.') for name in given)
    if has_norm != any(name.startswith('fc_norm.') for name in own):
        return f'{"normalises" if has_norm else "does not normalise"} what it pools: put ' + (
            f'head.fc_norm={has_norm}'
        )
    problems = differences(own, given)
    return f'does not fit: {problems}' if problems else ''
