"""Follows what error messages say until a config fits a StitchedViT."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

#: Stitches that are tested of each config.
STITCHES = 3
#: What messages say is to be written: "PLACE=VALUE ... put NEW" or "put PLACE=NEW".
_PLACE = r'[a-z_]+(?:\.\w+|\[\d+\])+'
PUT = re.compile(
    rf'(?P<place>{_PLACE})=.*: put (?P<value>.+?)'
    rf'(?: and (?P<place_too>{_PLACE})=(?P<value_too>.+?))?\.$'
)
SET = re.compile(rf'(?:set|put) (?P<place>{_PLACE})=(?P<value>\w+)')
REPLACE = re.compile(r'put (?P<place>[a-z_]+)=(?P<value>dict\(.+\))\.$')


@dataclass
class Outcome:
    """What happened with one config.

    Attributes:
        name: Config, as ``package::folder/file.py``.
        backbone: Class that was replaced.
        changes: What had to be written beside the backbone, as ``place=value``, from messages.
        stitches: Stitches tested.
        error: First line of what stopped it; empty if nothing did.
    """

    name: str
    backbone: str
    changes: list[str] = field(default_factory=list)
    stitches: list[str] = field(default_factory=list)
    error: str = ''


def tiny_anchors(depth: int, patch_size: int, **settings: Any) -> list[dict[str, Any]]:
    """Two anchors of widths 24 and 48 without weights, the small one half as deep.

    They expect images as they are, so that no preprocessor is wrong for them.
    """
    return [
        dict(
            model_name='vit_tiny_patch16_224',
            pretrained=False,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            model_kwargs=dict(
                depth=blocks, embed_dim=width, num_heads=3, patch_size=patch_size, **settings
            ),
        )
        for blocks, width in ((depth // 2, 24), (depth, 48))
    ]


def write(cfg: Any, place: str, value: Any) -> None:
    """Write a value into a config at a place such as ``model.auxiliary_head[1].in_channels``."""
    *path, last = re.sub(r'\[(\d+)\]', r'.\1', place).split('.')
    node = cfg
    for key in path:
        node = node[int(key) if key.isdigit() else key]
    node[last] = value


def follow(cfg: Any, message: str) -> list[str]:
    """Do what an error message says; returns it as ``place=value``.

    Raises:
        ValueError: If the message does not say what to write.
    """
    whole = REPLACE.search(message)
    if whole:
        call = ast.parse(whole['value'], mode='eval').body
        new = {item.arg: ast.literal_eval(item.value) for item in call.keywords}
        new.pop('_delete_', None)  # not named where there is no neck to replace
        cfg.model[whole['place']] = new
        return [f'model.{whole["place"]}={whole["value"]}']
    found = PUT.search(message) or SET.search(message)
    if not found:
        raise ValueError(message)
    said = found.groupdict()
    done = []
    for place, value in (('place', 'value'), ('place_too', 'value_too')):
        if said.get(place):
            where = said[place].removeprefix('model.')
            write(cfg.model, where, ast.literal_eval(said[value]))
            done.append(f'model.{where}={said[value]}')
    return done


def build(cfg: Any, changes: list[str], most: int = 20) -> Any:
    """Model of a config, after changing what messages say must be changed.

    Raises:
        ValueError: If a message does not say what to write, or there is no end of them.
    """
    from mmengine.model import revert_sync_batchnorm

    from mmsnnet.models.host.head_check import check_channels
    from mmsnnet.registry import MODELS

    for _ in range(most):
        try:
            model = MODELS.build(copy.deepcopy(cfg.model))
            check_channels(model)
        except (ValueError, TypeError) as error:
            changes += follow(cfg, str(error).splitlines()[0])
        else:
            model.init_weights()
            return revert_sync_batchnorm(model)
    raise ValueError(f'after {most} changes the config still does not fit')


def chosen(backbone: Any) -> Sequence[Any]:
    """Stitches to test, spread over the costs."""
    from mmsnnet.stitching import select_stitches

    return select_stitches(backbone.space, backbone.costs.flops, f'spread:{STITCHES}')


def check_finite(what: str, values: Any) -> None:
    """Raise a ValueError if a tensor holds values that are not finite."""
    import torch

    for value in values:
        if not torch.isfinite(torch.as_tensor(value)).all():
            raise ValueError(f'{what} gives values that are not finite')
