"""Toy classifiers of mmpretrain on a stitched backbone, and pictures for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from torch import nn

from tests.builders import tiny_anchor

NUM_CLASSES = 5
SHAPE = ((3, 32), (6, 48))
#: Names of the classes, which are those of the folders of pictures.
KINDS = tuple(f'kind{number}' for number in range(NUM_CLASSES))
COLOURS = np.array([[200, 60, 50], [70, 180, 80], [60, 80, 200], [210, 200, 60], [90, 90, 90]])


def classifier(kind: str = 'class token', head: Any = None, **backbone: Any) -> dict[str, Any]:
    """Config of an ImageClassifier with a StitchedClsHead."""
    anchors = [tiny_anchor(*one, kind=kind) for one in SHAPE]
    settings = dict(
        anchors=anchors, img_size=64, out_indices=5, lift_taps=False, final_norm=True,
        drop_path_rate=0.0,
    )  # fmt: skip
    head = dict(type='StitchedClsHead', num_classes=NUM_CLASSES, in_channels=dict(S=32, L=48)) | (
        head or {}
    )
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(
            num_classes=NUM_CLASSES, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True
        ),
        backbone=dict(type='StitchedViT', **(settings | backbone)),
        head=head,
    )


def build(config: dict[str, Any]) -> nn.Module:
    """Model of a config in the scope of mmpretrain."""
    import mmpretrain.models  # noqa: F401 - registers them

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(config)


def write_pictures(root: Path, train: int = 20, val: int = 10, seed: int = 0) -> Path:
    """Write noisy pictures of one colour in a folder of each class; returns ``root``."""
    generator = np.random.default_rng(seed)
    for split, count in (('train', train), ('val', val)):
        for number in range(count):
            label = number % NUM_CLASSES
            pixels = COLOURS[label] + generator.normal(0, 40, (72, 64, 3))
            path = root / split / KINDS[label] / f'{number:04d}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return root


def _loader(root: Path, split: str, batch_size: int, steps: list, shuffle: bool) -> dict:
    dataset = dict(
        type='CustomDataset', data_root=str(root), data_prefix=split, with_label=True,
        pipeline=[dict(type='LoadImageFromFile'), *steps, dict(type='PackInputs')],
    )  # fmt: skip
    return dict(
        batch_size=batch_size, num_workers=0, persistent_workers=False,
        sampler=dict(type='DefaultSampler', shuffle=shuffle), dataset=dataset,
        collate_fn=dict(type='default_collate'),
    )  # fmt: skip


def run_config(root: Path, work_dir: Path, model: dict[str, Any], max_iters: int = 2) -> Config:
    """Config of a training of a few iterations with CutMix, and its validation."""
    model = dict(model, train_cfg=dict(augments=dict(type='CutMix', alpha=1.0)))
    resize = dict(type='Resize', scale=(64, 64))
    test_loader = _loader(root, 'val', 4, [resize], shuffle=False)
    loop = dict(metric='accuracy/top1', rule='greater')
    return Config(
        dict(
            default_scope='mmpretrain',
            custom_imports=dict(imports=['mmsnnet'], allow_failed_imports=False),
            model=model,
            train_dataloader=_loader(root, 'train', 5, [resize], shuffle=True),
            val_dataloader=test_loader,
            test_dataloader=test_loader,
            val_evaluator=dict(type='Accuracy', topk=(1,)),
            test_evaluator=dict(type='Accuracy', topk=(1,)),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters),
            val_cfg=dict(type='StitchValLoop', stitches='anchors', **loop),
            test_cfg=dict(type='StitchTestLoop', default_stitches='all', **loop),
            custom_hooks=[
                dict(type='StitchInitHook', num_images=20),
                dict(type='StitchSamplingHook', sampler=dict(type='UniformStitchSampler')),
            ],
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=max_iters)
            ),
            work_dir=str(work_dir),
            log_level='WARNING',
            randomness=dict(seed=3),
        )
    )


def save_classifier(
    folder: Path, model: dict[str, Any] | None = None, seed: int = 0
) -> tuple[str, str]:
    """Write a config and a checkpoint of random weights as fitted; returns their paths."""
    from tests.builders import shake

    config = run_config(folder, folder / 'work', model or classifier())
    config.dump(folder / 'config.py')
    built = build(config.model.to_dict())
    shake(built, seed)
    built.backbone.mark_fitted()
    content = dict(state_dict=built.state_dict(), meta=dict(dataset_meta=dict(classes=KINDS)))
    torch.save(content, folder / 'weights.pth')
    return str(folder / 'config.py'), str(folder / 'weights.pth')
