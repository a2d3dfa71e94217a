"""What functions for inference of the hosts read of a model that was loaded from a config."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from mmengine.config import Config
from torch import nn

from .lookup import is_classifier

#: What MMPretrain's ``inference_model`` chooses its inferencer by.
_CLASSIFICATION = 'Image Classification'


def set_loaded_attributes(
    model: nn.Module, cfg: Config, dataset_meta: Mapping[str, Any] | None = None
) -> None:
    """Give a model the attributes that hosts put on what they load.

    MMSegmentation and MMDetection read ``cfg`` and ``dataset_meta``; MMPretrain reads ``_config``,
    ``_dataset_meta`` and, to find the inferencer, the task in ``_metainfo``, which it gives to
    models of its own zoo alone. A classifier gets both sets, so that all models can be asked alike.

    Args:
        model: Model of a host.
        cfg: Config that it was built from.
        dataset_meta: Its classes and more; None takes what is on the model already.
    """
    if dataset_meta is None:
        dataset_meta = getattr(model, 'dataset_meta', None) or getattr(model, '_dataset_meta', {})
    model.cfg, model.dataset_meta = cfg, dataset_meta
    if is_classifier(model):
        model._config, model._dataset_meta = cfg, dataset_meta
        model._metainfo = SimpleNamespace(results=[SimpleNamespace(task=_CLASSIFICATION)])
