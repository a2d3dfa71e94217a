"""Converts state dicts of whole segmentors between the published layout and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from mmsnnet.models import StitchedViT, find_stitched_backbone

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
    """State dict of a published segmentor as one of ours.

    The published code merges the low-rank update of a stitch layer into its weight on ``eval()``
    and keeps the update beside it. A checkpoint saved then looks like any other: nothing in it
    tells. Give ``lora_merged=True`` for one, or the update counts twice.

    Args:
        state: Weights with the names ``backbone.anchors.0.cls_token``, ``decode_head. ...``, or
            other spellings of them that :func:`.published_names.published_names` knows.
        model: Our segmentor for them; it may live on the meta device.
        allow: Patterns (``decode_head.*``) of names that may stay unmatched or missing.
        lora_merged: Whether the checkpoint was saved in eval mode.

    Raises:
        ValueError: If the checkpoint is of other anchors, or names do not match.
    """
    backbone = find_stitched_backbone(model)
    state = published_names(state)
    _check_anchors(state, backbone)
    found = _convert(state, model, _rules(model, lora_merged), reverse=False)
    found.state.update(_constants(backbone))
    return _checked(found, allow)


def to_published(
    state: Mapping[str, Tensor],
    model: nn.Module,
    allow: Sequence[str] = (),
    class_position: bool = False,
) -> Conversion:
    """State dict of one of our segmentors in the published layout, low-rank updates unmerged.

    It computes the same. A key bias, which has no effect, comes out as zero; the position of the
    class token is added to the token, unless the layout has a row for it.

    Args:
        state: Weights of our segmentor.
        model: That segmentor; it may live on the meta device.
        allow: Patterns of names that may stay unmatched or missing.
        class_position: Whether position embeddings have a row for the class token there, as with
            the published code's ``is_deit_3=False``.

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


def _check_anchors(state: Mapping[str, Tensor], backbone: StitchedViT) -> None:
    """Tell anchors of other shapes in one line, before any of their weights is named."""
    shapes = []
    for number in range(len(backbone.anchors) + 1):
        pattern = re.compile(rf'{BACKBONE}anchors\.{number}\.layers\.(\d+)\.')
        depths = [int(found[1]) + 1 for found in map(pattern.match, state) if found]
        norm = state.get(f'{BACKBONE}anchors.{number}.layers.0.ln1.weight')
        if depths and norm is not None:
            shapes.append(f'{max(depths)} x {norm.shape[-1]}')
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
