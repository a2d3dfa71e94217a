"""A data set of coloured blocks in the layout of ADE20K, and the config of a segmentor for it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor

import mmsnnet  # noqa: F401 - registers backbone, hooks and loops
from mmsnnet.engine.rng_state import seeded_rng
from mmsnnet.models import StitchedViT, find_stitched_backbone

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ('wall', 'building', 'sky', 'floor')
COLOURS = np.array([[200, 60, 50], [70, 180, 80], [60, 80, 200], [210, 200, 60]])
#: Anchors of depth x width; 8 stitches lie between them.
SHAPE = ((3, 16), (6, 32))
NAMES = ('S3', 'L6', 'S1-L4', 'S2-L2', 'L2-S2', 'L4-S1', 'L2-S1-L2', 'S1-L2-S1')

BASE = """
default_scope = 'mmseg'
custom_imports = dict(imports=['mmsnnet'], allow_failed_imports=False)
randomness = dict(seed=7)
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
log_level = 'WARNING'
"""


def write_images(root: Path, train: int = 12, val: int = 4, side: int = 72, seed: int = 0) -> Path:
    """Write noisy pictures of coloured blocks with their labels; returns ``root``."""
    generator = np.random.default_rng(seed)
    for split, count in (('training', train), ('validation', val)):
        for number in range(count):
            blocks = generator.integers(0, len(CLASSES), (3, 3))
            labels = np.kron(blocks, np.ones((side // 3, side // 3), int))
            pixels = COLOURS[labels] + generator.normal(0, 20, (side, side, 3))
            stem = f'ADE_{split}_{number:08d}'
            for kind, array, suffix in (
                ('images', pixels.clip(0, 255), '.jpg'),
                ('annotations', labels + 1, '.png'),
            ):
                path = root / kind / split / (stem + suffix)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array.astype(np.uint8)).save(path)
    return root


def anchor(depth: int, width: int) -> dict[str, Any]:
    """Config of an anchor with patches of 16 pixels, without weights."""
    arguments = dict(depth=depth, embed_dim=width, num_heads=width // 16)
    return dict(model_name='vit_tiny_patch16_224', pretrained=False, model_kwargs=arguments)


def segmentor(shape: Any = SHAPE) -> dict[str, Any]:
    """Config of an EncoderDecoder with UPerHead and an auxiliary FCNHead."""
    depth, width = max(one[0] for one in shape), max(one[1] for one in shape)
    common = dict(
        channels=8, dropout_ratio=0.1, num_classes=len(CLASSES), norm_cfg=dict(type='BN'),
        align_corners=False, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False),
    )  # fmt: skip
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True,
            size=(64, 64), pad_val=0, seg_pad_val=255,
        ),
        backbone=dict(
            type='StitchedViT', anchors=[anchor(*one) for one in shape], img_size=64,
            out_indices=(depth // 2 - 1, depth - 1), lora_rank=4, drop_path_rate=0.2,
        ),
        decode_head=dict(
            type='UPerHead', in_channels=[width] * 2, in_index=[0, 1], pool_scales=(1, 2), **common
        ),
        auxiliary_head=dict(
            type='FCNHead', in_channels=width, in_index=1, num_convs=1, concat_input=False,
            **common,
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )  # fmt: skip


def _loader(root: Path, split: str, batch_size: int, pipeline: list, sampler: dict) -> dict:
    dataset = dict(
        type='ADE20KDataset', data_root=str(root), metainfo=dict(classes=CLASSES),
        data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}'),
        pipeline=pipeline, serialize_data=False,
    )  # fmt: skip
    return dict(
        batch_size=batch_size, num_workers=0, persistent_workers=False, sampler=sampler,
        dataset=dataset,
    )  # fmt: skip


def loaders(root: Path, by_epoch: bool = False) -> dict[str, Any]:
    """Loaders and evaluators, with random augmentation in training."""
    load = [dict(type='LoadImageFromFile')]
    labels = [dict(type='LoadAnnotations', reduce_zero_label=True)]
    random = [
        dict(type='RandomCrop', crop_size=(64, 64)),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
    ]
    pack = [dict(type='PackSegInputs')]
    resize = [dict(type='Resize', scale=(64, 64), keep_ratio=False)]
    kind = 'DefaultSampler' if by_epoch else 'InfiniteSampler'
    shuffled, in_order = dict(type=kind, shuffle=True), dict(type='DefaultSampler', shuffle=False)
    test = _loader(root, 'validation', 1, load + resize + labels + pack, in_order)
    return dict(
        train_dataloader=_loader(root, 'training', 2, load + labels + random + pack, shuffled),
        val_dataloader=test,
        test_dataloader=test,
        val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        test_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
    )


def toy_config(root: Path, work_dir: Path, by_epoch: bool = False, **settings: Any) -> Config:
    """Config of a training of 6 iterations (2 epochs) with both hooks and stitched loops.

    Args:
        root: Data set of :func:`write_images`.
        work_dir: Of the run, whose name becomes the experiment's.
        by_epoch: Train, validate and save by epoch.
        settings: Merged into the config; dicts by key, where ``_delete_`` works too.
    """
    config = Config.fromstring(BASE, '.py')
    length = dict(by_epoch=True, max_epochs=2) if by_epoch else dict(by_epoch=False, max_iters=6)
    scoring = dict(stitches='anchors', metric='mIoU')
    checkpoint = dict(type='CheckpointHook', by_epoch=by_epoch, interval=1 if by_epoch else 3)
    config.merge_from_dict(
        dict(
            model=segmentor(),
            **loaders(root, by_epoch),
            train_cfg=dict(**length, val_interval=1 if by_epoch else 3),
            val_cfg=dict(type='StitchValLoop', **scoring),
            test_cfg=dict(type='StitchTestLoop', **scoring),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
            param_scheduler=[dict(type='LinearLR', start_factor=0.1, end=4, by_epoch=False)],
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=by_epoch),
                checkpoint=checkpoint,
            ),
            custom_hooks=[
                dict(type='StitchInitHook', num_images=8),
                dict(type='StitchSamplingHook', log_interval=1),
            ],
            work_dir=str(work_dir),
            experiment_name=f'{Path(work_dir).parent.name}_{Path(work_dir).name}',
        )
    )
    config.merge_from_dict(settings)
    return config


def toy_runner(root: Path, work_dir: Path, by_epoch: bool = False, **settings: Any) -> Runner:
    """Runner of :func:`toy_config`."""
    return Runner.from_cfg(toy_config(root, work_dir, by_epoch, **settings))


class Probe(Hook):
    """Calls functions with the runner at points of a run, such as ``before_train_iter=...``."""

    def __init__(self, **calls: Callable[[Runner], Any]) -> None:
        for point, call in calls.items():
            setattr(self, point, lambda runner, *_, call=call, **__: call(runner))


def backbone_of(runner: Runner) -> StitchedViT:
    """Stitched backbone of a runner."""
    return find_stitched_backbone(runner.model)


def stitch_weights(backbone: StitchedViT) -> dict[str, Tensor]:
    """Weights and biases that fitting sets, copied."""
    state = backbone.stitch_layers.state_dict()
    kept = ('.weight', '.bias')
    return {name: value.clone() for name, value in state.items() if name.endswith(kept)}


def write_anchor_files(folder: Path, shape: Any = SHAPE) -> list[dict[str, Any]]:
    """Write weights of timm models to files; returns configs of anchors that load them."""
    folder.mkdir(parents=True, exist_ok=True)
    anchors = []
    for seed, (depth, width) in enumerate(shape):
        config = anchor(depth, width)
        with seeded_rng(seed):
            vit = timm.create_model(config['model_name'], img_size=64, **config['model_kwargs'])
        config['checkpoint'] = str(folder / f'{depth}x{width}.pth')
        torch.save(vit.state_dict(), config['checkpoint'])
        anchors.append(config)
    return anchors


def losses(runner: Runner) -> list[float]:
    """Loss of every training iteration of the run so far, those before a resume included."""
    return runner.message_hub.get_scalar('train/loss')._log_history.tolist()


def weights(runner: Runner) -> dict[str, Any]:
    """State dict of the model, copied."""
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def child_environment(**more: str) -> dict[str, str]:
    """Environment of a process that imports the package and runs the tools of this checkout."""
    folders = [str(ROOT), str(ROOT / 'tools'), os.environ.get('PYTHONPATH')]
    path = os.pathsep.join(filter(None, folders))
    return {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', **more}


def run_python(*arguments: str, **more: Any) -> subprocess.CompletedProcess:
    """Run this interpreter with arguments to its end, its output kept as text."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=600,
        **more,
    )


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def logged(runner: Runner, level: int = logging.WARNING) -> Iterator[list[str]]:
    """Messages of at least a level that a runner logs meanwhile."""
    handler = _Lines()
    loggers = {runner.logger, MMLogger.get_current_instance()}
    former = {logger: logger.level for logger in loggers}
    handler.setLevel(level)
    for logger in loggers:
        logger.setLevel(min(level, logger.level))
        logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.setLevel(former[logger])
