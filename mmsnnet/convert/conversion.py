"""Converts state dicts of whole models between the published layouts and ours.

Published segmentors and published classifiers have a layout each; the model says which it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from mmsnnet.models import StitchedViT, find_stitched_backbone
from mmsnnet.models.host.lookup import reads_anchor_tokens

from .classifier_layout import classifier_names, classifier_rules, is_published_classifier
from .published_layout import backbone_rules
from .published_names import published_names
from .rule import Rule

BACKBONE = 'backbone.'


@dataclass(frozen=True)
class Conversion:
    """A converted state dict and what did not fit.

    Attributes:
        state: Converted weights.
        unmatched: Names in the given state dict that were left out, with the reason.
        missing: Names that the converted state dict should have and has not.
    """

    state: dict[str, Tensor]
    unmatched: dict[str, str]
    missing: tuple[str, ...]


def from_published(
    state: Mapping[str, Tensor],
    model: nn.Module,
    allow: Sequence[str] = (),
    lora_merged: bool = False,
) -> Conversion:
    """State dict of a published segmentor or classifier as one of ours.

    The published code merges the low-rank update of a stitch layer into its weight on ``eval()``
    and keeps the update beside it. A checkpoint saved then looks like any other: nothing in it
    tells. Give ``lora_merged=True`` for one, or the update counts twice.

    Args:
        state: Weights with the names ``backbone.anchors.0.cls_token``, ``decode_head. ...`` of a
            segmentor, ``anchors.0.cls_token``, ``anchors.0.head.weight`` of a classifier, or
            other spellings that :func:`.published_names` and :func:`.classifier_names` know.
        model: Our segmentor, or classifier with a StitchedClsHead, for them; it may live on the
            meta device.
        allow: Patterns (``decode_head.*``) of names that may stay unmatched or missing.
        lora_merged: Whether the checkpoint was saved in eval mode.

    Raises:
        ValueError: If the checkpoint is of other anchors, or names do not match.
    """
    backbone = find_stitched_backbone(model)
    _check_task(state, model)
    state = classifier_names(state) if reads_anchor_tokens(model) else published_names(state)
    _check_anchors(state, backbone)
    found = _convert(state, model, _rules(model, lora_merged), reverse=False)
    found.state.update(_constants(backbone))
    unwritten = set(model.state_dict()) - set(found.state) - set(found.missing)
    missing = (*found.missing, *sorted(unwritten))
    return _checked(Conversion(found.state, found.unmatched, missing), allow)


def to_published(
    state: Mapping[str, Tensor],
    model: nn.Module,
    allow: Sequence[str] = (),
    class_position: bool = False,
) -> Conversion:
    """State dict of one of our models in the published layout, low-rank updates unmerged.

    It computes the same. A key bias of a segmentor, which has no effect, comes out as zero; the
    position of its class token is added to the token, unless the layout has a row for it. The layer
    of published classifiers that no stitch uses comes out as zero.

    Args:
        state: Weights of our segmentor, or of our classifier with a StitchedClsHead.
        model: That model; it may live on the meta device.
        allow: Patterns of names that may stay unmatched or missing.
        class_position: Whether position embeddings have a row for the class token there, as with
            the published code's ``is_deit_3=False``; of segmentors alone.

    Raises:
        ValueError: If the published layout has no place for such a model, or names do not match.
    """
    backbone = find_stitched_backbone(model)
    while state and all(name.startswith('module.') for name in state):
        state = {name[len('module.') :]: value for name, value in state.items()}
    if not any(f'{BACKBONE}anchors.{label}.vit.cls_token' in state for label in backbone.anchors):
        raise ValueError(
            'The checkpoint is not of this StitchedViT: it has no '
            f'{BACKBONE}anchors.{next(iter(backbone.anchors))}.vit.cls_token.'
        )
    kept = _constants(backbone)
    state = {key: value for key, value in state.items() if key not in kept}
    rules = _rules(model, class_position=class_position)
    return _checked(_convert(state, model, rules, reverse=True), allow)


def _rules(
    model: nn.Module, lora_merged: bool = False, class_position: bool = False
) -> list[Rule]:
    if reads_anchor_tokens(model):
        if class_position:
            raise ValueError(
                'Published classifiers have no position for the class token: leave out '
                '--class-position.'
            )
        own = model.state_dict()
        rules = classifier_rules(model, lora_merged)
        return [rule for rule in rules if all(name in own for name in rule.ours)]
    backbone = find_stitched_backbone(model)
    own = model.state_dict()
    rules = [Rule.rename(name, name) for name in own if not name.startswith(BACKBONE)]
    for rule in backbone_rules(backbone, lora_merged, class_position):
        names = [tuple(BACKBONE + name for name in side) for side in (rule.published, rule.ours)]
        if all(name in own for name in names[1]):
            rules.append(Rule(*names, rule.convert, rule.restore))
    return rules


def _constants(backbone: StitchedViT) -> dict[str, Tensor]:
    """Weights of ours that follow from nothing there: counters, and norms that nothing uses."""
    constants = {
        'training_steps': torch.tensor(0),
        'stitches_fitted': torch.tensor(True),
        # Not the buffer: a model on the meta device has no numbers in it.
        'position_grid': torch.tensor(backbone.anchor(0).vit.patch_embed.grid_size),
    }
    for label, anchor in backbone.anchors.items():
        if backbone.space.normed_taps:
            break  # the published weights have norms that are used
        for name, value in anchor.vit.norm.named_parameters():
            filled = torch.full(value.shape, float(name == 'weight'))
            constants[f'anchors.{label}.vit.norm.{name}'] = filled
    return {BACKBONE + name: value for name, value in constants.items()}


def _convert(
    state: Mapping[str, Tensor], model: nn.Module, rules: Sequence[Rule], reverse: bool
) -> Conversion:
    own = {name: value.shape for name, value in model.state_dict().items()}
    converted: dict[str, Tensor] = {}
    unmatched = dict.fromkeys(state, 'has no place')
    missing: list[str] = []
    for rule in rules:
        reads, writes = rule.names(reverse)
        if not all(name in state for name in reads):
            missing += writes
            continue
        values = tuple(state[name] for name in reads)
        wrong = _wrong_shapes(rule.ours, values, own) if reverse else ''
        results = () if wrong else rule.apply(values, reverse)
        wrong = wrong or ('' if reverse else _wrong_shapes(rule.ours, results, own))
        for name in reads:
            unmatched[name] = wrong
        if wrong:
            missing += writes
        else:
            converted.update(zip(writes, results))
    left = {name: reason for name, reason in unmatched.items() if reason}
    return Conversion(converted, left, tuple(missing))


def _wrong_shapes(
    names: Sequence[str], values: Sequence[Tensor], own: Mapping[str, torch.Size]
) -> str:
    for name, value in zip(names, values):
        if value.shape != own[name]:
            return f'would be {tuple(value.shape)} where the config has {tuple(own[name])}'
    return ''


def _check_task(state: Mapping[str, Tensor], model: nn.Module) -> None:
    """Tell a checkpoint of another task than the config's."""
    given, wanted = is_published_classifier(state), reads_anchor_tokens(model)
    if given and not wanted:
        raise ValueError(
            f'The checkpoint is of a published classifier, the config of a {type(model).__name__} '
            'without a StitchedClsHead: give a config such as cls_snnetv2_s-l_in1k.py.'
        )
    if wanted and not given:
        raise ValueError(
            'The checkpoint is not of a published SN-Netv2 classifier: it has no '
            'anchors.0.head.weight (--reverse goes from ours to theirs; checkpoints of segmentors '
            'need the config of a segmentor).'
        )


def _check_anchors(state: Mapping[str, Tensor], backbone: StitchedViT) -> None:
    """Tell anchors of other shapes in one line, before any of their weights is named."""
    shapes = []
    for number in range(len(backbone.anchors) + 1):
        pattern = re.compile(rf'({BACKBONE})?anchors\.{number}\.(layers|blocks)\.(\d+)\.')
        depths = [int(found[3]) + 1 for found in map(pattern.match, state) if found]
        norms = (f'{BACKBONE}anchors.{number}.layers.0.ln1', f'anchors.{number}.blocks.0.norm1')
        widths = [state[f'{name}.weight'].shape[-1] for name in norms if f'{name}.weight' in state]
        if depths and widths:
            shapes.append(f'{max(depths)} x {widths[0]}')
    if not shapes:
        raise ValueError(
            'The checkpoint is not of a published SN-Netv2: it has no '
            f'{BACKBONE}anchors.0.layers.0 (--reverse goes from ours to theirs).'
        )
    wanted = [f'{anchor.depth} x {anchor.width}' for anchor in backbone.space.anchors]
    if shapes != wanted:
        raise ValueError(
            f'The checkpoint has anchors of {" and ".join(shapes)} (blocks x width), the config of '
            f'{" and ".join(wanted)}.'
        )


def _checked(found: Conversion, allow: Sequence[str]) -> Conversion:
    """The conversion, unless names that ``allow`` does not cover are unmatched or missing.

    Raises:
        ValueError: With all such names.
    """

    def covered(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in allow)

    problems = [f'{name} {why}' for name, why in found.unmatched.items() if not covered(name)]
    absent = (name for name in found.missing if name not in found.unmatched)
    problems += [f'{name} is missing' for name in absent if not covered(name)]
    if problems:
        raise ValueError(
            f'{len(problems)} weights do not match the config; give their names or patterns to '
            f'--allow if they may be left out: {"; ".join(problems)}.'
        )
    return found
