"""A backbone's arguments as JSON, and back: what config.json of a saved backbone says."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from torch import nn

from mmsnnet.results.files import parse_json
from mmsnnet.version import __version__

from .anchors.anchor_config import AnchorConfig

CONFIG_NAME = 'config.json'
#: Packages whose classes of modules a config may name.
_PACKAGES = ('timm', 'torch')


def config_of(backbone: nn.Module) -> dict[str, Any]:
    """What builds a StitchedViT again, for its weights to be loaded.

    Raises:
        ValueError: If JSON cannot say an argument.
    """
    return {
        'architecture': 'StitchedViT',
        'mmsnnet_version': __version__,
        'arguments': arguments_of(backbone),
    }


def arguments_of(backbone: nn.Module) -> dict[str, Any]:
    """Arguments of a StitchedViT, its active stitch among them, as JSON can say them.

    Raises:
        ValueError: If JSON cannot say one.
    """
    positional, named = backbone.call
    bound = inspect.signature(type(backbone).__init__).bind(backbone, *positional, **named)
    bound.apply_defaults()
    given = dict(list(bound.arguments.items())[1:])
    given.pop('inherited', None)
    given.pop('init_cfg', None)  # weights come with the config
    given['anchors'] = [_anchor(anchor.config) for anchor in backbone.anchors.values()]
    given['stitch'] = backbone.stitch.name
    return {key: encode(value, key) for key, value in given.items()}


def arguments_of_json(arguments: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Arguments for the constructor, from those that :func:`arguments_of` gave.

    Raises:
        ValueError: If one names a class that is no module of timm or torch.
    """
    return {key: decode(value, source) for key, value in arguments.items()}


def read_config(folder: Path, source: object) -> dict[str, Any]:
    """Config of a folder, its arguments as the constructor takes them.

    Args:
        folder: Folder with config.json.
        source: What the user gave, to be named.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged or of another model.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f'{source} has no {CONFIG_NAME}: it was not written by save_pretrained() of a '
            'StitchedViT. Checkpoints of training are loaded by load_state_dict().'
        )
    try:
        config = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'{path} cannot be read: {error}.') from None
    if not isinstance(config, dict) or config.get('architecture') != 'StitchedViT':
        raise ValueError(f'{path} is not the config of a StitchedViT but of another model.')
    if not isinstance(config.get('arguments'), dict):
        raise ValueError(f'{path} has no arguments of a StitchedViT.')
    return {**config, 'arguments': arguments_of_json(config['arguments'], path)}


def _anchor(config: AnchorConfig) -> dict[str, Any]:
    """An anchor's settings but for where its weights came from, which its backbone now holds."""
    origin = ('checkpoint', 'checkpoint_prefix')
    settings = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in origin}
    return {**settings, 'pretrained': False, 'model_kwargs': dict(config.model_kwargs)}


def encode(value: Any, place: str) -> Any:
    """A value as JSON can say it.

    Classes of modules in timm and torch are named by their paths; so are partials of them.

    Raises:
        ValueError: If JSON cannot say it.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): encode(one, f'{place}[{key!r}]') for key, one in value.items()}
    if isinstance(value, Sequence):
        return [encode(one, place) for one in value]
    if isinstance(value, functools.partial) and not value.args:
        return {**encode(value.func, place), '__arguments__': encode(value.keywords, place)}
    if inspect.isclass(value) and value.__module__.split('.')[0] in _PACKAGES:
        return {'__class__': f'{value.__module__}:{value.__qualname__}'}
    if inspect.isclass(value) and place.endswith("['type']"):  # of a registry
        return value.__name__
    raise ValueError(
        f'{place}={value!r} cannot be written to {CONFIG_NAME}: give it as text, a number, a list, '
        'a dict or a class of timm or torch.'
    )


def decode(value: Any, source: object) -> Any:
    """What :func:`encode` made JSON of.

    Raises:
        ValueError: If a class is not a module of timm or torch.
    """
    if isinstance(value, list):
        return [decode(one, source) for one in value]
    if not isinstance(value, dict):
        return value
    if '__class__' not in value:
        return {key: decode(one, source) for key, one in value.items()}
    name = value['__class__']
    module, _, attribute = str(name).partition(':')
    found = None
    if module.split('.')[0] in _PACKAGES:
        try:
            found = getattr(importlib.import_module(module), attribute, None)
        except ImportError:
            found = None
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise ValueError(f'{source} names {name!r}, which is no module of timm or torch here.')
    arguments = decode(value.get('__arguments__', {}), source)
    return functools.partial(found, **arguments) if arguments else found
