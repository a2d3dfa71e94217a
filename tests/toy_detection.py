"""Rooms in the layout of COCO, and the config of a small Mask R-CNN for them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from rooms import RoomsSpec, write_rooms
from torch import nn

import mmsnnet  # noqa: F401 - registers backbone, hooks and loops
from mmsnnet.registry import MODELS

CONFIG = Path(__file__).resolve().parents[1] / 'configs' / 'mask-rcnn_snnetv2_rooms.py'
SIDE = 64
#: Anchors of depth x width; 4 stitches lie between them.
SHAPE = ((2, 16), (4, 32))
NAMES = ('S2', 'L4', 'S1-L2', 'L2-S1')


def write_coco_rooms(root: Path, train: int = 6, val: int = 3) -> Path:
    """Write pictures of 64 px with their annotations; returns ``root``."""
    write_rooms(root, RoomsSpec(train, val, (SIDE, SIDE), 3, ('coco',)))
    return root


def vit_anchor(depth: int, width: int) -> dict[str, Any]:
    """Config of an anchor with patches of 16 pixels, without weights."""
    arguments = dict(depth=depth, embed_dim=width, num_heads=width // 16)
    return dict(model_name='vit_tiny_patch16_224', pretrained=False, model_kwargs=arguments)


def _heads(channels: int) -> dict[str, Any]:
    """RPN and RoI heads of few channels, proposals and samples."""
    extractor = dict(out_channels=channels)
    return dict(
        rpn_head=dict(in_channels=channels, feat_channels=channels, num_convs=1),
        roi_head=dict(
            bbox_roi_extractor=extractor,
            mask_roi_extractor=extractor,
            bbox_head=dict(in_channels=channels, conv_out_channels=channels, fc_out_channels=16),
            mask_head=dict(in_channels=channels, conv_out_channels=channels, num_convs=1),
        ),
        train_cfg=dict(
            rpn_proposal=dict(nms_pre=50, max_per_img=20), rcnn=dict(sampler=dict(num=16))
        ),
        test_cfg=dict(
            rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(score_thr=0.0, max_per_img=10)
        ),
    )  # fmt: skip


def toy_config(root: Path, work_dir: Path, **settings: Any) -> Config:
    """Config of ``mask-rcnn_snnetv2_rooms.py``, made small, for a training of 4 iterations.

    Args:
        root: Data set of :func:`write_coco_rooms`.
        work_dir: Of the run, whose name becomes the experiment's.
        settings: Merged into the config; dicts by key, where ``_delete_`` works too.
    """
    config = Config.fromfile(CONFIG)
    annotations = f'{root}/annotations/instances_val2017.json'
    config.merge_from_dict(
        dict(
            model=dict(
                data_preprocessor=dict(pad_size_divisor=SIDE),
                backbone=dict(
                    anchors=[vit_anchor(*one) for one in SHAPE], img_size=SIDE,
                    out_indices=(3,), window_size=3, global_blocks=(1, 3),
                ),
                neck=dict(in_channels=SHAPE[-1][1], out_channels=8),
                **_heads(8),
            ),
            train_dataloader=dict(batch_size=2, dataset=dict(data_root=str(root))),
            val_dataloader=dict(batch_size=2, dataset=dict(data_root=str(root))),
            test_dataloader=dict(batch_size=2, dataset=dict(data_root=str(root))),
            val_evaluator=dict(ann_file=annotations),
            test_evaluator=dict(ann_file=annotations),
            train_cfg=dict(max_iters=4, val_interval=4),
            default_hooks=dict(checkpoint=dict(interval=2), logger=dict(interval=1)),
            custom_hooks=[
                dict(type='StitchInitHook', num_images=6, batch_size=2),
                dict(type='StitchSamplingHook', sampler=dict(type='UniformStitchSampler')),
            ],
            randomness=dict(seed=7),
            log_level='WARNING',
            work_dir=str(work_dir),
            experiment_name=f'{Path(work_dir).parent.name}_{Path(work_dir).name}',
        )
    )
    for split in ('val', 'test'):
        config.merge_from_dict(
            {f'{split}_dataloader.dataset.pipeline.1.scale': (SIDE, SIDE)}
        )
    config.merge_from_dict(settings)
    return config


def mmdet_model(path: str) -> dict[str, Any]:
    """Model of a config that mmdet ships, ``mask_rcnn/...py``."""
    package = Path(find_spec('mmdet').submodule_search_locations[0])
    return Config.fromfile(package / '.mim' / 'configs' / path).model


def build_detector(
    path: str, neck: dict[str, Any] | None = None, device: str = 'meta', **settings: Any
) -> nn.Module:
    """Detector of a config that mmdet ships, on a stitched backbone of 32 channels.

    Args:
        path: Config of mmdet.
        neck: Its neck; the simple feature pyramid by default.
        device: Where to build it.
        settings: Merged into the model; dicts by key, where ``_delete_`` works too.
    """
    backbone = dict(
        type='StitchedViT', anchors=[vit_anchor(*one) for one in SHAPE], img_size=SIDE,
        out_indices=(3,), window_size=3, global_blocks=(1, 3), lora_rank=0,
    )  # fmt: skip
    pyramid = dict(type='SimpleFeaturePyramid', in_channels=SHAPE[-1][1], out_channels=256)
    config = Config(dict(model=mmdet_model(path)))
    config.model.neck = neck or pyramid
    config.merge_from_dict(
        dict(model=dict(backbone=dict(_delete_=True, **backbone), **settings))
    )
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device(device):
        return MODELS.build(config.model)


def toy_runner(root: Path, work_dir: Path, **settings: Any) -> Runner:
    """Runner of :func:`toy_config`."""
    return Runner.from_cfg(toy_config(root, work_dir, **settings))
