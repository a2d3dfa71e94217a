"""The recipes of the configs at an eighth of their size, for rendered rooms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]

#: Pixels of crops, strides and scales, and channels of anchors, each with what replaces it.
EIGHTHS = {
    512: 64, 2048: 256, 341: 43, 518: 70, 2072: 280, 345: 47,  # pixels; 518 = 37 x 14, 70 = 5 x 14
    384: 32, 768: 48, 1024: 64, 256: 32,  # channels of anchors and heads
}  # fmt: skip
#: Blocks, channels and heads by size of an anchor; a third of the blocks.
SMALL = {'small': (4, 32, 2), 'base': (4, 48, 3), 'large': (8, 64, 4)}


def shrink(value: Any) -> Any:
    """A config with all its numbers of :data:`EIGHTHS` replaced."""
    if isinstance(value, dict):
        return {key: shrink(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(shrink(item) for item in value)
    return EIGHTHS.get(value, value) if type(value) is int else value


def small_anchor(anchor: Any) -> dict[str, Any]:
    """An anchor of a recipe with few blocks and channels, all else as in timm, without weights."""
    settings = dict(anchor) if isinstance(anchor, dict) else dict(model_name=anchor)
    size = next(size for size in SMALL if f'_{size}_' in settings['model_name'])
    depth, width, heads = SMALL[size]
    arguments = dict(depth=depth, embed_dim=width, num_heads=heads)
    return dict(settings, pretrained=False, model_kwargs=arguments)


def small_loader(loader: dict[str, Any], rooms: Path, split: str) -> dict[str, Any]:
    """A loader of a recipe that reads rooms, with the recipe's data set class and pipeline."""
    dataset = dict(
        loader['dataset'],
        data_root=str(rooms),
        data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}'),
        seg_map_suffix='.png',
    )
    return dict(shrink(loader), dataset=shrink(dataset), num_workers=0, persistent_workers=False)


def small_recipe(name: str, rooms: Path, work_dir: Path) -> Config:
    """A segmentation recipe at an eighth of its size, for one iteration of training on rooms.

    Args:
        name: File name below ``configs``.
        rooms: Folder of rooms in the layout of ADE20K.
        work_dir: Of the run.
    """
    config = Config.fromfile(ROOT / 'configs' / name).to_dict()
    model = shrink(config['model'])
    backbone = model['backbone']
    backbone['anchors'] = [small_anchor(anchor) for anchor in backbone['anchors']]
    backbone['out_indices'] = tuple(tap // 3 for tap in backbone['out_indices'])
    test_loader = small_loader(config['test_dataloader'], rooms, 'validation')
    config.update(
        model=model,
        train_dataloader=small_loader(config['train_dataloader'], rooms, 'training'),
        val_dataloader=test_loader,
        test_dataloader=test_loader,
        train_cfg=dict(config['train_cfg'], max_iters=1, val_interval=2),
        work_dir=str(work_dir),
        log_level='WARNING',
        randomness=dict(seed=0),
    )
    return Config(config)
