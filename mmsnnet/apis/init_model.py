"""Loads a trained stitched model for inference."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from mmsnnet.evaluation.cost.model_cost import model_costs
from mmsnnet.models import StitchedViT, check_loaded, find_stitched_backbone
from mmsnnet.models.checkpoint_file import load_safely
from mmsnnet.models.host.head_statistics import attach_statistics_of
from mmsnnet.models.host.head_weights import check_heads_loaded
from mmsnnet.models.host.loaded_model import set_loaded_attributes
from mmsnnet.results.chooser import Chooser, chooser_of_costs, chooser_of_results
from mmsnnet.results.fingerprint import fingerprint_file
from mmsnnet.results.run_file import read_run
from mmsnnet.stitching import Cost, CostTable

from .model_config import load_model_config
from .stitch_control import give_control

PathLike = os.PathLike[str]


def init_model(
    config: str | PathLike | Config,
    checkpoint: str | PathLike | None = None,
    device: str = 'cpu',
    cfg_options: dict[str, Any] | None = None,
    results: str | PathLike | None = None,
    latency: str | PathLike | None = None,
    metric: str | None = None,
    rule: str | None = None,
) -> nn.Module:
    """Build a stitched model by its host (mmseg, mmdet or mmpretrain), and load it safely.

    The host's functions for inference take it as it is; besides it has the methods of
    :class:`~mmsnnet.apis.StitchControl`, such as ``model.set_budget(gflops=120)``.

    Args:
        config: Config, its file or a recipe's name; its ``default_scope`` names the host.
        checkpoint: Weights; None leaves the model untrained.
        device: Where it runs.
        cfg_options: Overrides of the config.
        results: Folder of a sweep of this checkpoint; head statistics in it are attached.
        latency: File of ``tools/measure_latency.py``, for budgets in ms and MB.
        metric: Metric to choose by; None for that of the sweep.
        rule: 'greater' or 'less'; None for that of the sweep.

    Raises:
        FileNotFoundError: If a file is missing.
        ImportError: If the host is MMPretrain and is not installed.
        ValueError: If the model is not stitched, loaded or fitted, or results are of another one.
    """
    model = _load(load_model_config(config), checkpoint, device, cfg_options)
    backbone = find_stitched_backbone(model)
    if results is None:
        costs = _costs_of(model, backbone)
        return give_control(model, chooser_of_costs(costs, latency), costs)
    chooser = chooser_of_results(results, latency, metric, rule)
    chooser.check_space(backbone.space, results)
    _check_results(results, checkpoint)
    attach_statistics_of(results, model)
    return give_control(model, chooser, _costs_behind(chooser, model))


def _check_file(checkpoint: str | PathLike | None, cfg: Config) -> None:
    """Refuse a file that is no checkpoint, before the host unpickles it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read safely, or is not what the host takes.
    """
    if checkpoint is None:
        return
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f'There is no checkpoint {checkpoint}.')
    content = load_safely(checkpoint)
    if not isinstance(content, Mapping):
        raise ValueError(
            f'Checkpoint {checkpoint} is a {type(content).__name__} where a dict with '
            'state_dict and meta is needed.'
        )
    if _scope(cfg) == 'mmseg' and 'meta' not in content:
        raise ValueError(
            f'Checkpoint {checkpoint} has no meta, which MMSegmentation reads: wrap the weights, '
            "torch.save(dict(state_dict=..., meta=dict(dataset_meta=dict(classes=...))), FILE)."
        )


def _check_results(results: str | PathLike, checkpoint: str | PathLike | None) -> None:
    """Refuse results of another checkpoint, as far as their run says of which they are.

    Raises:
        ValueError: If they are.
    """
    try:
        scored = read_run(Path(results))['fingerprint'].get('checkpoint')
    except FileNotFoundError:
        return  # records of the user's own need no run
    if None not in (scored, checkpoint) and scored != fingerprint_file(checkpoint):
        raise ValueError(
            f'The results in {results} are of another checkpoint than {checkpoint}: score this '
            'one with tools/test_all_stitches.py, or give the checkpoint that was scored.'
        )


def _load(
    cfg: Config, checkpoint: str | PathLike | None, device: str, options: dict[str, Any] | None
) -> nn.Module:
    """Model of a host, at the weights of a checkpoint if there is one.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If it cannot be read, or left weights of the model random: if it has no
            backbone, other heads, or stitches that were never fitted.
    """
    _check_file(checkpoint, cfg)
    model = _build(cfg, checkpoint, device, options)
    if checkpoint is not None:
        check_loaded(find_stitched_backbone(model), checkpoint)
        check_heads_loaded(model, str(checkpoint))
    return model


def _build(
    cfg: Config, checkpoint: str | PathLike | None, device: str, options: dict[str, Any] | None
) -> nn.Module:
    """Model of a host, by the host's own function."""
    checkpoint = None if checkpoint is None else str(checkpoint)
    cfg = _without_truth(cfg)
    if _scope(cfg) == 'mmdet':
        from mmdet.apis import init_detector

        return init_detector(cfg, checkpoint, device=device, cfg_options=options or {})
    if _scope(cfg) == 'mmpretrain':
        from mmpretrain.apis.model import get_model

        cfg.merge_from_dict(options or {})
        model = get_model(cfg, checkpoint or False, device=device)
        set_loaded_attributes(model, model._config)
        return model
    from mmseg.apis import init_model as init_segmentor

    return init_segmentor(cfg, checkpoint, device=device, cfg_options=options)


def _scope(cfg: Config) -> str:
    """Host of a config: 'mmseg', 'mmdet' or 'mmpretrain'."""
    return cfg.get('default_scope', 'mmseg')


def _without_truth(cfg: Config) -> Config:
    """A copy whose test_pipeline reads no depth map, as mmseg itself leaves out label maps."""
    cfg = copy.deepcopy(cfg)
    if cfg.get('test_pipeline') is not None:
        steps = cfg.test_pipeline
        cfg.test_pipeline = [s for s in steps if s.get('type') != 'LoadDepthAnnotation']
    return cfg


def _costs_of(model: nn.Module, backbone: StitchedViT) -> CostTable:
    """Costs of the whole model; of the backbone, with a warning, where that cannot be counted."""
    try:
        return model_costs(model, backbone.img_size)
    except ValueError as error:
        warnings.warn(
            f'Budgets in GFLOPs and parameters count the backbone alone: {error}', stacklevel=3
        )
        return backbone.costs


def _costs_behind(chooser: Chooser, model: nn.Module) -> CostTable:
    """Cost of every stitch of a model of which some were recorded.

    Where taps are lifted the head's cost is the same for all, and the records tell it.
    """
    backbone = find_stitched_backbone(model)
    if not backbone.space.lift_taps:
        return _costs_of(model, backbone)
    known = chooser.candidates[0]
    alone = backbone.costs[known.name]
    return backbone.costs.plus(Cost(known.flops - alone.flops, known.params - alone.params))
