"""Small trained models with their configs, that the tests of deployment take stitches out of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

import mmsnnet  # noqa: F401 - registers the backbone
from mmsnnet.deploy.description import describe
from mmsnnet.evaluation.cost.model_cost import model_costs
from mmsnnet.models import find_stitched_backbone
from mmsnnet.models.host.head_statistics import HeadStatistics, hash_norms, head_norms
from mmsnnet.registry import MODELS
from mmsnnet.runtime.metadata import ModelMetadata
from tests import toy_detection, toy_segmentation
from tests.builders import shake, tiny_anchor
from tests.segmentors import setr_head, tiny_stitched

SIZE = (64, 64)
DEPTH_RECIPE = Path(__file__).resolve().parents[2] / 'configs' / 'dpt_snnetv2_rooms.py'


def segmentation_config(root: Path = Path('data')) -> Config:
    """UPerHead on anchors of 3 and 6 blocks, for a data set of ``toy_segmentation``."""
    return toy_segmentation.toy_config(root, root / 'work')


def head_config(decode_head: dict[str, Any], kind: str, **backbone: Any) -> Config:
    """Another head of mmseg on anchors of 2 and 4 blocks."""
    config = Config.fromstring(toy_segmentation.BASE, '.py')
    model = dict(type=kind, backbone=tiny_stitched(**backbone), decode_head=decode_head)
    config.model = dict(model, train_cfg=dict(), test_cfg=dict(mode='whole'))
    return config


def setr_config() -> Config:
    """SETR's head, which resizes by a factor."""
    return head_config(
        setr_head(channels=64, num_classes=4, norm_cfg=dict(type='BN')), 'EncoderDecoder'
    )


def anchors_config(*anchors: dict[str, Any]) -> Config:
    """SETR's head on other anchors, the last of width 64."""
    config = setr_config()
    config.model.backbone.anchors = list(anchors)
    return config


def kind_config(kind: str) -> Config:
    """Two anchors of one kind of ViT."""
    return anchors_config(tiny_anchor(2, 32, kind), tiny_anchor(4, 64, kind))


def bias_config() -> Config:
    """Anchors whose attention adds a bias by relative position."""
    return kind_config('two tables')


def eva_config() -> Config:
    """Anchors whose attention turns queries and keys by their place."""
    return kind_config('EVA-02')


def dinov3_config() -> Config:
    """The same with registers."""
    return kind_config('DINOv3')


def registers_config() -> Config:
    """Anchors with registers, as DINOv2 has them."""
    return kind_config('registers')


def three_anchors_config() -> Config:
    """A space of three anchors."""
    return anchors_config(tiny_anchor(2, 16), tiny_anchor(2, 32), tiny_anchor(4, 64))


def depth_config() -> Config:
    """DPT for depth with class tokens."""
    head = dict(
        type='DPTDepthHead', in_channels=[64] * 4, channels=16, init_depth=3.0,
        post_process_channels=(8, 12, 20, 28),
    )  # fmt: skip
    return head_config(head, 'DepthEstimator', output_cls_token=True)


def depth_rooms_config(root: Path) -> Config:
    """The same with the test data and metrics of ``dpt_snnetv2_rooms.py``, of rooms in ``root``."""
    config, recipe = depth_config(), Config.fromfile(DEPTH_RECIPE)
    config.model.data_preprocessor = dict(recipe.model.data_preprocessor, size=SIZE)
    config.test_dataloader, config.test_evaluator = recipe.test_dataloader, recipe.test_evaluator
    config.test_dataloader.dataset.data_root = str(root)
    return config


def detection_config(root: Path = Path('data')) -> Config:
    """Mask R-CNN with the simple feature pyramid on windowed anchors."""
    return toy_detection.toy_config(root, root / 'work')


CONFIGS = {
    'segmentation': segmentation_config, 'SETR': setr_config, 'relative bias': bias_config,
    'EVA-02': eva_config, 'DINOv3': dinov3_config, 'registers': registers_config,
    'three anchors': three_anchors_config,
    'depth': depth_config, 'detection': detection_config,
}  # fmt: skip


def trained(config: Config, seed: int = 0, fitted: bool = True) -> nn.Module:
    """Model of a config with random weights, none zero, in eval mode."""
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = MODELS.build(config.model)
    shake(model, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
        elif name.endswith('running_var'):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    if fitted:
        find_stitched_backbone(model).mark_fitted()
    classes = len(toy_segmentation.CLASSES)
    model.dataset_meta = dict(
        classes=toy_segmentation.CLASSES, palette=[[7 * one, 9, 11] for one in range(classes)]
    )
    return model.eval()


def attach_statistics(model: nn.Module) -> HeadStatistics:
    """Let every stitch have head statistics of its own."""
    names, norms = find_stitched_backbone(model).space.names, head_norms(model)
    generator = torch.Generator().manual_seed(1)
    tables = {
        name: (
            0.3 * torch.randn(len(names), norm.num_features, generator=generator),
            0.5 + torch.rand(len(names), norm.num_features, generator=generator),
        )
        for name, norm in norms.items()
    }
    statistics = HeadStatistics(tuple(names), tables, hash_norms(norms), 8)
    statistics.attach(model)
    return statistics


def described(model: nn.Module, names: list[str], size: tuple[int, int] = SIZE) -> ModelMetadata:
    """Metadata of a model for some of its stitches."""
    return describe(model, names, model_costs(model, size), size)


def save_checkpoint(model: nn.Module, config: Config, folder: Path) -> tuple[str, str]:
    """Write config and checkpoint; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    config.dump(folder / 'config.py')
    meta = dict(dataset_meta=model.dataset_meta)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'weights.pth')
    return str(folder / 'config.py'), str(folder / 'weights.pth')
