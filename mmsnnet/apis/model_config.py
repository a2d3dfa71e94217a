"""Models of configs, by file name or as they are."""

from __future__ import annotations

from os import PathLike
from typing import Any

import torch
from mmengine import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmsnnet.models.heads import require_mmpretrain
from mmsnnet.recipes import find_config


def load_model_config(
    config: str | PathLike | Config, options: dict[str, Any] | None = None
) -> Config:
    """Config of a model.

    Args:
        config: Config, its file, or the name of an installed recipe.
        options: Overrides, merged into it.

    Raises:
        FileNotFoundError: If there is no such file or recipe.
        ImportError: If its host is MMPretrain and is not installed, or too old.
        ValueError: If it describes no model, or an override does not fit.
    """
    if isinstance(config, Config):
        path = config.filename
    else:
        path = find_config(config)
        config = Config.fromfile(path)
    _override(config, options or {})
    if not isinstance(config.get('model'), dict):
        raise ValueError(
            f'Config {path} has no model.'
            if config.get('model') is None
            else f'model in config {path} must be a dict, got {config.model!r}.'
        )
    if config.get('default_scope') == 'mmpretrain':
        require_mmpretrain("default_scope='mmpretrain'")
    return config


def _override(config: Config, options: dict[str, Any]) -> None:
    """Set values of a config, all at once: ``_delete_`` belongs to the others beside it.

    Raises:
        ValueError: If a key leads through something that is neither a dict nor a list.
    """
    try:
        config.merge_from_dict(options)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        text = str(error.args[0] if error.args else error)
        raise ValueError(
            f'The overrides {", ".join(options)} do not fit the config: {text}'
        ) from error


def build_without_data(
    config: str | PathLike | Config, options: dict[str, Any] | None = None
) -> nn.Module:
    """Model of a config on the meta device, which takes neither weights nor much memory.

    Args:
        config: Config, its file or the name of a recipe; ``default_scope`` names the host.
        options: Overrides, merged into it.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If its host is MMPretrain and is not installed, or too old.
        ValueError: If it describes no model.
    """
    cfg = load_model_config(config, options)
    scope = cfg.get('default_scope', 'mmseg')
    with DefaultScope.overwrite_default_scope(scope), torch.device('meta'):
        return MODELS.build(cfg.model)
