"""A StitchedViT in the plain-ViT configs of MMSegmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from _drop_in import Outcome, build, check_finite, chosen, tiny_anchors

#: Configs with a plain ViT.
PATTERNS = ('vit/*', 'mae/*', 'setr/*', 'dpt/*', 'segmenter/*', 'beit/*')
IMAGE_SIZE, PATCH_SIZE = 64, 8


def stitched(old: Mapping[str, Any]) -> dict[str, Any]:
    """A StitchedViT of two tiny anchors with depth, taps and outputs of an old backbone."""
    depth = old.get('num_layers', 12)
    out = old.get('out_indices', -1)
    taps = [out] if isinstance(out, int) else list(out)
    new = dict(
        type='StitchedViT',
        anchors=tiny_anchors(depth, PATCH_SIZE),
        img_size=IMAGE_SIZE,
        out_indices=sorted(depth - 1 if tap == -1 else tap for tap in taps),
    )
    return new | {key: True for key in ('output_cls_token', 'final_norm') if old.get(key)}


def shrink(cfg: Any) -> str:
    """Replace the backbone of a config by a tiny StitchedViT; returns the old one's class.

    The config keeps its heads, losses, inference mode and optimizer; images become small.
    """
    old = cfg.model.backbone
    cfg.model.backbone = stitched(old)
    cfg.model.data_preprocessor.size = (IMAGE_SIZE, IMAGE_SIZE)
    for key in ('mean', 'std'):  # noise needs no normalisation
        cfg.model.data_preprocessor[key] = [0.0 if key == 'mean' else 1.0] * 3
    if cfg.model.test_cfg.get('mode') == 'slide':
        stride = IMAGE_SIZE * cfg.model.test_cfg.stride[0] // cfg.model.test_cfg.crop_size[0]
        cfg.model.test_cfg.update(crop_size=(IMAGE_SIZE,) * 2, stride=(stride,) * 2)
    return old.type


def leave_mixed_precision(cfg: Any) -> None:
    """Train in full precision where there is no GPU, which MMEngine's mixed precision asks for."""
    import torch

    if cfg.optim_wrapper.type == 'AmpOptimWrapper' and not torch.cuda.is_available():
        cfg.optim_wrapper.type = 'OptimWrapper'
        cfg.optim_wrapper.pop('loss_scale', None)


def replace_decay(cfg: Any) -> list[str]:
    """Replace mmseg's layer-wise decay, which knows its own backbones by their class names."""
    if 'Decay' not in cfg.optim_wrapper.get('constructor', ''):
        return []
    options = cfg.optim_wrapper.paramwise_cfg
    rate = options.get('decay_rate', options.get('layer_decay_rate'))
    constructor = 'StitchLayerDecayOptimWrapperConstructor'
    cfg.optim_wrapper.constructor = constructor
    cfg.optim_wrapper.paramwise_cfg = dict(decay_rate=rate)
    return [
        f'optim_wrapper.constructor={constructor}',
        f'optim_wrapper.paramwise_cfg=dict(_delete_=True, decay_rate={rate})',
    ]


def noise(num_classes: int, count: int = 2) -> dict[str, list[Any]]:
    """A batch of noise pictures with noise labels, as a data loader of mmseg delivers it."""
    import torch
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(0)
    shape = (IMAGE_SIZE, IMAGE_SIZE)
    samples = []
    for _ in range(count):
        labels = torch.randint(num_classes, (1, *shape), generator=generator)
        meta = dict(img_shape=shape, ori_shape=shape, pad_shape=shape, padding_size=[0, 0, 0, 0])
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=meta))
    pictures = torch.randint(256, (count, 3, *shape), generator=generator, dtype=torch.uint8)
    return dict(inputs=list(pictures), data_samples=samples)


def exercise(cfg: Any, outcome: Outcome) -> None:
    """Train a config's model for one step and test a few stitches.

    Raises:
        ValueError: If something is not finite.
    """
    import torch
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import DefaultScope

    from mmsnnet.models import find_stitched_backbone

    with DefaultScope.overwrite_default_scope('mmseg'):
        model = build(cfg, outcome.changes)
        outcome.changes += replace_decay(cfg)
        leave_mixed_precision(cfg)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        head = model.decode_head
        head = head[-1] if isinstance(head, torch.nn.ModuleList) else head
        losses = model.train().train_step(noise(head.num_classes), wrapper)
        check_finite('training', losses.values())
        backbone = find_stitched_backbone(model.eval())
        for stitch in chosen(backbone):
            with torch.no_grad(), backbone.use_stitch(stitch):
                logits = model.test_step(noise(head.num_classes))[0].seg_logits.data
            check_finite(stitch.name, [logits])
            outcome.stitches.append(stitch.name)
