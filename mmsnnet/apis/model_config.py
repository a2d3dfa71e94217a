"""Models of configs, by file name or as they are."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from mmengine import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn


def load_model_config(
    config: str | PathLike | Config, options: dict[str, Any] | None = None
) -> Config:
    """Config of a model.

    Args:
        config: Config, or its file.
        options: Overrides, merged into it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it describes no model.
    """
    path = config
    if not isinstance(config, Config):
        if not Path(config).is_file():
            raise FileNotFoundError(f'There is no config {config}.')
        config = Config.fromfile(config)
    else:
        path = config.filename
    config.merge_from_dict(options or {})
    if config.get('model') is None:
        raise ValueError(f'Config {path} has no model.')
    return config


def build_without_data(
    config: str | PathLike | Config, options: dict[str, Any] | None = None
) -> nn.Module:
    """Model of a config on the meta device, which takes neither weights nor much memory.

    Args:
        config: Config, or its file; its ``default_scope`` names the host.
        options: Overrides, merged into it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it describes no model.
    """
    cfg = load_model_config(config, options)
    scope = cfg.get('default_scope', 'mmseg')
    with DefaultScope.overwrite_default_scope(scope), torch.device('meta'):
        return MODELS.build(cfg.model)
